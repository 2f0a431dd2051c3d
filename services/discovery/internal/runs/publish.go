package runs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/services/discovery/internal/store"
)

const (
	// lookEvery is how often the publisher looks without being woken.
	lookEvery = 2 * time.Second
	// atOnce is how many runs it takes up at a look.
	atOnce = 20
	// mostRestarts bounds how often a run begins anew because its staging was lost.
	mostRestarts = 3
	ownTTL       = 15 * time.Minute
	// staleAfter is when a run that no worker touched is given up: its slice's envelope has expired, so no worker ever will.
	staleAfter = sliceTTL + time.Hour
)

// Publish publishes runs that were sealed and tells integrations how runs ended, until ctx ends. Killed anywhere, it does the same
// again: publishing is one transaction, and telling twice is telling once.
func (r *Runs) Publish(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := r.lookOut(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "can't publish now, trying again", "error", err)
		}
		select {
		case <-tick.C:
		case <-r.sealed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Runs) lookOut(ctx context.Context) error {
	var due []store.LookOutRow
	err := r.cfg.Wide.Service(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		due, err = store.New(tx).LookOut(ctx, store.LookOutParams{Stale: time.Now().Add(-staleAfter), Most: atOnce})
		return err
	})
	if err != nil {
		return fmt.Errorf("look for runs to publish: %w", err)
	}
	for _, row := range due {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.finish(ctx, row); err != nil {
			slog.WarnContext(ctx, "a run is not finished yet", "run", row.ID.String(), "error", err)
		}
	}
	return nil
}

// finish publishes a run, or tells integrations how it ended, in the scope of the run's workspace.
func (r *Runs) finish(ctx context.Context, row store.LookOutRow) error {
	ctx, err := r.own(ctx, row.WorkspaceID, row.IntegrationID, row.ID, row.StartedBy)
	if err != nil {
		return err
	}
	switch row.State {
	case "queued", "running":
		if err := r.giveUp(ctx, row.ID); err != nil {
			return fmt.Errorf("give up: %w", err)
		}
	case "publishing":
		if err := r.PublishRun(ctx, row.ID); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	default:
		// It has ended, and integrations is to be told.
	}
	return r.report(ctx, row.ID)
}

// giveUp ends a run whose slice no worker can take any more.
func (r *Runs) giveUp(ctx context.Context, run id.Run) error {
	return r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := lock(ctx, tx, run)
		if err != nil || ended(row.State) || row.State == "publishing" || time.Since(row.UpdatedAt) < staleAfter {
			return err
		}
		_, err = r.end(ctx, tx, row, "failed", "no worker took the run on for a day: see that discovery-worker runs, then run discovery again")
		return err
	})
}

// own is ctx in the scope of a workspace, by an envelope that discovery makes and verifies itself: for work that no caller's envelope
// authorises any more, or that a schedule asked for.
func (r *Runs) own(ctx context.Context, workspace id.Workspace, integration id.Integration, run id.Run, by string) (context.Context, error) {
	m, err := r.cfg.Signer.Sign(&queuev1.SlicePayload{RunId: run.String(), IntegrationId: integration.String(),
		WorkspaceId: workspace.String(), TenantId: r.cfg.Tenant.String()}, workspace, kindOwn, by, ownTTL)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	v, err := r.cfg.Verifier.Verify(m.Envelope, m.Payload)
	if err != nil {
		return nil, fmt.Errorf("verify our own envelope: %w", err)
	}
	return queue.InScope(ctx, v, service)
}

