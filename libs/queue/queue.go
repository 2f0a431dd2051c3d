// Package queue carries work between a tenant's services as messages that name things and vouch for their scope: identifiers and a
// signature, never a secret. A [Signer] makes them, a [Verifier] believes nothing else: who works on a message takes tenant and
// workspace from its verified envelope. Envelopes are signed with Ed25519 over the DSSE pre-authentication encoding (secure-systems-lab
// DSSE v1), so who can verify can't forge.
//
// A driver (package queue/postgres) delivers each message at least once: handlers must be safe to repeat, and use [Job.Attempt], which
// grows with every delivery, to fence an earlier one that is late. A message that can't be believed, and one whose tries are used up,
// goes to a [DeadLetterFunc] and is not delivered again. What drivers promise is what queue/queuetest tests.
package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

// Bounds on what is read, in bytes, before anything of it is decoded.
const (
	MostEnvelope = 4 << 10
	MostPayload  = 8 << 10
	// MostHeader bounds the header form.
	MostHeader = 16 << 10
)

// Message is signed work, ready to be enqueued. A [Signer] makes one, and [Verified.Message] makes it again.
type Message struct {
	// ID of the message.
	ID id.Message
	// Kind of work.
	Kind string
	// Envelope is a serialized a3os.queue.v1.SignedEnvelope.
	Envelope []byte
	// Payload is the serialized payload whose digest stands in the envelope.
	Payload []byte
}

// InsertOpts say how a message is enqueued. The zero value is good.
type InsertOpts struct {
	// UniqueKey makes messages with one key one job, as long as the driver remembers the first (the postgres driver: 24 hours past
	// its end). Empty: the id of the message. At most 200 bytes.
	UniqueKey string
	// MaxTries bounds how often the handler is tried; 0 means [DefaultTries]. Deliveries that a handler snoozed, or that a stop
	// interrupted, do not count; a worker that died does.
	MaxTries int
	// AfterAttempt is the last attempt of an earlier job with this message: attempts go on from there, and keep fencing. At most
	// [MostAttempts].
	AfterAttempt int
}

// Bounds of [InsertOpts.MaxTries].
const (
	DefaultTries = 10
	MostTries    = 1000
)

// MostAttempts bounds [InsertOpts.AfterAttempt].
const MostAttempts = 1_000_000

// Check refuses options that no driver can keep, and fills in what is left out.
func (o *InsertOpts) Check(m Message) error {
	switch {
	case m.ID.IsZero() || len(m.Envelope) == 0:
		return errors.New("enqueue: this message was not made by a signer")
	case o.MaxTries < 0 || o.MaxTries > MostTries:
		return fmt.Errorf("enqueue: %d tries, want 1 to %d", o.MaxTries, MostTries)
	case o.AfterAttempt < 0 || o.AfterAttempt > MostAttempts:
		return fmt.Errorf("enqueue: attempts go on from %d, want 0 to %d", o.AfterAttempt, MostAttempts)
	case len(o.UniqueKey) > 200:
		return fmt.Errorf("enqueue: a unique key has at most 200 bytes, this one %d", len(o.UniqueKey))
	}
	if o.MaxTries == 0 {
		o.MaxTries = DefaultTries
	}
	if o.UniqueKey == "" {
		o.UniqueKey = m.ID.String()
	}
	return nil
}

// Inserter enqueues.
type Inserter interface {
	// InsertTx enqueues m when tx commits. A message whose unique key is enqueued already is no error, and no second job.
	InsertTx(ctx context.Context, tx pgx.Tx, m Message, opts InsertOpts) error
}

// Job is one delivery of a message.
type Job struct {
	// ID of the job in the driver.
	ID int64
	// Attempt grows with every delivery of the job, from 1: the fencing token.
	Attempt int
	// LastTry says that the handler's failure now is the end: the message becomes a dead letter.
	LastTry bool
	// Message is the verified message.
	Message Verified
}

// Handler works on a job. Nil means done. An error means try again later, with [Backoff]; [Snooze] again at a time of its own and
// without counting; [Permanent] never again; the [Refusal] that [Verified.Decode] gave that the message is not to be believed after
// all. The context ends when the job's time is up or the worker stops. The text of an error is
// stored, and must hold no secret.
type Handler func(ctx context.Context, job Job) error

// DeadLetter is a message that will not be delivered again.
type DeadLetter struct {
	// JobID in the driver, more than 0. A message that has no job has a number of its own, which is no job's.
	JobID int64
	// Attempt that was the last.
	Attempt int
	// Reason is a sentence without secrets.
	Reason string
	// Err is the cause: [ErrForged] and its siblings where the message could not be believed, [ErrGivenUp] where it was tried in vain.
	Err error
	// Envelope and Payload as they were found. Believe them only where Verified is there.
	Envelope, Payload []byte
	// Verified is nil where the message could not be believed.
	Verified *Verified
	// Said is what a refused message said of itself, where its signature was good and something else was not; else nil.
	Said *queuev1.Envelope
}

// DeadLetterFunc keeps a dead letter. Until it returns nil the letter is offered again.
type DeadLetterFunc func(ctx context.Context, letter DeadLetter) error

// ErrGivenUp is the cause of a dead letter whose handler failed for good, or too often.
var ErrGivenUp = errors.New("given up")

// snooze asks for another delivery.
type snooze struct{ after time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %s", s.after) }

// Snooze is what a handler returns to be called again after a while, as when a system asked it to wait. It does not count as a try.
func Snooze(after time.Duration) error { return &snooze{max(after, 0)} }

// SnoozeOf tells a driver whether err is a snooze, and for how long.
func SnoozeOf(err error) (time.Duration, bool) {
	s, ok := errors.AsType[*snooze](err)
	if !ok {
		return 0, false
	}
	return s.after, true
}

// permanent ends a job.
type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Permanent is what a handler returns when trying again would be in vain.
func Permanent(err error) error { return &permanent{err} }

// IsPermanent tells a driver whether err ends the job.
func IsPermanent(err error) bool {
	_, ok := errors.AsType[*permanent](err)
	return ok
}

// Backoff says how long to wait after a failure: First, doubled with each further one up to Most, of which a random half is kept or
// left, so that many jobs that failed together don't come back together.
type Backoff struct{ First, Most time.Duration }

// DefaultBackoff suits work that waits for other systems.
var DefaultBackoff = Backoff{First: time.Second, Most: 5 * time.Minute}

// After is the pause after failures many failures, between half of the bound and the bound.
func (b Backoff) After(failures int) time.Duration {
	pause := b.First
	for range failures - 1 {
		if pause *= 2; pause >= b.Most {
			break
		}
	}
	pause = min(pause, b.Most)
	return pause/2 + rand.N(pause/2+1) //nolint:gosec // jitter needs no secrecy
}
