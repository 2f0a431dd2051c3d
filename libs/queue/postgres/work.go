package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"a3os.app/libs/queue"
)

// outcome is when a job is to run again.
type outcome struct{ again time.Duration }

// work is River's worker for our one kind of job.
type work struct {
	river.WorkerDefaults[jobArgs]
	worker *Worker
}

// NextRetry is what Work decided, or, for a job that River found stuck, at once.
func (k *work) NextRetry(job *river.Job[jobArgs]) time.Time {
	if job.Args.outcome == nil {
		return time.Now()
	}
	// River refuses a time that has passed.
	return time.Now().Add(max(job.Args.outcome.again, 10*time.Millisecond))
}

// Work delivers the message. Its errors hold no cause, only text: River has a meaning of its own for cancelled contexts and for
// snoozing, in which the attempt number, our fencing token, would shrink.
func (k *work) Work(ctx context.Context, job *river.Job[jobArgs]) error {
	return k.worker.deliver(ctx, job.JobRow, job.Args.outcome, job.Args.raw)
}

func (w *Worker) deliver(ctx context.Context, row *rivertype.JobRow, next *outcome, raw []byte) error {
	m := metaOf(row.Metadata)
	// Attempts go on from those of an earlier job with the message.
	d := queue.Delivery{JobID: row.ID, Attempt: m.Before + row.Attempt, Try: row.Attempt - m.Uncounted, MostTries: m.Tries, Deliveries: row.Attempt,
		Worn: row.Attempt >= row.MaxAttempts}
	s, err := read(raw)
	d.Envelope, d.Payload, d.Unreadable = s.Envelope, s.Payload, err
	out := w.deliverer.Deliver(ctx, d)
	switch {
	case out.Dead:
		return river.JobCancel(errors.New(out.Reason))
	case out.Ended:
		return nil
	case out.Untouched:
		// Nobody worked on it, so nothing fences by its attempts, and none may be used up.
		return river.JobSnooze(out.After)
	}
	next.again = out.After
	if !out.Counts {
		// Best effort: uncounted attempts that were not noted bring the end nearer, and nothing else.
		_ = river.MetadataSet(ctx, metaUncounted, m.Uncounted+1)
	}
	return errors.New(out.Reason)
}

// strangers takes the jobs that never reach work: of a kind that isn't ours, or that River could not decode.
type strangers struct{ worker *Worker }

// HandleError implements river.ErrorHandler.
func (s *strangers) HandleError(ctx context.Context, row *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	_, unknown := errors.AsType[*rivertype.UnknownJobKindError](err)
	if !unknown && json.Valid(row.EncodedArgs) {
		return nil
	}
	// River gives such a row up at its own max_attempts, should its letter not be kept before; the sweep brings it back.
	out := s.worker.deliverer.Deliver(ctx, queue.Delivery{JobID: row.ID, Attempt: metaOf(row.Metadata).Before + row.Attempt, Deliveries: row.Attempt,
		Unreadable: queue.ErrMalformed.With("the job is not one of this queue")})
	return &river.ErrorHandlerResult{SetCancelled: out.Dead}
}

// HandlePanic implements river.ErrorHandler. Handlers' panics end in call.
func (s *strangers) HandlePanic(context.Context, *rivertype.JobRow, any, string) *river.ErrorHandlerResult {
	return nil
}

// retryPolicy is for jobs that never reach work, and whose dead letter could not be kept.
type retryPolicy struct{ backoff queue.Backoff }

// NextRetry implements river.ClientRetryPolicy.
func (p retryPolicy) NextRetry(row *rivertype.JobRow) time.Time {
	return time.Now().Add(p.backoff.After(min(max(row.Attempt, 1), 20)))
}

// meta is what a job's metadata says to us. Nobody vouches for it: it is held to bounds.
type meta struct {
	// Tries is the bound on tries.
	Tries int `json:"a3_tries"`
	// Uncounted is how many attempts were no try.
	Uncounted int `json:"a3_uncounted,omitempty"`
	// Before is how many attempts an earlier job with the same message had.
	Before int `json:"a3_before,omitempty"`
}

func metaOf(raw []byte) meta {
	var m meta
	if err := json.Unmarshal(raw, &m); err != nil {
		m = meta{}
	}
	if m.Tries < 1 || m.Tries > queue.MostTries {
		m.Tries = queue.DefaultTries
	}
	m.Uncounted = max(m.Uncounted, 0)
	m.Before = min(max(m.Before, 0), queue.MostAttempts)
	return m
}
