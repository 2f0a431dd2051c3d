package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/tools/fleet/internal/standing"
	"a3os.app/tools/internal/show"
)

const statusHelp = `Show all tenants, those in trouble first: state, release, health, figures of the last five minutes, and for each thing that isn't as it
should be a reason and what to type next. What differs between the registry, what sets report and what the platform has is drift, and
fleet repair puts it right when it is asked to.

  fleet status                 once
  fleet status --watch         again every two seconds, until it is interrupted
  fleet status -o json         for programs; with --watch a line each time
  fleet status --inspect       looks at more than what runs, where the platform can: on aws at what was changed by hand
  fleet status --exit-code     exits with 1 where something is in trouble (critical), or something could not be seen, for scripts`

// What --exit-code ends with. Nobody knows what there is in what could not be seen, and a script that pages somebody has no eyes for the line
// that says so.
var (
	errTrouble = errors.New("tenants, or the plane, are in trouble")
	errBlind   = errors.New("not everything could be seen, and may be in trouble")
)

func (a *app) statusCommand() *cobra.Command {
	var watch, code, inspect bool
	every := 2 * time.Second
	c := &cobra.Command{Use: "status", Short: "Show how all tenants stand, those in trouble first", Long: statusHelp, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.status(c.Context(), watch, code, inspect, every) }}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again")
	c.Flags().BoolVar(&code, "exit-code", false, "exit with 1 where something is in trouble, or could not be seen")
	c.Flags().BoolVar(&inspect, "inspect", false, "look for what was changed by hand, which takes a minute or more")
	c.Flags().DurationVar(&every, "every", every, "how often, with --watch")
	return c
}

func (a *app) status(ctx context.Context, watch, code, inspect bool, every time.Duration) error {
	if every < time.Second/10 {
		return usageError{fmt.Errorf("--every is %s: it is 100ms or more", every)}
	}
	p, err := a.plane()
	if err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		f, err := p.Standing(ctx, inspect)
		if err = a.page(f, err, watch); err != nil {
			return err
		}
		if !watch {
			if code {
				return trouble(f)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil // an operator closes the page
		case <-tick.C:
		}
	}
}

// trouble is what a page has to be paged for; nil where it is nothing.
func trouble(f standing.Fleet) error {
	switch {
	case worst(f) == standing.Critical:
		return errTrouble
	case len(f.Blind) > 0:
		return errBlind
	}
	return nil
}

func worst(f standing.Fleet) standing.Severity {
	w := standing.Well
	for _, t := range f.Tenants {
		w = max(w, t.Severity)
	}
	for _, s := range slices.Concat(f.Findings, f.Strays) {
		w = max(w, s.Severity)
	}
	return w
}

// page shows one page. Without the registry it is what can be seen all the same; with --watch nothing that could not be asked is the end of it: it may
// come back.
func (a *app) page(f standing.Fleet, err error, watch bool) error {
	_, away := errors.AsType[standing.Away](err)
	switch {
	case err != nil && !away && !watch:
		return err
	case a.format == "json" && watch:
		if err != nil && !away {
			return show.JSONLine(a.out, map[string]string{"error": message(err)})
		}
		return show.JSONLine(a.out, f)
	case a.format == "json":
		return errors.Join(a.json(f), err)
	}
	if watch {
		a.clear()
	}
	if err != nil && !away {
		_, werr := fmt.Fprintf(a.out, "%s  %s\n", time.Now().Format(time.TimeOnly), message(err))
		return werr
	}
	if werr := a.standing(f); werr != nil || watch {
		return werr
	}
	return err
}

// clear makes room on a terminal; elsewhere pages follow one another.
func (a *app) clear() {
	if show.Terminal(a.raw) {
		_, _ = fmt.Fprint(a.raw, "\x1b[H\x1b[2J")
		return
	}
	_, _ = fmt.Fprintln(a.out)
}

