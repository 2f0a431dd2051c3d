package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/tools/internal/show"
)

const runStatePrefix = "RUN_STATE_"

func (a *app) discoveryGroup() *cobra.Command {
	var watch bool
	run := &cobra.Command{
		Use: "run INTEGRATION", Short: "Read a system anew",
		Long: `run starts a discovery run and prints its id; while one of the same integration is under way, that one is answered. With --watch it
follows the run to its end and fails when the run does. Ctrl-C stops the watching and not the run.`,
		Example: `  a3 discovery run shop-db
  a3 discovery run shop-db --watch`,
		Args: exactly("INTEGRATION"),
		RunE: a.doing(func(ctx context.Context, args []string) error { return a.startRun(ctx, args[0], watch) }),
	}
	run.Flags().BoolVar(&watch, "watch", false, "show progress until the run has ended")
	var follow bool
	status := &cobra.Command{
		Use: "status [RUN | INTEGRATION]", Short: "Show how a run stands: the newest, when not named",
		Example: `  a3 discovery status
  a3 discovery status shop-db --watch`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.runStatus(ctx, name, follow)
		}),
	}
	status.Flags().BoolVar(&follow, "watch", false, "show progress until the run has ended")
	var limit int
	var of string
	list := &cobra.Command{
		Use: "list", Short: "List runs, newest first",
		Example: `  a3 discovery list
  a3 discovery list --integration shop-db --limit 0`,
		Args: exactly(),
		RunE: a.doing(func(ctx context.Context, _ []string) error { return a.listRuns(ctx, of, limit) }),
	}
	list.Flags().StringVar(&of, "integration", "", "only runs of this integration, by name or id")
	list.Flags().IntVar(&limit, "limit", 20, "at most this many; 0 for all")
	cancel := &cobra.Command{
		Use: "cancel RUN", Short: "Stop a run; nothing of it is published",
		Example: `  a3 discovery cancel run_01h455vb4pex5vsknk084sn02q`,
		Args:    exactly("RUN"),
		RunE: a.doing(func(ctx context.Context, args []string) error {
			t, err := a.enter(ctx)
			if err != nil {
				return err
			}
			r, err := ask(ctx, within(t, discoveryv1connect.NewRunWriteServiceClient).CancelRun, &discoveryv1.CancelRunRequest{RunId: args[0]})
			if err != nil {
				return err
			}
			if r.GetState() != integrationsv1.RunState_RUN_STATE_CANCELLED && ended(r.GetState()) {
				a.say("the run had ended before: there was nothing to stop")
			}
			return a.showRun(r)
		}),
	}
	return group("discovery", "Runs that read the systems", a.creates(run), status, list, cancel)
}

func (a *app) startRun(ctx context.Context, name string, watch bool) error {
	t, err := a.enter(ctx)
	if err != nil {
		return err
	}
	i, err := t.findIntegration(ctx, name)
	if err != nil {
		return err
	}
	r, err := create(ctx, a, within(t, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: i})
	if err != nil {
		return err
	}
	if watch {
		return a.watchRun(ctx, t, r.GetId())
	}
	return a.answer(r, func() error {
		a.print("%s", r.GetId())
		return nil
	})
}

func (a *app) runStatus(ctx context.Context, name string, watch bool) error {
	t, err := a.enter(ctx)
	if err != nil {
		return err
	}
	r, err := t.findRun(ctx, name)
	if err != nil {
		return err
	}
	if watch {
		return a.watchRun(ctx, t, r.GetId())
	}
	return a.showRun(r)
}

// findRun is a run by id, or the newest of an integration, or the newest of all.
func (t *tenant) findRun(ctx context.Context, name string) (*discoveryv1.Run, error) {
	runs := within(t, discoveryv1connect.NewRunServiceClient)
	if _, err := id.ParseRun(name); err == nil {
		return ask(ctx, runs.GetRun, &discoveryv1.GetRunRequest{RunId: name})
	}
	req := &discoveryv1.ListRunsRequest{PageSize: 1}
	if name != "" {
		var err error
		if req.IntegrationId, err = t.findIntegration(ctx, name); err != nil {
			return nil, err
		}
	}
	res, err := ask(ctx, runs.ListRuns, req)
	if err != nil {
		return nil, err
	}
	if len(res.GetRuns()) == 0 {
		return nil, fault.New(fault.NotFound, "nothing was discovered yet: start with `a3 discovery run INTEGRATION`")
	}
	return res.GetRuns()[0], nil
}

