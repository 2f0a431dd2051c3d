package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/libs/garbage"
	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/supervise"
)

const upHelp = `Bring up a plane on this machine: PostgreSQL, the control plane, and the tenants that A3_TENANTS names, each with a service set of its own.
What is there already is left alone, so that the command can be repeated, and resumes where it was interrupted.

`

func (a *app) planeCommand() *cobra.Command {
	up := &cobra.Command{Use: "up", Short: "Bring the plane up", Long: upHelp + settings.Help(), Args: exactly(), RunE: a.planeUp}
	var remove bool
	down := &cobra.Command{Use: "down", Short: "Stop every process that the plane started, and keep its data", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.planeDown(c, remove) }}
	down.Flags().BoolVar(&remove, "remove-data", false, "remove everything that the plane keeps, too")
	status := &cobra.Command{Use: "status", Short: "Show the plane's processes and tenants", Args: exactly(), RunE: a.planeStatus}
	renew := &cobra.Command{Use: "renew", Short: "Renew certificates that end soon, as a running plane's supervisor does every hour", Args: exactly(), RunE: a.planeRenew}
	return group("plane", "A plane on this machine", up, down, status, renew,
		a.daemon("supervise", "Keep the plane's processes; plane up starts it", func(ctx context.Context, p *plane.Plane) error {
			return p.Supervise(ctx, func(ctx context.Context) error {
				return supervise.Run(ctx, plane.RunDir(p.Settings.Home), p.Programs())
			})
		}),
		a.daemon("watch", "Start the supervisor again when it was killed; the supervisor starts it", func(ctx context.Context, p *plane.Plane) error {
			return supervise.Watch(ctx, plane.RunDir(p.Settings.Home), p.Programs())
		}))
}

// ofNobody is an environment that says of no operator that they work: what goes on for as long as the plane does is the plane's first operator's,
// and nobody's who may be removed, whoever brought the plane up.
func ofNobody(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		return strings.HasPrefix(kv, "A3_OPERATOR=") || strings.HasPrefix(kv, "A3_OPERATOR_DIR=")
	})
}

// daemon is a command that people don't run.
func (a *app) daemon(use, short string, run func(context.Context, *plane.Plane) error) *cobra.Command {
	var home string
	c := &cobra.Command{Use: use, Short: short, Hidden: true, Args: exactly(), RunE: func(c *cobra.Command, _ []string) error {
		a.environ = append(ofNobody(a.environ), "A3_HOME="+home)
		p, err := a.plane()
		if err != nil {
			return err
		}
		// A command may leave its garbage lie; what goes on for as long as the plane does is not to grow by it.
		garbage.AsAlways()
		return run(c.Context(), p)
	}}
	c.Flags().StringVar(&home, "home", "", "the plane's home")
	return c
}

func (a *app) planeUp(c *cobra.Command, _ []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	changed, err := p.Up(c.Context())
	if err != nil {
		// Those that came up all the same are told of once, now.
		return errors.Join(a.invite(p), err)
	}
	if !changed {
		return a.addresses(p, "already up: nothing changed")
	}
	results, err := p.Results(c.Context())
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return errors.Join(a.addresses(p, "up"), a.invite(p))
	}
	return a.summary(c.Context(), p, results)
}

// invite tells how the admins of new tenants get in.
func (a *app) invite(p *plane.Plane) error {
	for _, slug := range p.Newcomers() {
		admin, err := p.Invitation(slug)
		if err != nil {
			return err
		}
		if admin.Code != "" {
			a.handOver("The first admin of "+slug, slug, p, admin)
		}
	}
	return nil
}

func (a *app) planeDown(c *cobra.Command, remove bool) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	do := p.Down
	if remove {
		do = p.Remove
	}
	changed, err := do(c.Context())
	switch {
	case err != nil || changed:
	case !p.Exists():
		_, _ = fmt.Fprintf(a.out, "there is no plane in %s: nothing changed\n", p.Settings.Home)
	default:
		_, _ = fmt.Fprintln(a.out, "already down: nothing changed")
	}
	return err
}

func (a *app) planeRenew(c *cobra.Command, _ []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	changed, err := p.Renew(c.Context())
	if err != nil {
		return err
	}
	said := "no certificate ends soon: nothing changed"
	if changed {
		said = "certificates renewed"
	}
	_, _ = fmt.Fprintln(a.out, said)
	return nil
}

func (a *app) planeStatus(c *cobra.Command, _ []string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	status, err := p.Status(c.Context())
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(status)
	}
	slugs := map[string]string{}
	for _, t := range status.Tenants {
		slugs[t.ID] = t.Slug
	}
	var rows [][]string
	for _, s := range status.Processes {
		owner, component, _ := strings.Cut(s.Name, "/")
		if slug := slugs[owner]; slug != "" {
			owner = slug
		}
		rows = append(rows, []string{owner, component, stateFor(s), number(s.PID), uptime(s), strconv.Itoa(s.Restarts), megabytes(s.Memory), s.LastExit})
	}
	if err := a.table([]string{"OF", "PROCESS", "STATE", "PID", "UP", "RESTARTS", "MEMORY", "LAST EXIT"}, rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return err
	}
	rows = nil
	for _, t := range status.Tenants {
		rows = append(rows, []string{t.Slug, t.ID, t.State, t.URL})
	}
	if err := a.table([]string{"TENANT", "ID", "STATE", "URL"}, rows); err != nil {
		return err
	}
	for _, sentences := range [][]string{status.Anew, status.Walls} {
		if len(sentences) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "\n%s\n", strings.Join(sentences, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// stateFor is the state, and for how long where that is no good one.
func stateFor(s supervise.Status) string {
	if s.Well.IsZero() {
		return string(s.State)
	}
	return fmt.Sprintf("%s for %s", s.State, time.Since(s.Well).Truncate(time.Second))
}

func uptime(s supervise.Status) string {
	switch {
	case s.State == supervise.BackingOff && !s.NextStart.IsZero(): // the engine of containers does not tell when
		return "starts in " + time.Until(s.NextStart).Truncate(time.Second).String()
	case s.PID == 0:
		return "-"
	default:
		return time.Since(s.Since).Truncate(time.Second).String()
	}
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func megabytes(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}
