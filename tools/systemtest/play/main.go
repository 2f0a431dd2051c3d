// Command play runs the tests that play the rows of a catalogue, attacks or faults, and prints row by row how many cases were tried
// and how many were held. It finds the tests by their comments: a test that plays row T1 says so in its doc comment, and ends with
// t.Attr("row", "T1 n") once n cases were held. A row that nobody plays is a failure, unless the catalogue names what will bring it.
//
//	play attacks|faults [--json FILE] [--only ROW,ROW]
//
// With A3_TEST_PLATFORM=docker it plays those rows that are about planes on a platform, on planes of containers.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"a3os.app/tools/systemtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "play:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: play attacks|faults [--json FILE] [--only ROW,ROW]")

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	rows, err := catalogue(args[0])
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("play", flag.ContinueOnError)
	into := flags.String("json", "", "file for the result as JSON")
	only := flags.String("only", "", "rows to play, with commas between them")
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	if *only != "" {
		if rows, err = rows.only(strings.Split(*only, ",")); err != nil {
			return err
		}
	}
	root, err := checkout()
	if err != nil {
		return err
	}
	tests, err := find(root)
	if err != nil {
		return err
	}
	tests, rows = playedOn(os.Getenv(systemtest.PlatformVariable), tests, rows)
	results, err := play(ctx, root, batches(tests, rows), progress)
	if err != nil {
		return err
	}
	report := rows.report(tests, results)
	report.print(out)
	if *into != "" {
		raw, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*into, append(raw, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	return report.verdict()
}

// checkout is the root of the repository that this is run in.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.work is here or above: run this inside the checkout")
}

// only are the rows of these names.
func (c rows) only(names []string) (rows, error) {
	var out rows
	for _, name := range names {
		i := slices.IndexFunc(c, func(r row) bool { return r.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("the catalogue has no row %q", name)
		}
		out = append(out, c[i])
	}
	return out, nil
}

// playedOn are the tests that are played on a platform, and the rows that are: on docker those that it could answer otherwise than this machine's processes.
func playedOn(platform string, tests []test, all rows) ([]test, rows) {
	if platform != "docker" {
		return tests, all
	}
	tests = slices.DeleteFunc(slices.Clone(tests), func(t test) bool {
		return t.pkg != "./fleet/internal/platform/docker" && (t.pkg != "./systemtest" || !slices.Contains(systemtest.OnDocker(), t.name))
	})
	return tests, slices.DeleteFunc(slices.Clone(all), func(r row) bool {
		return !slices.ContainsFunc(tests, func(t test) bool { return slices.Contains(t.rows, r.Name) })
	})
}
