package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
)

// line is a row with what became of it.
type line struct {
	row
	// Cases were tried, of which Held had no effect and told nothing.
	Cases  int      `json:"cases"`
	Held   int      `json:"held"`
	Failed int      `json:"failed"`
	Tests  []string `json:"tests"`
	// Skipped are tests of the row that can't run here: what they try was not tried.
	Skipped []string `json:"skipped"`
}

// report is what was played.
type report struct {
	Rows []line `json:"rows"`
	// Failed are tests that did not pass, Strange what is wrong with how rows are played.
	Failed  []string `json:"failed"`
	Strange []string `json:"strange"`
}

// report counts cases by row. A case counts as held only where its whole test passed.
func (c rows) report(tests []test, results []result) report {
	out := report{Failed: []string{}, Strange: []string{}}
	lines := map[string]*line{}
	for _, r := range c {
		lines[r.Name] = &line{row: r, Tests: []string{}, Skipped: []string{}}
	}
	all, err := known()
	if err != nil {
		out.Strange = append(out.Strange, err.Error())
	}
	for _, r := range results {
		top, _, _ := strings.Cut(r.test, "/")
		// A test whose subtest failed or that failed after it had told its cases has held none for certain.
		failed := r.failed() || slices.ContainsFunc(results, func(o result) bool { return o.pkg == r.pkg && o.test == top && o.failed() })
		if r.failed() {
			out.Failed = append(out.Failed, strings.TrimSpace(r.pkg+" "+r.test))
		}
		if i := slices.IndexFunc(tests, func(t test) bool { return t.name == r.test && strings.HasSuffix(r.pkg, "/"+path.Join(t.module, t.pkg)) }); i >= 0 && r.action == "skip" {
			for _, name := range tests[i].rows {
				if l, ours := lines[name]; ours {
					l.Skipped = append(l.Skipped, r.test)
				}
			}
		}
		for name, n := range r.cases {
			l, ours := lines[name]
			if !ours {
				if !all[name] {
					out.Strange = append(out.Strange, fmt.Sprintf("%s plays row %s, which no catalogue has", r.test, name))
				}
				continue
			}
			l.Cases += n
			l.Tests = append(l.Tests, r.pkg+"."+r.test)
			if failed {
				l.Failed += n
			} else {
				l.Held += n
			}
		}
	}
	for _, r := range c {
		out.Rows = append(out.Rows, *lines[r.Name])
	}
	return out
}

// state is a row's result in a word, or in what will bring it.
func (l line) state() string {
	switch {
	case l.Failed > 0:
		return "FAILED"
	case l.Held > 0 && l.Later != "":
		return "held, the rest comes with: " + l.Later
	case l.Held > 0 && len(l.Skipped) > 0:
		return "held, but for what was skipped: " + strings.Join(l.Skipped, ", ")
	case l.Held > 0:
		return "held"
	case l.Later != "":
		return "comes with: " + l.Later
	default:
		return "NOT PLAYED"
	}
}

func (r report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\twhat is tried\tcases\theld\tfailed\t")
	cases := 0
	for _, l := range r.Rows {
		cases += l.Held
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", l.Name, l.Tried, l.Cases, l.Held, l.Failed, l.state())
	}
	_ = w.Flush() // out's own errors are seen by who reads it
	fmt.Fprintf(out, "%d cases held\n", cases)
}

// verdict is an error that names every row that wasn't held, and every test that failed.
func (r report) verdict() error {
	var wrong []string
	for _, l := range r.Rows {
		if s := l.state(); s == "FAILED" || s == "NOT PLAYED" {
			wrong = append(wrong, l.Name+" "+strings.ToLower(s))
		}
	}
	for _, t := range r.Failed {
		wrong = append(wrong, t+" failed")
	}
	wrong = append(wrong, r.Strange...)
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "\n      "))
}
