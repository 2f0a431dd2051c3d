// Package command is the command line of bench: which figures are measured, and where the report goes.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/tools/bench/internal/calls"
	"a3os.app/tools/bench/internal/figure"
	"a3os.app/tools/bench/internal/front"
	"a3os.app/tools/bench/internal/memory"
	"a3os.app/tools/bench/internal/reports"
	"a3os.app/tools/bench/internal/revocation"
	"a3os.app/tools/bench/internal/routing"
	"a3os.app/tools/bench/internal/tenancy"
)

// options are the flags.
type options struct {
	root, out, profile string
	only               []string
	rounds, calls      int
}

// measurement is a figure by the name that --only takes.
type measurement struct {
	name    string
	measure func(ctx context.Context, o options) (figure.Figure, error)
}

func measurements() []measurement {
	return []measurement{
		{"calls", measureCalls},
		{"ingest", measureIngest},
		{"deeds", measureDeeds},
		{"sealing", measureSealing},
		{"jobs", measureJobs},
		{"messages", measureMessages},
		{"memory", func(ctx context.Context, o options) (figure.Figure, error) {
			return memory.Measure(ctx, memory.Config{Root: o.root, Rounds: figure.Rounds})
		}},
		{"gateway", func(ctx context.Context, o options) (figure.Figure, error) {
			return front.Measure(ctx, front.Config{Root: o.root, Rounds: figure.Rounds, Requests: o.calls})
		}},
		{"routing", func(ctx context.Context, o options) (figure.Figure, error) {
			const routes = 10_000
			return routing.Measure(ctx, routing.Config{Root: o.root, Rounds: figure.Rounds, Routes: routes})
		}},
		{"reports", func(ctx context.Context, o options) (figure.Figure, error) {
			sets, err := strconv.Atoi(cmp.Or(os.Getenv("A3_BENCH_SETS"), "10000"))
			if err != nil {
				return figure.Figure{}, fmt.Errorf("A3_BENCH_SETS is no number: %w", err)
			}
			return reports.Measure(ctx, reports.Config{Root: o.root, Rounds: figure.Rounds, Sets: sets})
		}},
		{"tenant", func(ctx context.Context, o options) (figure.Figure, error) {
			return tenancy.MeasureCreate(ctx, tenancy.Config{Root: o.root, Rounds: figure.Rounds})
		}},
		{"rollout", func(ctx context.Context, o options) (figure.Figure, error) {
			tenants, err := strconv.Atoi(cmp.Or(os.Getenv("A3_BENCH_TENANTS"), "20"))
			if err != nil {
				return figure.Figure{}, fmt.Errorf("A3_BENCH_TENANTS is no number: %w", err)
			}
			return tenancy.MeasureRollout(ctx, tenancy.Config{Root: o.root, Rounds: figure.Rounds, Tenants: tenants})
		}},
		{"neighbour", func(ctx context.Context, o options) (figure.Figure, error) {
			return measureNeighbour(ctx, o, "database")
		}},
		{"neighbour-dedicated", func(ctx context.Context, o options) (figure.Figure, error) {
			return measureNeighbour(ctx, o, "dedicated")
		}},
		{"aws", measureTenantsOnAWS},
		{"revocation", func(ctx context.Context, o options) (figure.Figure, error) {
			return revocation.Measure(ctx, revocation.Config{Root: o.root, Rounds: figure.Rounds})
		}},
	}
}

func names() []string {
	var out []string
	for _, m := range measurements() {
		out = append(out, m.name)
	}
	return out
}

// New makes the command.
func New() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:           "bench",
		Short:         "Measure the figures that the project promises",
		Args:          cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr()) },
	}
	f := c.Flags()
	f.StringVar(&o.root, "root", ".", "the checkout")
	f.StringVar(&o.out, "out", "", "file for the report as JSON (default: A3_BENCH_OUT, else .cache/bench.json of the checkout)")
	f.StringVar(&o.profile, "profile", "", "directory for CPU profiles of the servers")
	f.StringSliceVar(&o.only, "only", nil, "measure these alone: "+strings.Join(names(), ", "))
	f.IntVar(&o.rounds, "rounds", 30, "how often each side is measured, at least 10")
	f.IntVar(&o.calls, "calls", 4000, "calls a round and side")
	c.AddCommand(newServe(), newFlood(), newAsk())
	return c
}

