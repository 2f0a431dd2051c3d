// Package letters keeps the queue's dead letters: messages that a worker refused or gave up. It promises that a letter is kept once and
// together with its event, that of a message nothing is shown but what a good signature vouches for, and that nothing goes back on the
// queue but bytes that the verifier believes at that moment and whose work is still wanted. It relies on the worker for offering a
// letter until it is kept, and on fencing in package runs for a job that goes on after another.
package letters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/queue"
	"a3os.app/libs/record"
	"a3os.app/services/discovery/internal/store"
)

// Declared errors.
var (
	// ErrNoLetter is the answer for every id that names no dead letter.
	ErrNoLetter = fault.Declare(fault.NotFound, "NO_DEAD_LETTER", "there is no such dead letter")
	// ErrNotBelieved is returned for a message that can't be believed now: it never comes back.
	ErrNotBelieved = fault.Declare(fault.FailedPrecondition, "DEAD_LETTER_NOT_BELIEVED", "the message can't be believed, so it can't be retried: drop it")
	// ErrNotWanted is returned for a message whose work is over.
	ErrNotWanted = fault.Declare(fault.FailedPrecondition, "DEAD_LETTER_NOT_WANTED", "the message's work is over, so it can't be retried")
	// ErrSettled is returned for a letter of which something else was made.
	ErrSettled = fault.Declare(fault.FailedPrecondition, "DEAD_LETTER_SETTLED", "the dead letter was settled already")
)

// Config is what Letters needs.
type Config struct {
	// Wide is the pool of the service's second role: letters belong to no workspace.
	Wide *pg.DB
	// Verifier believes messages.
	Verifier *queue.Verifier
	// Queue takes messages back.
	Queue queue.Inserter
	// Kept is how long a letter is kept, Most how many are.
	Kept time.Duration
	Most int64
}

// Letters are a tenant's dead letters.
type Letters struct{ cfg Config }

// New makes Letters.
func New(cfg Config) *Letters { return &Letters{cfg: cfg} }

// Keep keeps a message that is not delivered any more, with its event. Reported twice it is kept once.
func (l *Letters) Keep(ctx context.Context, req *discoveryv1.ReportDeadLetterRequest) error {
	return l.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := store.New(tx).InsertDeadLetter(ctx, store.InsertDeadLetterParams{
			PublicID: id.NewDeadLetter(), JobID: req.GetJobId(), Reason: req.GetReason(), Cause: causes.word(req.GetCause()),
			Attempt: int32(req.GetAttempt()), Envelope: orEmpty(req.GetEnvelope()), Payload: orEmpty(req.GetPayload()), //nolint:gosec // bounded by the proto
		})
		if err != nil {
			return fmt.Errorf("keep the dead letter: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		view := l.view(rows[0])
		e := record.Event{Action: "queue.message.refused", Outcome: auditv1.Outcome_OUTCOME_DENIED}
		if req.GetCause() == discoveryv1.DeadLetterCause_DEAD_LETTER_CAUSE_GIVEN_UP {
			e = record.Event{Action: "queue.message.given_up", Outcome: auditv1.Outcome_OUTCOME_FAILED}
		}
		e.Target, e.Reason, e.After, e.Workspace = view.GetId(), req.GetReason(), view, workspaceOf(view)
		return record.Append(ctx, tx, e)
	})
}

// Get answers one letter.
func (l *Letters) Get(ctx context.Context, letterID string) (*discoveryv1.DeadLetter, error) {
	letter, err := id.ParseDeadLetter(letterID)
	if err != nil {
		return nil, ErrNoLetter
	}
	var row store.DeadLetter
	err = l.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		row, err = found(store.New(tx).GetDeadLetter(ctx, letter))
		return err
	})
	if err != nil {
		return nil, err
	}
	return l.view(row), nil
}

// List answers letters in a state (unspecified: in any), newest first, before a place (0: from the newest). next is the place after
// which the rest begins, 0 at the end.
func (l *Letters) List(ctx context.Context, state discoveryv1.DeadLetterState, before int64, most int32) (views []*discoveryv1.DeadLetter, next int64, err error) {
	in := ""
	if state != discoveryv1.DeadLetterState_DEAD_LETTER_STATE_UNSPECIFIED {
		in = states.word(state)
	}
	var rows []store.DeadLetter
	err = l.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		rows, err = store.New(tx).ListDeadLetters(ctx, store.ListDeadLettersParams{State: in, Before: before, Most: most + 1})
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list dead letters: %w", err)
	}
	if len(rows) > int(most) {
		rows = rows[:most]
		next = rows[most-1].ID
	}
	for _, row := range rows {
		views = append(views, l.view(row))
	}
	return views, next, nil
}

// found tells a letter that isn't there from a database that fails.
func found(row store.DeadLetter, err error) (store.DeadLetter, error) {
	if errors.Is(err, pgx.ErrNoRows) {
		return row, ErrNoLetter
	}
	if err != nil {
		return row, fmt.Errorf("read the dead letter: %w", err)
	}
	return row, nil
}

func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func day(t *time.Time) string {
	if t == nil {
		return "before"
	}
	return "at " + t.UTC().Format(time.RFC3339)
}
