package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action, Package, Test, Output, Key, Value string
	Elapsed                                   float64
}

// result is how a test, or a whole package, ended.
type result struct {
	pkg, test, action string
	elapsed           time.Duration
	// cases it says it played, by row.
	cases map[string]int
	// output is kept of what failed or was skipped.
	output string
}

func (r result) failed() bool { return r.action == "fail" }

// play runs batches one after another: each test uses the machine as if it were alone.
func play(ctx context.Context, root string, all []batch, progress io.Writer) ([]result, error) {
	var out []result
	for _, b := range all {
		fmt.Fprintf(progress, "%s: %d tests of %d packages\n", b.module, len(b.tests), len(b.pkgs))
		args := []string{"test", "-json", "-count=1", "-timeout=50m", "-run", "^(" + strings.Join(b.tests, "|") + ")$"}
		if b.tag != "" {
			args = append(args, "-tags="+b.tag)
		}
		cmd := exec.CommandContext(ctx, "go", append(args, b.pkgs...)...)
		// Rows of the long tests are rows as well.
		cmd.Env = append(os.Environ(), "A3_LONG=1")
		cmd.Dir, cmd.Stderr = filepath.Join(root, b.module), os.Stderr
		// Tests stop what they started when they are asked to end, and not when they are killed.
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		cmd.WaitDelay = time.Minute
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("go test: %w", err)
		}
		results, err := collect(stdout, progress)
		out = append(out, results...)
		// That tests failed stands in the results.
		if _, failed := errors.AsType[*exec.ExitError](cmd.Wait()); err != nil || failed && ctx.Err() != nil {
			return nil, errors.Join(err, ctx.Err())
		}
	}
	return out, nil
}

// collect reads events to their end and tells of each test that played a row, or failed, as it ends.
func collect(from io.Reader, progress io.Writer) ([]result, error) {
	var out []result
	open := map[[2]string]*result{}
	lines := bufio.NewScanner(from)
	const longest = 16 << 20
	lines.Buffer(nil, longest)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("go test says %q, which is no event: %w", lines.Text(), err)
		}
		if e.Package == "" {
			if e.Action == "build-output" {
				fmt.Fprint(progress, e.Output)
			}
			continue
		}
		at := [2]string{e.Package, e.Test}
		r := open[at]
		if r == nil {
			r = &result{pkg: e.Package, test: e.Test, cases: map[string]int{}}
			open[at] = r
		}
		switch e.Action {
		case "output":
			r.output += e.Output
		case "attr":
			if err := r.note(e); err != nil {
				return nil, err
			}
		case "pass", "fail", "skip":
			delete(open, at)
			r.action, r.elapsed = e.Action, time.Duration(e.Elapsed*float64(time.Second))
			r.tell(progress)
			if e.Action == "pass" {
				r.output = ""
			}
			out = append(out, *r)
		}
	}
	// What began and didn't end was taken down by what ended its process.
	for _, r := range open {
		r.action = "fail"
		r.tell(progress)
		out = append(out, *r)
	}
	return out, lines.Err()
}

// note takes the cases of an attribute "row": "T1 12".
func (r *result) note(e event) error {
	if e.Key != "row" {
		return nil
	}
	name, count, _ := strings.Cut(e.Value, " ")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return fmt.Errorf(`%s of %s has the attribute row=%q: write a row and how many cases were held, as "T1 12"`, r.test, r.pkg, e.Value)
	}
	r.cases[name] += n
	return nil
}

func (r *result) tell(to io.Writer) {
	if r.test == "" && !r.failed() || r.action == "pass" && len(r.cases) == 0 {
		return
	}
	sign := map[string]string{"pass": "✓", "fail": "✗", "skip": "-"}[r.action]
	var played []string
	for name, n := range r.cases {
		played = append(played, fmt.Sprintf("%s %d", name, n))
	}
	name := r.test
	if name == "" {
		name = "package " + r.pkg
	}
	fmt.Fprintf(to, "%s %s (%s) %s\n", sign, name, r.elapsed.Round(time.Millisecond), strings.Join(played, ", "))
	if r.action != "pass" {
		fmt.Fprint(to, r.output)
	}
}
