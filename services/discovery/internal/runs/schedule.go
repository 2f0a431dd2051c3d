package runs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/scope"
)

const (
	scheduleEvery = 10 * time.Second
	dueAtOnce     = 100
	// licensedFeature is what RunWriteService.StartRun carries as `licensed`.
	licensedFeature = "discovery"
)

// Schedules says what is due; it is the client of integrations.
type Schedules interface {
	ClaimDue(ctx context.Context, req *connect.Request[integrationsv1.ClaimDueRequest]) (*connect.Response[integrationsv1.ClaimDueResponse], error)
}

// Schedule starts the runs that are due until ctx ends. A run that was claimed and not started, because the process was killed
// between the two, starts at its integration's next time.
func (r *Runs) Schedule(ctx context.Context, schedules Schedules) error {
	tick := time.NewTicker(scheduleEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		res, err := schedules.ClaimDue(ctx, connect.NewRequest(&integrationsv1.ClaimDueRequest{Limit: dueAtOnce}))
		if err != nil {
			slog.WarnContext(ctx, "can't learn what is due, trying again", "error", err)
			continue
		}
		for _, due := range res.Msg.GetDue() {
			if err := r.startDue(ctx, due); err != nil {
				slog.WarnContext(ctx, "a scheduled run did not start", "integration", due.GetIntegrationId(), "error", err)
			}
		}
	}
}

func (r *Runs) startDue(ctx context.Context, due *integrationsv1.Due) error {
	workspace, err := id.ParseWorkspace(due.GetWorkspaceId())
	if err != nil {
		return err
	}
	integration, err := id.ParseIntegration(due.GetIntegrationId())
	if err != nil {
		return err
	}
	if ctx, err = r.own(ctx, workspace, integration, id.NewRun(), queue.BySchedule); err != nil {
		return err
	}
	s, err := scope.InWorkspace(ctx)
	if err != nil {
		return err
	}
	source, err := r.source(ctx, integration)
	if err != nil {
		return fmt.Errorf("ask integrations for the source: %w", err)
	}
	// What an RPC would refuse: a schedule is no way around it. What was due is skipped, as a time is that was missed.
	if err := r.cfg.Licence.Allows(ctx, licensedFeature); err != nil {
		return err
	}
	at := due.GetDueAt().AsTime()
	err = r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := r.begin(ctx, tx, s, queue.BySchedule, source, &at)
		return err
	})
	// The same time claimed twice: the run has been and gone.
	if fault.KindOf(err) == fault.Aborted {
		return nil
	}
	return err
}
