package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"a3os.app/libs/queue"
)

// mostError bounds the text of an error that is stored, in bytes.
const mostError = 1000

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

// Work verifies the message and hands it to its handler. Its errors hold no cause, only text: River has a meaning of its own for
// cancelled contexts and for snoozing, in which the attempt number, our fencing token, would shrink.
func (k *work) Work(ctx context.Context, job *river.Job[jobArgs]) error {
	d := &delivery{Worker: k.worker, row: job.JobRow, outcome: job.Args.outcome, meta: metaOf(job.Metadata)}
	s, err := read(job.Args.raw)
	if err != nil {
		return d.refuse(ctx, s, err)
	}
	verified, err := k.worker.cfg.Verifier.Verify(s.Envelope, s.Payload)
	if err != nil {
		return d.refuse(ctx, s, err)
	}
	handler, known := k.worker.cfg.Handlers[verified.Kind()]
	if !known {
		return d.refuse(ctx, s, queue.ErrMalformed.With("nobody here does work of kind %s", verified.Kind()))
	}
	tries := job.Attempt - d.meta.Uncounted
	if tries > d.meta.Tries || job.Attempt >= job.MaxAttempts {
		return d.giveUp(ctx, s, verified, fmt.Errorf("no try of %d came to an end: its worker died, it was put off too often, or its dead letter could not be kept", d.meta.Tries))
	}
	err = d.call(ctx, handler, queue.Job{ID: job.ID, Attempt: d.attempt(), LastTry: tries == d.meta.Tries, Message: verified})
	after, snoozed := queue.SnoozeOf(err)
	refusal, refused := errors.AsType[*queue.Refusal](err)
	switch {
	case refused:
		return d.refuse(ctx, s, refusal)
	case err == nil:
		return nil
	case snoozed:
		return d.again(ctx, after, false, err)
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return d.again(ctx, 0, false, errors.New("interrupted: the worker stopped"))
	case queue.IsPermanent(err) || tries == d.meta.Tries:
		return d.giveUp(ctx, s, verified, err)
	default:
		return d.again(ctx, k.worker.cfg.Backoff.After(tries), true, err)
	}
}

// delivery is one job in one attempt.
type delivery struct {
	*Worker
	row     *rivertype.JobRow
	outcome *outcome
	meta    meta
}

// attempt fences: it goes on from the attempts of an earlier job with the message.
func (d *delivery) attempt() int { return d.meta.Before + d.row.Attempt }

// call runs the handler, and makes an error of a panic. What was panicked with is not told: it may hold anything.
func (d *delivery) call(ctx context.Context, handler queue.Handler, job queue.Job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			d.cfg.Logger.ErrorContext(ctx, "a handler of the queue panicked", "job", job.ID, "kind", job.Message.Kind(), "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = fmt.Errorf("the handler panicked with a %T", p)
		}
	}()
	return handler(ctx, job)
}

// again has the job delivered again after a while.
func (d *delivery) again(ctx context.Context, after time.Duration, counts bool, cause error) error {
	d.outcome.again = after
	if !counts {
		// Best effort: uncounted attempts that were not noted bring the end nearer, and nothing else.
		_ = river.MetadataSet(ctx, metaUncounted, d.meta.Uncounted+1)
	} else {
		d.retried.Add(1)
		d.cfg.Logger.WarnContext(ctx, "a job failed and will be tried again", "job", d.row.ID, "attempt", d.row.Attempt, "after", after, "error", clip(cause.Error()))
	}
	return errors.New(clip(cause.Error()))
}

// refuse ends a job whose message can't be believed.
func (d *delivery) refuse(ctx context.Context, s stored, cause error) error {
	letter := queue.DeadLetter{Reason: cause.Error(), Err: cause, Envelope: s.Envelope, Payload: s.Payload}
	if refusal, ok := errors.AsType[*queue.Refusal](cause); ok {
		letter.Said = refusal.Envelope
	}
	if again := d.bury(ctx, letter); again > 0 {
		// Nobody worked on it, so nothing fences by its attempts, and none may be used up.
		return river.JobSnooze(again)
	}
	return river.JobCancel(errors.New(clip(letter.Reason)))
}

// giveUp ends a job that was tried in vain.
func (d *delivery) giveUp(ctx context.Context, s stored, verified queue.Verified, cause error) error {
	letter := queue.DeadLetter{
		Reason: cause.Error(), Err: fmt.Errorf("%w: %w", queue.ErrGivenUp, cause), Envelope: s.Envelope, Payload: s.Payload, Verified: &verified,
	}
	if again := d.bury(ctx, letter); again > 0 {
		// The next attempt is past the bound on tries and comes straight back here.
		d.outcome.again = again
		return errors.New(clip("its dead letter could not be kept: " + letter.Reason))
	}
	return river.JobCancel(errors.New(clip(letter.Reason)))
}

// bury hands the letter over. The answer is how long to wait where it could not be kept, and 0 where it was.
func (d *delivery) bury(ctx context.Context, letter queue.DeadLetter) time.Duration {
	letter.JobID, letter.Attempt, letter.Reason = d.row.ID, d.attempt(), clip(letter.Reason)
	// The job's time may be up, which is why it is given up: the letter has its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := d.cfg.DeadLetter(ctx, letter); err != nil {
		d.cfg.Logger.ErrorContext(ctx, "a dead letter could not be kept and will be offered again", "job", d.row.ID, "reason", letter.Reason, "error", err)
		return d.cfg.Backoff.After(min(d.row.Attempt, 20)) + time.Millisecond
	}
	d.failed.Add(1)
	d.cfg.Logger.WarnContext(ctx, "a job became a dead letter", "job", d.row.ID, "attempt", d.row.Attempt, "reason", letter.Reason)
	return 0
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
	d := &delivery{Worker: s.worker, row: row, outcome: new(outcome)}
	_, cancelled := errors.AsType[*rivertype.JobCancelError](d.refuse(ctx, stored{}, queue.ErrMalformed.With("the job is not one of this queue")))
	return &river.ErrorHandlerResult{SetCancelled: cancelled}
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

// clip cuts a text to mostError bytes, between two characters.
func clip(s string) string {
	if len(s) <= mostError {
		return s
	}
	return strings.ToValidUTF8(s[:mostError-len("…")], "") + "…"
}