// measureNeighbour measures with a neighbour of a tier. The figure has a bound where the neighbour has a server of its own.
func measureNeighbour(ctx context.Context, o options, tier string) (figure.Figure, error) {
	self, err := os.Executable()
	if err != nil {
		return figure.Figure{}, err
	}
	return tenancy.MeasureNeighbour(ctx, tenancy.Config{Root: o.root, Rounds: figure.Rounds, Self: self}, tier)
}

func newFlood() *cobra.Command {
	const places = 3
	return &cobra.Command{
		Use: "flood URL CA ADDRESS", Short: "Send a tenant a hundred times its share", Hidden: true, Args: cobra.ExactArgs(places),
		RunE: func(c *cobra.Command, args []string) error {
			return tenancy.Flood(c.Context(), args[0], args[1], args[2], c.InOrStdin(), c.OutOrStdout())
		},
	}
}

func newAsk() *cobra.Command {
	const places = 3
	return &cobra.Command{
		Use: "ask URL CA ADDRESS", Short: "Ask a tenant its share", Hidden: true, Args: cobra.ExactArgs(places),
		RunE: func(c *cobra.Command, args []string) error {
			return tenancy.Ask(c.Context(), args[0], args[1], args[2], c.OutOrStdout())
		},
	}
}

func newServe() *cobra.Command {
	var o calls.Options
	c := &cobra.Command{
		Use: "serve", Short: "Serve one side of a comparison", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return calls.Serve(c.Context(), o, c.InOrStdin(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.Mode, "mode", "", "secured or bare")
	f.StringVar(&o.Dir, "dir", "", "files of the world")
	f.StringVar(&o.Profile, "cpu-profile", "", "file for a CPU profile")
	return c
}

func run(ctx context.Context, o options, out, progress io.Writer) error {
	if o.rounds < figure.Rounds {
		return fmt.Errorf("--rounds is %d, a median is taken of at least %d", o.rounds, figure.Rounds)
	}
	file := o.file()
	all := measurements()
	for _, name := range o.only {
		if !slices.ContainsFunc(all, func(m measurement) bool { return m.name == name }) {
			return fmt.Errorf("--only names %q, which is not measured here", name)
		}
	}
	r := figure.Report{At: time.Now().UTC(), Machine: fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())}
	for _, m := range all {
		if len(o.only) > 0 && !slices.Contains(o.only, m.name) {
			continue
		}
		began := time.Now()
		fmt.Fprintf(progress, "measuring %s …\n", m.name)
		f, err := m.measure(ctx, o)
		if err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
		fmt.Fprintf(progress, "measured %s in %s\n", m.name, time.Since(began).Round(time.Second))
		r.Figures = append(r.Figures, f)
	}
	if err := r.WriteTable(out); err != nil {
		return err
	}
	if err := write(r, file); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n", file)
	if missed := r.Missed(); len(missed) > 0 {
		return errors.New(strings.Join(missed, "; "))
	}
	return nil
}

func (o options) file() string {
	switch env := os.Getenv("A3_BENCH_OUT"); {
	case o.out != "":
		return o.out
	case env != "":
		return env
	}
	return filepath.Join(o.root, ".cache", "bench.json")
}

func write(r figure.Report, file string) error {
	const mode = 0o755
	if err := os.MkdirAll(filepath.Dir(file), mode); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return errors.Join(r.WriteJSON(f), f.Close())
}

func measureCalls(ctx context.Context, o options) (figure.Figure, error) {
	self, err := os.Executable()
	if err != nil {
		return figure.Figure{}, err
	}
	return calls.Measure(ctx, calls.Config{Rounds: o.rounds, Calls: o.calls, Command: []string{self, "serve"}, Profile: o.profile})
}
