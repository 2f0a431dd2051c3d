// Command mutate shows that the tests guard what they are said to guard. It takes one thing out of a copy of the repository at a time:
// a link of a chain, a check, a policy, a grant, and runs the tests that should notice. It prints which test did. What nobody notices
// fails the run, and so does a mutation that no longer fits the code.
//
//	mutate [--only REGEXP] [--json FILE] [--list]
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
	"regexp"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	only := flags.String("only", "", "only mutations whose name this regular expression finds")
	into := flags.String("json", "", "file for the result as JSON")
	list := flags.Bool("list", false, "say what would be taken out, and do nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	var chosen []mutation
	for _, m := range mutations() {
		if wanted.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no mutation's name has %q", *only)
	}
	if *list {
		for _, m := range chosen {
			fmt.Fprintln(out, m.name)
		}
		return nil
	}
	tree, err := copyTree(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree.dir) }()
	// All have to fit before the first hour is spent on some.
	for _, m := range mutations() {
		if err := tree.fits(m); err != nil {
			return err
		}
	}
	outcomes, err := tree.tryAll(ctx, chosen, progress)
	print(out, outcomes)
	if *into != "" {
		raw, jsonErr := json.MarshalIndent(outcomes, "", "  ")
		err = errors.Join(err, jsonErr, os.WriteFile(*into, append(raw, '\n'), 0o644))
	}
	return errors.Join(err, verdict(outcomes))
}

// outcome is what became of one mutation.
type outcome struct {
	Name string `json:"taken_out"`
	// CaughtBy is the test that failed; empty where none did.
	CaughtBy string `json:"caught_by"`
	// Wrong says why the mutation itself is none; it has to be written anew.
	Wrong   string  `json:"wrong,omitempty"`
	Seconds float64 `json:"seconds"`
}

func (t *tree) tryAll(ctx context.Context, chosen []mutation, progress io.Writer) ([]outcome, error) {
	for i, l := range distinct(chosen) {
		began := time.Now()
		failed, err := t.test(ctx, l)
		if err != nil {
			return nil, err
		}
		if failed != "" {
			return nil, fmt.Errorf("%s fails with nothing taken out (%s): mend it first", l, failed)
		}
		fmt.Fprintf(progress, "%d: %s passes with nothing taken out (%s)\n", i+1, l, time.Since(began).Round(time.Second))
	}
	var out []outcome
	for i, m := range chosen {
		began := time.Now()
		by, err := t.try(ctx, m)
		o := outcome{Name: m.name, CaughtBy: by}
		switch {
		case errors.Is(err, errDoesNotBuild):
			o.Wrong = err.Error()
		case err != nil:
			return out, fmt.Errorf("%s: %w", m.name, err)
		}
		o.Seconds = time.Since(began).Seconds()
		out = append(out, o)
		fmt.Fprintf(progress, "%d/%d: without %s: %s (%.0f s)\n", i+1, len(chosen), o.Name, o.told(), o.Seconds)
	}
	return out, nil
}

func (o outcome) told() string {
	switch {
	case o.Wrong != "":
		return "NO MUTATION: " + strings.TrimSpace(o.Wrong)
	case o.CaughtBy == "":
		return "SURVIVED"
	}
	return "caught by " + o.CaughtBy
}

func print(out io.Writer, all []outcome) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "taken out\twhat became of it\t")
	caught := 0
	for _, o := range all {
		if o.CaughtBy != "" {
			caught++
		}
		fmt.Fprintf(w, "%s\t%s\t\n", o.Name, o.told())
	}
	_ = w.Flush() // out's own errors are seen by who reads it
	fmt.Fprintf(out, "%d of %d were caught\n", caught, len(all))
}

func verdict(all []outcome) error {
	var survived []string
	for _, o := range all {
		if o.CaughtBy == "" {
			survived = append(survived, o.Name)
		}
	}
	if len(survived) == 0 {
		return nil
	}
	return fmt.Errorf("nobody noticed that this was gone, or it can't be taken out as written: %s", strings.Join(survived, "; "))
}
