package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/scope"
	"a3os.app/services/discovery/internal/store"
)

const (
	// sliceWork is how long a worker reads before it should seal; a job may take 60 s.
	sliceWork = 40 * time.Second
	// mostScopes and mostGaps bound what a run remembers of what it read; more than that is summed up.
	mostScopes = 100_000
	mostGaps   = 10_000
)

// claim is which slice of which run the presented envelope speaks of.
type claim struct {
	run   id.Run
	slice int32
}

// presented reads the claim from the verified envelope of the call: nothing of it comes from the message.
func presented(ctx context.Context) (claim, error) {
	v, err := queue.FromContext(ctx)
	if err != nil {
		return claim{}, err
	}
	if v.Kind() != KindSlice {
		return claim{}, fault.New(fault.PermissionDenied, "the presented envelope is for other work")
	}
	var p queuev1.SlicePayload
	if err := v.Decode(&p); err != nil {
		return claim{}, fault.Wrap(fault.PermissionDenied, err, "the presented envelope is for other work")
	}
	run, err := id.ParseRun(p.GetRunId())
	if err != nil {
		return claim{}, ErrNoRun
	}
	return claim{run: run, slice: int32(p.GetSlice())}, nil //nolint:gosec // we counted it ourselves, from 0
}

// hold locks the run and refuses an attempt that is fenced.
func (c claim) hold(ctx context.Context, tx pgx.Tx, attempt uint32) (store.Run, error) {
	row, err := lock(ctx, tx, c.run)
	if err != nil {
		return store.Run{}, err
	}
	if row.State != "running" || row.Slice != c.slice || row.Attempt != int32(attempt) { //nolint:gosec // bounded by the queue's tries
		return store.Run{}, ErrFenced
	}
	return row, nil
}

// BeginSlice claims the presented slice for an attempt of a job. Of jobs that carry the same message, one holds an attempt.
func (r *Runs) BeginSlice(ctx context.Context, attempt uint32, job int64) (*discoveryv1.BeginSliceResponse, error) {
	c, err := presented(ctx)
	if err != nil {
		return nil, err
	}
	var res *discoveryv1.BeginSliceResponse
	err = r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := lock(ctx, tx, c.run)
		if err != nil {
			return err
		}
		a := int32(attempt) //nolint:gosec // bounded by the queue's tries
		switch {
		case ended(row.State) || row.State == "publishing" || row.Slice != c.slice:
			res = &discoveryv1.BeginSliceResponse{Done: true}
			return nil
		case a < row.Attempt, a == row.Attempt && job != row.JobID:
			return ErrFenced
		}
		q := store.New(tx)
		if err := q.ClaimSlice(ctx, store.ClaimSliceParams{ID: c.run, Attempt: a, JobID: job}); err != nil {
			return fmt.Errorf("claim the slice: %w", err)
		}
		source := new(integrationsv1.Source)
		if err := proto.Unmarshal(row.Source, source); err != nil {
			return fmt.Errorf("read the run's source: %w", err)
		}
		res = &discoveryv1.BeginSliceResponse{Source: source, Checkpoint: row.Checkpoint, Deadline: timestamppb.New(time.Now().Add(failpoint.Duration("discovery.slice.work", sliceWork)))}
		return failpoint.Here("discovery.begin.before-commit")
	})
	if err == nil {
		err = failpoint.Here("discovery.begin.committed")
	}
	return res, err
}

// Progress notes what is being read and says whether to stop.
func (r *Runs) Progress(ctx context.Context, attempt uint32, words string) (stop bool, err error) {
	c, err := presented(ctx)
	if err != nil {
		return true, err
	}
	err = r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := c.hold(ctx, tx, attempt)
		if fault.KindOf(err) == fault.Aborted {
			stop = true
			return nil
		}
		if err != nil {
			return err
		}
		stop = false
		return store.New(tx).NoteProgress(ctx, store.NoteProgressParams{ID: c.run, Progress: words})
	})
	return stop, err
}

// Fail ends the run: the worker can't go on, and nothing of it is published.
func (r *Runs) Fail(ctx context.Context, attempt uint32, why string) error {
	c, err := presented(ctx)
	if err != nil {
		return err
	}
	return r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := lock(ctx, tx, c.run)
		if err != nil {
			return err
		}
		// An attempt that never began may give the run up as well: those before it died, and the queue has no more.
		if ended(row.State) || row.State == "publishing" || row.Slice != c.slice || int32(attempt) < row.Attempt { //nolint:gosec // bounded by the queue's tries
			return ErrFenced
		}
		_, err = r.end(ctx, tx, row, "failed", why)
		return err
	})
}

