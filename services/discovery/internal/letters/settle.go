package letters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/services/discovery/internal/runs"
	"a3os.app/services/discovery/internal/store"
)

const (
	retried = "retried"
	dropped = "dropped"
)

// Retry puts a letter's message back on the queue as it was signed, where it is believed now and its run still waits for it. That it
// was refused is on the record too. A letter that was retried before stays as it is.
func (l *Letters) Retry(ctx context.Context, letterID, reason string) (*discoveryv1.DeadLetter, error) {
	view, err := l.settle(ctx, letterID, retried, reason, func(ctx context.Context, tx pgx.Tx, row store.DeadLetter) error {
		v, err := l.cfg.Verifier.Verify(row.Envelope, row.Payload)
		if err != nil {
			return ErrNotBelieved.With("%v: it can't be retried, drop it", err)
		}
		before, err := l.wanted(ctx, tx, v)
		if err != nil {
			return err
		}
		// The key is the letter's own: its message's is that of the job that was given up, which the queue remembers.
		err = l.cfg.Queue.InsertTx(ctx, tx, v.Message(), queue.InsertOpts{
			UniqueKey: "dead-letter/" + row.PublicID.String(), MaxTries: runs.SliceTries, AfterAttempt: int(max(before, row.Attempt))})
		if err != nil {
			return fmt.Errorf("put the message back: %w", err)
		}
		return nil
	})
	if refused, ok := errors.AsType[*fault.Error](err); ok && refused.Kind == fault.FailedPrecondition {
		if rerr := l.recordRefusal(ctx, letterID, reason, refused); rerr != nil {
			// A refusal stands where its event can't be written.
			slog.WarnContext(ctx, "that a dead letter was not retried is not on the record", "dead_letter", letterID, "error", rerr)
		}
	}
	return view, err
}

// Drop throws a letter's bytes away.
func (l *Letters) Drop(ctx context.Context, letterID, reason string) (*discoveryv1.DeadLetter, error) {
	return l.settle(ctx, letterID, dropped, reason, func(context.Context, pgx.Tx, store.DeadLetter) error { return nil })
}

// settle makes something of a letter, once, with its event.
func (l *Letters) settle(ctx context.Context, letterID, state, reason string, do func(context.Context, pgx.Tx, store.DeadLetter) error) (*discoveryv1.DeadLetter, error) {
	letter, err := id.ParseDeadLetter(letterID)
	if err != nil {
		return nil, ErrNoLetter
	}
	s, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	var after *discoveryv1.DeadLetter
	err = l.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		row, err := found(q.LockDeadLetter(ctx, letter))
		if err != nil {
			return err
		}
		before := l.view(row)
		switch row.State {
		case state:
			after = before
			return nil
		case retried, dropped:
			return ErrSettled.With("the dead letter was %s %s by %s: nothing is left to be done", row.State, day(row.SettledAt), row.SettledBy)
		}
		if err := do(ctx, tx, row); err != nil {
			return err
		}
		row, err = q.SettleDeadLetter(ctx, store.SettleDeadLetterParams{PublicID: letter, State: state, SettledBy: string(s.Principal), SettledReason: reason})
		if err != nil {
			return fmt.Errorf("settle the dead letter: %w", err)
		}
		after = l.view(row)
		return record.Append(ctx, tx, record.Event{Action: "queue.dead_letter." + state, Target: letter.String(), Reason: reason,
			Workspace: workspaceOf(before), Before: before, After: after})
	})
	return after, err
}

// wanted says whether the work of a believed message is still to be done, and which attempt at it was the last.
func (l *Letters) wanted(ctx context.Context, tx pgx.Tx, v queue.Verified) (attempt int32, err error) {
	if v.Kind() != runs.KindSlice {
		return 0, ErrNotWanted.With("messages of kind %s are not put back on the queue", v.Kind())
	}
	var p queuev1.SlicePayload
	if err := v.Decode(&p); err != nil {
		return 0, ErrNotBelieved.With("%v: it can't be retried, drop it", err)
	}
	run, err := id.ParseRun(p.GetRunId())
	if err != nil {
		return 0, ErrNotBelieved.With("the message names no run: it can't be retried, drop it")
	}
	row, err := store.New(tx).SliceOfRun(ctx, store.SliceOfRunParams{WorkspaceID: v.Workspace(), ID: run})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, ErrNotWanted.With("there is no run %s any more, so its slice can't be retried: drop the letter", run)
	case err != nil:
		return 0, fmt.Errorf("read the message's run: %w", err)
	case row.State != "queued" && row.State != "running":
		return 0, ErrNotWanted.With("run %s is %s, so its slice can't be retried: start another run of the integration, and drop the letter", run, row.State)
	case row.Slice != int32(p.GetSlice()): //nolint:gosec // compared, and bounded by the signer
		return 0, ErrNotWanted.With("run %s is past slice %d: nothing needs to be retried, drop the letter", run, p.GetSlice())
	}
	return row.Attempt, nil
}

// recordRefusal puts on the record that a letter was not retried.
func (l *Letters) recordRefusal(ctx context.Context, letterID, reason string, cause *fault.Error) error {
	view, err := l.Get(ctx, letterID)
	if err != nil {
		return err
	}
	return l.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return record.Append(ctx, tx, record.Event{Action: "queue.dead_letter.retry_refused", Target: view.GetId(), Outcome: auditv1.Outcome_OUTCOME_DENIED,
			Reason: reason, Workspace: workspaceOf(view), Before: view, After: &discoveryv1.DeadLetter{Reason: cause.Message}})
	})
}