func (a *app) standing(f standing.Fleet) error {
	if _, err := fmt.Fprintln(a.out, headline(f)); err != nil {
		return err
	}
	if err := a.findings("the plane", f.Findings); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return err
	}
	var rows [][]string
	for _, t := range f.Tenants {
		rows = append(rows, row(t, f.At))
	}
	if err := a.table([]string{"", "TENANT", "STATE", "RELEASE", "SERVING", "REPORT", "REQ/MIN", "ERRORS", "P99", "BACKLOG", "DATABASE", "BACKUP", "LICENCE"}, rows); err != nil {
		return err
	}
	for _, b := range slices.Concat(f.Blind, f.Beyond) {
		if _, err := fmt.Fprintf(a.out, "\nnot seen: %s\n", show.Text(b)); err != nil {
			return err
		}
	}
	if err := a.findings("no tenant's", f.Strays); err != nil {
		return err
	}
	for _, t := range f.Tenants {
		if err := a.findings(t.Slug, t.Findings); err != nil {
			return err
		}
	}
	return nil
}

// headline is one line for all of it: the plane itself, and how many tenants are how.
func headline(f standing.Fleet) string {
	count, unknown := map[standing.Severity]int{}, 0
	for _, t := range f.Tenants {
		if t.State == standing.Unknown && t.Severity == standing.Well {
			unknown++
			continue
		}
		count[t.Severity]++
	}
	plane := standing.Well
	for _, s := range slices.Concat(f.Findings, f.Strays) {
		plane = max(plane, s.Severity)
	}
	itself := map[standing.Severity]string{standing.Critical: "the plane itself is in trouble, ", standing.Warning: "the plane itself is to be looked at, "}[plane]
	tenants := "tenants"
	if len(f.Tenants) == 1 {
		tenants = "tenant"
	}
	said := fmt.Sprintf("plane %s, %s on %s (%s): %s%d %s: %d in trouble, %d to look at, %d well", f.Plane, f.Platform, f.Account, f.Region, itself, len(f.Tenants), tenants,
		count[standing.Critical], count[standing.Warning], count[standing.Notice]+count[standing.Well])
	if unknown > 0 {
		said += fmt.Sprintf(", %d not known", unknown)
	}
	return said
}

var marks = map[standing.Severity]string{standing.Well: "ok", standing.Notice: "ok", standing.Warning: "!", standing.Critical: "!!"}

// rateFrom is how many seconds have to be known for requests a minute to be told.
const rateFrom = 10

func row(t standing.Tenant, at time.Time) []string {
	report, rate, errors, p99 := "never", "-", "-", "-"
	if t.ReportAge >= 0 {
		report = fmt.Sprintf("%.0f s", t.ReportAge)
	}
	if f := t.Figures; f != nil && f.Seconds > 0 {
		// Of a moment between two reports there is no rate: that of a new set would be in the ten thousands.
		if f.Seconds >= rateFrom {
			rate = fmt.Sprintf("%.1f", 60*float64(f.Requests)/f.Seconds)
		}
		if f.Requests > 0 {
			errors, p99 = fmt.Sprintf("%.1f %%", 100*f.ErrorRatio()), fmt.Sprintf("%.0f ms", 1000*f.P99Seconds)
		}
	}
	releases := standing.Short(t.Release)
	if len(t.Running) > 1 {
		releases += fmt.Sprintf(" (%d run)", len(t.Running))
	}
	backup := "-"
	if !t.LastBackup.IsZero() {
		backup = max(at.Sub(t.LastBackup), 0).Truncate(time.Minute).String()
	}
	waiting := fmt.Sprint(t.AuditBacklog)
	if t.AuditBacklog == 0 && t.DatabaseBytes == 0 {
		waiting = "-" // its database, which always has a size, could not be asked
	}
	licence := t.Licence
	if licence == "" {
		licence = "-"
	}
	mark := marks[t.Severity]
	if t.State == standing.Unknown && t.Severity == standing.Well {
		mark = "?"
	}
	if t.Release == "" && len(t.Running) == 1 {
		releases = standing.Short(t.Running[0]) // the registry could not be asked what is to run
	}
	return []string{mark, t.Slug, t.State, releases, fmt.Sprintf("%d/%d", t.Serving, t.Components), report, rate, errors, p99,
		waiting, megabytes(t.DatabaseBytes), backup, licence}
}

// findings tells what there is to say of something; nothing where all is well.
func (a *app) findings(of string, all []standing.Finding) error {
	if len(all) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(a.out, "\n%s\n", of); err != nil {
		return err
	}
	for _, f := range all {
		what := f.Severity.String()
		if f.Drift {
			what += ", drift"
		}
		line := fmt.Sprintf("  %s: %s", what, show.Text(f.Reason))
		if f.Next != "" {
			line += "\n      next: " + show.Text(f.Next)
		}
		if _, err := fmt.Fprintln(a.out, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}