// Seal makes what the attempt staged count, and goes on to the next slice or to publishing.
func (r *Runs) Seal(ctx context.Context, req *discoveryv1.SealSliceRequest) (integrationsv1.RunState, error) {
	c, err := presented(ctx)
	if err != nil {
		return 0, err
	}
	s, err := scope.InWorkspace(ctx)
	if err != nil {
		return 0, err
	}
	var state string
	err = r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := lock(ctx, tx, c.run)
		if err != nil {
			return err
		}
		q := store.New(tx)
		attempt := int32(req.GetAttempt()) //nolint:gosec // bounded by the queue's tries
		if done, err := q.SealedBy(ctx, store.SealedByParams{RunID: c.run, Slice: c.slice}); err == nil && done == attempt {
			// The answer to the first seal was lost.
			state = row.State
			return nil
		}
		if row, err = c.hold(ctx, tx, req.GetAttempt()); err != nil {
			return err
		}
		counts, err := q.StagedInSlice(ctx, store.StagedInSliceParams{RunID: c.run, Slice: c.slice, Attempt: attempt})
		if err != nil {
			return fmt.Errorf("count what was staged: %w", err)
		}
		if counts.Resources+counts.Entitlements+counts.Grants+counts.Expansions != req.GetRecords() {
			return ErrStagedCount
		}
		if attempt > 1 {
			if err := dropAttempts(ctx, q, c, attempt); err != nil {
				return err
			}
		}
		if err := q.InsertSlice(ctx, store.InsertSliceParams{RunID: c.run, Slice: c.slice, Attempt: attempt, Records: req.GetRecords()}); err != nil {
			return fmt.Errorf("seal the slice: %w", err)
		}
		if state, err = r.advance(ctx, tx, s, row, req, counts); err != nil {
			return err
		}
		return failpoint.Here("discovery.seal.before-commit")
	})
	if err == nil {
		err = failpoint.Here("discovery.seal.committed")
	}
	if err != nil {
		return 0, err
	}
	if state == "publishing" {
		r.wake()
	}
	return states[state], nil
}

func (r *Runs) advance(ctx context.Context, tx pgx.Tx, s scope.Scope, row store.Run, req *discoveryv1.SealSliceRequest, counts store.StagedInSliceRow) (string, error) {
	gaps, err := addGaps(row.Gaps, req.GetGaps())
	if err != nil {
		return "", err
	}
	scopes := append(slices.Clone(row.CompletedScopes), req.GetCompletedScopes()...)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	if len(scopes) > mostScopes {
		return "", fault.New(fault.FailedPrecondition, "the run completed more than %d scopes", mostScopes)
	}
	next := row
	next.Slice++
	p := store.AdvanceRunParams{ID: row.ID, Checkpoint: req.GetCheckpoint(), CompletedScopes: scopes, Gaps: gaps, State: "queued",
		Progress: row.Progress, Accounts: counts.Accounts, Groups: counts.Groups, Resources: counts.Resources,
		Entitlements: counts.Entitlements, Grants: counts.Grants}
	if p.Checkpoint == nil {
		p.Checkpoint = []byte{}
	}
	if req.GetLast() {
		p.State, p.Progress = "publishing", "publishing"
	}
	if err := store.New(tx).AdvanceRun(ctx, p); err != nil {
		return "", fmt.Errorf("advance the run: %w", err)
	}
	if !req.GetLast() {
		return p.State, r.enqueue(ctx, tx, s.Tenant, next)
	}
	return p.State, nil
}

// addGaps adds gaps to those of a run, each once.
func addGaps(raw []byte, more []*discoveryv1.Gap) ([]byte, error) {
	var gs []gap
	if err := json.Unmarshal(raw, &gs); err != nil {
		return nil, fmt.Errorf("read the run's gaps: %w", err)
	}
	for _, g := range more {
		n := gap{Scope: g.GetScope(), Reason: g.GetReason()}
		if !slices.Contains(gs, n) && len(gs) < mostGaps {
			gs = append(gs, n)
		}
	}
	if gs == nil {
		gs = []gap{}
	}
	return json.Marshal(gs)
}

func dropStaged(ctx context.Context, q *store.Queries, run id.Run) error {
	for _, drop := range []func(context.Context, id.Run) error{q.DropStagedResources, q.DropStagedEntitlements, q.DropStagedGrants, q.DropStagedExpansions} {
		if err := drop(ctx, run); err != nil {
			return fmt.Errorf("drop what was staged: %w", err)
		}
	}
	return nil
}

// dropAttempts drops what other attempts at the slice staged: they were killed, or are fenced from now on.
func dropAttempts(ctx context.Context, q *store.Queries, c claim, attempt int32) error {
	p := store.DropAttemptsOfResourcesParams{RunID: c.run, Slice: c.slice, Attempt: attempt}
	for _, err := range []error{
		q.DropAttemptsOfResources(ctx, p),
		q.DropAttemptsOfEntitlements(ctx, store.DropAttemptsOfEntitlementsParams(p)),
		q.DropAttemptsOfGrants(ctx, store.DropAttemptsOfGrantsParams(p)),
		q.DropAttemptsOfExpansions(ctx, store.DropAttemptsOfExpansionsParams(p)),
	} {
		if err != nil {
			return fmt.Errorf("drop what other attempts staged: %w", err)
		}
	}
	return nil
}
