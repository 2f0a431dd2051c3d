package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// edit takes one text of a file for another. The text stands there exactly once.
type edit struct{ file, old, new string }

// look is where to look whether somebody notices: tests of packages of a module.
type look struct {
	module string
	pkgs   string
	// run and skip choose tests, as of go test; empty for all and for none.
	run, skip string
}

func (l look) String() string { return strings.TrimSpace(l.module + " " + l.pkgs + " " + l.run) }

// mutation is one thing that is taken out, and where it should be noticed: quick looks first.
type mutation struct {
	name  string
	edits []edit
	looks []look
}

// distinct are the looks of mutations, each once.
func distinct(all []mutation) []look {
	var out []look
	for _, m := range all {
		for _, l := range m.looks {
			if !slices.Contains(out, l) {
				out = append(out, l)
			}
		}
	}
	return out
}

// tree is a copy of the repository, as it lies here, to take things out of.
type tree struct{ dir string }

func copyTree(ctx context.Context) (*tree, error) {
	top, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	root := strings.TrimSpace(string(top))
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the checkout's files: %w", err)
	}
	dir, err := os.MkdirTemp("", "a3-mutate-")
	if err != nil {
		return nil, err
	}
	// PostgreSQL's own user walks through here in some tests.
	const walk = 0o711
	if err := os.Chmod(dir, walk); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return &tree{dir}, nil
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, raw, info.Mode().Perm())
}

// fits says whether a mutation still means something here.
func (t *tree) fits(m mutation) error {
	for _, e := range m.edits {
		raw, err := os.ReadFile(filepath.Join(t.dir, e.file))
		if err != nil {
			return fmt.Errorf("%s: %w: write the mutation anew", m.name, err)
		}
		if n := bytes.Count(raw, []byte(e.old)); n != 1 {
			return fmt.Errorf("%s: %s has this text %d times, want it once; write the mutation anew: %q", m.name, e.file, n, e.old)
		}
	}
	return nil
}

// try takes something out, looks whether a test notices, and puts it back.
func (t *tree) try(ctx context.Context, m mutation) (caughtBy string, err error) {
	for _, e := range m.edits {
		path := filepath.Join(t.dir, e.file)
		raw, readErr := os.ReadFile(path)
		if readErr != nil {
			return "", readErr
		}
		defer func() { err = errors.Join(err, os.WriteFile(path, raw, 0o644)) }()
		if err := os.WriteFile(path, bytes.Replace(raw, []byte(e.old), []byte(e.new), 1), 0o644); err != nil {
			return "", err
		}
	}
	for _, l := range m.looks {
		failed, err := t.test(ctx, l)
		if failed != "" || err != nil {
			return failed, err
		}
	}
	return "", nil
}

// test runs tests and answers the first that failed. What doesn't build is an error: nobody could have noticed anything.
func (t *tree) test(ctx context.Context, l look) (failed string, err error) {
	// A test that waits in vain for what was taken out has noticed too.
	most := "-timeout=3m"
	if l.pkgs == "./systemtest" {
		most = "-timeout=15m"
	}
	args := []string{"test", "-json", "-failfast", most}
	if l.run != "" {
		args = append(args, "-run", l.run)
	}
	if l.skip != "" {
		args = append(args, "-skip", l.skip)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, strings.Fields(l.pkgs)...)...)
	cmd.Dir, cmd.Env = filepath.Join(t.dir, l.module), append(os.Environ(), "A3_BIN=")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	failed, err = firstFailure(stdout)
	if exit, unwell := errors.AsType[*exec.ExitError](cmd.Wait()); unwell && err == nil && failed == "" {
		err = fmt.Errorf("go test in %s: %w: %s", l, exit, complaints.String())
	}
	return failed, errors.Join(err, ctx.Err())
}

// errDoesNotBuild is returned for what nobody could have noticed.
var errDoesNotBuild = errors.New("it doesn't build without that")

// event is a line of go test -json (cmd/test2json).
type event struct{ Action, Package, Test, Output, FailedBuild string }

// firstFailure reads to the end. A package that fails without a test of it failing could not even begin.
func firstFailure(from io.Reader) (string, error) {
	var test, pkg, open, said string
	lines := bufio.NewScanner(from)
	const longest = 16 << 20
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return "", fmt.Errorf("go test says %q, which is no event: %w", lines.Text(), err)
		}
		top, _, _ := strings.Cut(e.Test, "/")
		switch {
		case e.Action == "run":
			open = top
		case e.Action == "pass" && e.Test == open:
			open = ""
		case e.Action == "build-output":
			said += e.Output
		case e.FailedBuild != "":
			return "", fmt.Errorf("%w: %s", errDoesNotBuild, said)
		case e.Action == "fail" && e.Test != "" && test == "":
			test = top
		case e.Action == "output" && e.Test == "" && !strings.HasPrefix(e.Output, "FAIL") && !strings.HasPrefix(e.Output, "ok"):
			said = e.Output
		case e.Action == "fail" && pkg == "":
			pkg = e.Package
		}
	}
	switch {
	case test != "":
		return test, lines.Err()
	case pkg != "" && open != "":
		return open + ", which never ended", lines.Err()
	case pkg != "":
		return fmt.Sprintf("%s, which could not begin: %.120s", pkg, strings.TrimSpace(said)), lines.Err()
	}
	return "", lines.Err()
}