// PublishRun makes what the run staged the workspace's history. ctx is in the scope of the run's workspace. A run whose staging was
// lost (PostgreSQL crashed: staging is UNLOGGED) begins anew.
func (r *Runs) PublishRun(ctx context.Context, run id.Run) error {
	s, err := scope.InWorkspace(ctx)
	if err != nil {
		return err
	}
	err = r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if err := q.LockHistory(ctx); err != nil {
			return fmt.Errorf("wait for the publication before: %w", err)
		}
		row, err := lock(ctx, tx, run)
		if err != nil || row.State != "publishing" {
			return err
		}
		if err := q.PlanForMany(ctx); err != nil {
			return fmt.Errorf("plan for many rows: %w", err)
		}
		sealed, err := q.SealedRecords(ctx, run)
		if err != nil {
			return fmt.Errorf("count what was sealed: %w", err)
		}
		staged, err := q.StagedRecords(ctx, run)
		if err != nil {
			return fmt.Errorf("count what is staged: %w", err)
		}
		if staged != sealed {
			return r.restart(ctx, tx, s, row, sealed, staged)
		}
		before, err := View(row)
		if err != nil {
			return err
		}
		at, err := changeAt(ctx, q)
		if err != nil {
			return err
		}
		if err := failpoint.Here("discovery.publish.begun"); err != nil {
			return err
		}
		again, err := q.EverPublished(ctx, row.IntegrationID)
		if err != nil {
			return fmt.Errorf("look for the run before: %w", err)
		}
		h := history{q: q, row: row, at: at}
		if err := h.publish(ctx, !again); err != nil {
			return err
		}
		if err := failpoint.Here("discovery.publish.written"); err != nil {
			return err
		}
		if row, err = q.FinishPublishing(ctx, store.FinishPublishingParams{RunID: run, At: &at, GrantsAdded: h.added, GrantsRemoved: h.removed}); err != nil {
			return fmt.Errorf("finish the run: %w", err)
		}
		if err := dropStaged(ctx, q, run); err != nil {
			return err
		}
		after, err := View(row)
		if err != nil {
			return err
		}
		err = record.Append(ctx, tx, record.Event{Action: "discovery.run.published", Target: run.String(), Before: recorded(before), After: recorded(after),
			Transfer: row.TransferID})
		if err != nil {
			return err
		}
		return failpoint.Here("discovery.publish.before-commit")
	})
	if err != nil {
		return err
	}
	return failpoint.Here("discovery.publish.committed")
}

func (r *Runs) restart(ctx context.Context, tx pgx.Tx, s scope.Scope, row store.Run, sealed, staged int64) error {
	q := store.New(tx)
	slog.WarnContext(ctx, "staging was lost, the run begins anew", "run", row.ID.String(), "sealed", sealed, "staged", staged)
	if err := q.DeleteSlices(ctx, row.ID); err != nil {
		return fmt.Errorf("drop the slices: %w", err)
	}
	if row.Restarts >= mostRestarts {
		_, err := r.end(ctx, tx, row, "failed", "what was read was lost several times before it could be published: run discovery again")
		return err
	}
	if err := dropStaged(ctx, q, row.ID); err != nil {
		return err
	}
	if err := q.RestartRun(ctx, store.RestartRunParams{ID: row.ID, Progress: "what was read was lost, reading again"}); err != nil {
		return fmt.Errorf("begin anew: %w", err)
	}
	row.Restarts++
	row.Slice = 0
	return r.enqueue(ctx, tx, s.Tenant, row)
}

// report tells integrations how the run ended.
func (r *Runs) report(ctx context.Context, run id.Run) error {
	var row store.Run
	err := r.cfg.DB.ReadWorkspace(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		row, err = store.New(tx).GetRun(ctx, run)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the run: %w", err)
	}
	if !ended(row.State) || row.FinishedAt == nil {
		return nil
	}
	_, err = r.cfg.Sources.ReportRun(ctx, connect.NewRequest(&integrationsv1.ReportRunRequest{
		IntegrationId: row.IntegrationID.String(),
		LastRun:       &integrationsv1.LastRun{RunId: run.String(), State: states[row.State], FinishedAt: timestamppb.New(*row.FinishedAt)},
	}))
	// An integration that was deleted meanwhile wants no report.
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return fmt.Errorf("tell integrations: %w", err)
	}
	if err := failpoint.Here("discovery.report.told"); err != nil {
		return err
	}
	return r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return store.New(tx).MarkReported(ctx, run)
	})
}