func (a *app) listRuns(ctx context.Context, of string, limit int) error {
	t, err := a.enter(ctx)
	if err != nil {
		return err
	}
	integration := ""
	if of != "" {
		if integration, err = t.findIntegration(ctx, of); err != nil {
			return err
		}
	}
	runs := within(t, discoveryv1connect.NewRunServiceClient)
	all, err := whole(limit, func(size int32, token string) (*discoveryv1.ListRunsResponse, error) {
		return ask(ctx, runs.ListRuns, &discoveryv1.ListRunsRequest{PageSize: size, PageToken: token, IntegrationId: integration})
	}, func(r *discoveryv1.ListRunsResponse) (*[]*discoveryv1.Run, *string) { return &r.Runs, &r.NextPageToken })
	if err != nil {
		return err
	}
	return a.answer(all, func() error {
		table := show.NewTable("run", "integration", "state", "asked for", "took", "accounts", "grants", "new", "gone")
		for _, r := range all.GetRuns() {
			c := r.GetCounts()
			table.Row(r.GetId(), r.GetIntegrationName(), word(r.GetState(), runStatePrefix), show.Time(r.GetCreatedAt()), a.took(r),
				fmt.Sprint(c.GetAccounts()), fmt.Sprint(c.GetGrants()), fmt.Sprint(r.GetGrantsAdded()), fmt.Sprint(r.GetGrantsRemoved()))
		}
		a.more(all.GetNextPageToken())
		return a.list(table, "nothing was discovered yet: start with `a3 discovery run INTEGRATION`")
	})
}

// took is how long a run ran, so far or at all.
func (a *app) took(r *discoveryv1.Run) string {
	if r.GetStartedAt() == nil {
		return ""
	}
	end := r.GetFinishedAt()
	if end == nil {
		end = timestamppb.New(a.now())
	}
	return show.Span(end.AsTime().Sub(r.GetStartedAt().AsTime()))
}

func (a *app) showRun(r *discoveryv1.Run) error {
	return a.answer(r, func() error {
		c := r.GetCounts()
		found := ""
		if c.GetResources() > 0 {
			found = fmt.Sprintf("%s, %s, %s, %s, %s", show.Count(c.GetAccounts(), "account"), show.Count(c.GetGroups(), "group"),
				show.Count(c.GetResources(), "resource"), show.Count(c.GetEntitlements(), "entitlement"), show.Count(c.GetGrants(), "grant"))
		}
		changed := ""
		if published(r.GetState()) {
			changed = fmt.Sprintf("%s new, %d gone", show.Count(r.GetGrantsAdded(), "grant"), r.GetGrantsRemoved())
		}
		err := show.Facts(a.Out, "run", r.GetId(), "integration", fmt.Sprintf("%s (%s)", r.GetIntegrationName(), r.GetConnector()),
			"state", word(r.GetState(), runStatePrefix), "error", r.GetError(), "asked for", show.Time(r.GetCreatedAt()), "by", r.GetStartedBy(),
			"took", a.took(r), "found", found, "changed", changed, "reading", reading(r))
		if err != nil {
			return err
		}
		a.gaps("", r.GetGaps())
		return nil
	})
}

// gaps tells what could not be read.
func (a *app) gaps(indent string, gaps []*discoveryv1.Gap) {
	for _, g := range gaps {
		a.print("%snot read: %s (%s)", indent, show.Text(g.GetReason()), show.Text(g.GetScope()))
	}
}

func reading(r *discoveryv1.Run) string {
	if ended(r.GetState()) {
		return ""
	}
	return r.GetProgress()
}

func published(s integrationsv1.RunState) bool {
	return s == integrationsv1.RunState_RUN_STATE_COMPLETE || s == integrationsv1.RunState_RUN_STATE_PARTIAL
}

func ended(s integrationsv1.RunState) bool {
	return published(s) || s == integrationsv1.RunState_RUN_STATE_FAILED || s == integrationsv1.RunState_RUN_STATE_CANCELLED
}
