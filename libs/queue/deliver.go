package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"a3os.app/libs/clip"
)

// keepLetter is how long keeping a dead letter may take. The job's own time may be up, which is why it is given up.
const keepLetter = 5 * time.Second

// mostReason bounds the text of an error that is stored, in bytes.
const mostReason = 1000

// Deliverer does with a delivery what every driver does: it verifies the message before anything of it is decoded, hands it to its
// handler, and decides what comes of it. How a job is kept, counted and delivered again is its driver's.
type Deliverer struct {
	// Verifier decides which messages are believed.
	Verifier *Verifier
	// Handlers by kind of work. A message of another kind is refused.
	Handlers map[string]Handler
	// DeadLetter keeps what is refused or given up.
	DeadLetter DeadLetterFunc
	// Backoff between tries.
	Backoff Backoff
	// Logger takes one line per refused or failed job.
	Logger *slog.Logger

	// failed counts jobs that became dead letters, retried tries that failed and are made again.
	failed, retried atomic.Int64
}

// Failed is how many jobs became dead letters.
func (d *Deliverer) Failed() int64 { return d.failed.Load() }

// Retried is how many tries failed and are made again.
func (d *Deliverer) Retried() int64 { return d.retried.Load() }

// Load is how much a queue has to carry, and how its worker fares.
type Load struct {
	// Waiting jobs could be begun now, counted up to 100,000.
	Waiting int64
	// Oldest is how long the oldest of them could have been.
	Oldest time.Duration
	// Failed jobs became dead letters since the worker was made.
	Failed int64
	// Retried tries failed since then, and are made again.
	Retried int64
}

// Delivery is one delivery of a job.
type Delivery struct {
	// JobID in the driver.
	JobID int64
	// Attempt fences: it is larger than that of each earlier delivery of the message.
	Attempt int
	// Try is which try this is, from 1, and MostTries the last that there is.
	Try, MostTries int
	// Deliveries of the job so far, this one among them: how long a dead letter that can't be kept waits goes by them.
	Deliveries int
	// Worn says that the driver itself delivers no further.
	Worn bool
	// Envelope and Payload as they were found, and Unreadable why there are none.
	Envelope, Payload []byte
	Unreadable        error
}

// Outcome is what became of a delivery.
type Outcome struct {
	// Ended says that the job is not to be delivered again: it was done, or, where Dead is set, its letter was kept.
	Ended, Dead bool
	// After is how long to wait before the next delivery, where there is one.
	After time.Duration
	// Counts says that this delivery was a try.
	Counts bool
	// Untouched says that no handler worked on it, so that no attempt need be used up.
	Untouched bool
	// Reason is why it was not done, a sentence without secrets.
	Reason string
}

// Deliver does one delivery. The context ends when the job's time is up or the worker stops.
func (d *Deliverer) Deliver(ctx context.Context, v Delivery) Outcome {
	if v.Unreadable != nil {
		return d.refuse(ctx, v, v.Unreadable)
	}
	verified, err := d.Verifier.Verify(v.Envelope, v.Payload)
	if err != nil {
		return d.refuse(ctx, v, err)
	}
	handler, known := d.Handlers[verified.Kind()]
	if !known {
		return d.refuse(ctx, v, ErrMalformed.With("nobody here does work of kind %s", verified.Kind()))
	}
	if v.Try > v.MostTries || v.Worn {
		return d.giveUp(ctx, v, verified, fmt.Errorf("no try of %d came to an end: its worker died, it was put off too often, or its dead letter could not be kept", v.MostTries))
	}
	err = d.call(ctx, handler, Job{ID: v.JobID, Attempt: v.Attempt, LastTry: v.Try == v.MostTries, Message: verified})
	after, snoozed := SnoozeOf(err)
	refusal, refused := errors.AsType[*Refusal](err)
	switch {
	case refused:
		return d.refuse(ctx, v, refusal)
	case err == nil:
		return Outcome{Ended: true, Counts: true}
	case snoozed:
		return Outcome{After: after, Reason: clip.Text(err.Error(), mostReason)}
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Outcome{Reason: "interrupted: the worker stopped"}
	case IsPermanent(err) || v.Try == v.MostTries:
		return d.giveUp(ctx, v, verified, err)
	}
	again := Outcome{After: d.Backoff.After(v.Try), Counts: true, Reason: clip.Text(err.Error(), mostReason)}
	d.retried.Add(1)
	d.Logger.WarnContext(ctx, "a job failed and will be tried again", "job", v.JobID, "attempt", v.Attempt, "after", again.After, "error", again.Reason)
	return again
}

// call runs the handler, and makes an error of a panic. What was panicked with is not told: it may hold anything.
func (d *Deliverer) call(ctx context.Context, handler Handler, job Job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			d.Logger.ErrorContext(ctx, "a handler of the queue panicked", "job", job.ID, "kind", job.Message.Kind(), "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = fmt.Errorf("the handler panicked with a %T", p)
		}
	}()
	return handler(ctx, job)
}

// refuse ends a job whose message can't be believed.
func (d *Deliverer) refuse(ctx context.Context, v Delivery, cause error) Outcome {
	letter := DeadLetter{Reason: cause.Error(), Err: cause, Envelope: v.Envelope, Payload: v.Payload}
	if refusal, ok := errors.AsType[*Refusal](cause); ok {
		letter.Said = refusal.Envelope
	}
	out := d.bury(ctx, v, letter)
	out.Untouched = true
	return out
}

// giveUp ends a job that was tried in vain.
func (d *Deliverer) giveUp(ctx context.Context, v Delivery, verified Verified, cause error) Outcome {
	return d.bury(ctx, v, DeadLetter{
		Reason: cause.Error(), Err: fmt.Errorf("%w: %w", ErrGivenUp, cause), Envelope: v.Envelope, Payload: v.Payload, Verified: &verified,
	})
}

// bury hands the letter over. What could not be kept is offered again: where it was tried, the next try is past the bound and comes
// straight back here.
func (d *Deliverer) bury(ctx context.Context, v Delivery, letter DeadLetter) Outcome {
	letter.JobID, letter.Attempt, letter.Reason = v.JobID, v.Attempt, clip.Text(letter.Reason, mostReason)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepLetter)
	defer cancel()
	if err := d.DeadLetter(ctx, letter); err != nil {
		d.Logger.ErrorContext(ctx, "a dead letter could not be kept and will be offered again", "job", v.JobID, "reason", letter.Reason, "error", err)
		const mostDoublings = 20
		return Outcome{Counts: true, After: d.Backoff.After(min(max(v.Deliveries, 1), mostDoublings)) + time.Millisecond,
			Reason: clip.Text("its dead letter could not be kept: "+letter.Reason, mostReason)}
	}
	d.failed.Add(1)
	d.Logger.WarnContext(ctx, "a job became a dead letter", "job", v.JobID, "attempt", v.Attempt, "reason", letter.Reason)
	return Outcome{Ended: true, Dead: true, Counts: true, Reason: letter.Reason}
}
