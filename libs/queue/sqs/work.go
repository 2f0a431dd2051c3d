package sqs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/queue"
)

// job is a message's job that this worker has.
type job struct {
	id                                    int64
	attempt, before, uncounted, mostTries int
}

// errNotMine says that a job is another worker's by now.
var errNotMine = errors.New("another worker has the job by now")

// work does one delivery.
func (w *Worker) work(ctx context.Context, m types.Message) {
	received, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	if err != nil || received < 1 {
		received = 1
	}
	b, err := readBody(aws.ToString(m.Body))
	if err == nil {
		_, err = w.cfg.Verifier.Verify(b.Envelope, b.Payload)
	} else {
		// It is no message of ours: what is kept of it says which bytes it was.
		b.Envelope = []byte(aws.ToString(m.Body))
	}
	if err != nil {
		w.refuse(ctx, m, b, received, err)
		return
	}
	j, later, err := w.take(ctx, b)
	switch {
	case errors.Is(err, queue.ErrForged):
		w.refuse(ctx, m, b, received, err)
	case err != nil:
		w.cfg.Logger.WarnContext(ctx, "a message's job can't be taken; the message comes again", "error", err)
		w.again(ctx, m, w.cfg.Backoff.After(min(received, 20))) //nolint:mnd // enough doublings
	case j == nil && later > 0:
		w.again(ctx, m, later)
	case j == nil:
		w.remove(ctx, m)
	default:
		w.deliver(ctx, m, b, j)
	}
}

// nobodysJob is where the numbers begin by which messages are known that have no job: past those of all jobs that there will be.
const nobodysJob = 1 << 62

// number is one that a message without a job has to itself, the same each time that SQS delivers it.
func number(m types.Message) int64 {
	sum := sha256.Sum256([]byte(aws.ToString(m.MessageId)))
	return nobodysJob | int64(binary.BigEndian.Uint64(sum[:])>>2) //nolint:gosec // 62 bits
}

// refuse ends a message that can't be believed, which has no job.
func (w *Worker) refuse(ctx context.Context, m types.Message, b body, received int, cause error) {
	out := w.deliverer.Deliver(ctx, queue.Delivery{JobID: number(m), Attempt: received, Deliveries: received, Envelope: b.Envelope, Payload: b.Payload, Unreadable: cause})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle)
	defer cancel()
	if out.Ended {
		w.remove(ctx, m)
	} else {
		w.again(ctx, m, out.After)
	}
}

// take takes a message's job. Without one, later says when to come again; 0 where it has ended. A message that nobody enqueued is
// [queue.ErrForged]: the envelope's whole text is compared, so that a job is no other message's.
func (w *Worker) take(ctx context.Context, b body) (j *job, later time.Duration, err error) {
	j = &job{}
	err = w.cfg.Pool.QueryRow(ctx, `UPDATE `+w.cfg.Place.jobs+` SET attempt = attempt + 1, held_until = now() + $3::interval
		WHERE key = $1 AND envelope = $2 AND ended_at IS NULL AND run_at <= now() AND coalesce(held_until, '-infinity') <= now()
		RETURNING id, attempt, before, uncounted, most_tries`, b.Key, b.Envelope, w.cfg.Hold).Scan(&j.id, &j.attempt, &j.before, &j.uncounted, &j.mostTries)
	if err == nil {
		return j, 0, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, fmt.Errorf("take the job: %w", err)
	}
	var ended, same bool
	var wait float64
	err = w.cfg.Pool.QueryRow(ctx, `SELECT ended_at IS NOT NULL, envelope = $2, extract(epoch FROM greatest(run_at, held_until) - now())::float8
		FROM `+w.cfg.Place.jobs+` WHERE key = $1`, b.Key, b.Envelope).Scan(&ended, &same, &wait)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && !ended && !same:
		return nil, 0, queue.ErrForged.With("nobody enqueued this message: it was put into the queue by hand, or its job is forgotten")
	case err != nil:
		return nil, 0, fmt.Errorf("look for the job: %w", err)
	case ended:
		return nil, 0, nil
	}
	return nil, max(time.Duration(wait*float64(time.Second)), time.Second), nil
}

// deliver hands a message to its handler, and says meanwhile again and again that it has it.
func (w *Worker) deliver(ctx context.Context, m types.Message, b body, j *job) {
	working, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	said := make(chan struct{})
	saying, enough := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(said)
		w.keep(saying, m, j, cancel)
	}()
	out := w.deliverer.Deliver(working, queue.Delivery{
		JobID: j.id, Attempt: j.before + j.attempt, Try: j.attempt - j.uncounted, MostTries: j.mostTries, Deliveries: j.attempt, Envelope: b.Envelope, Payload: b.Payload,
	})
	enough()
	<-said
	// What was done is noted before the message goes: where the process dies between the two, it comes again and finds that it was done.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), settle)
	defer done()
	if err := w.note(ctx, j, out); err != nil {
		if !errors.Is(err, errNotMine) {
			w.cfg.Logger.WarnContext(ctx, "what became of a job was not noted; it is delivered again", "job", j.id, "error", err)
		}
		return
	}
	if out.Ended {
		w.remove(ctx, m)
	} else {
		w.again(ctx, m, out.After)
	}
}

// note writes down what became of a delivery, unless another worker has the job by now.
func (w *Worker) note(ctx context.Context, j *job, out queue.Outcome) error {
	set, args := "ended_at = now(), held_until = NULL, envelope = '', payload = '', reason = $3", []any{j.id, j.attempt, null(out.Reason)}
	if !out.Ended {
		uncounted := 0
		if !out.Counts || out.Untouched {
			uncounted = 1
		}
		set = "held_until = NULL, run_at = now() + $4::interval, uncounted = uncounted + $5, reason = $3"
		args = append(args, out.After, uncounted)
	}
	tag, err := w.cfg.Pool.Exec(ctx, "UPDATE "+w.cfg.Place.jobs+" SET "+set+" WHERE id = $1 AND attempt = $2 AND ended_at IS NULL", args...)
	if err == nil && tag.RowsAffected() == 0 {
		err = errNotMine
	}
	return err
}

func null(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// keep keeps a job and its message this worker's until ctx ends. Where the job is another's, the handler is told to stop.
func (w *Worker) keep(ctx context.Context, m types.Message, j *job, lost context.CancelFunc) {
	for pause(ctx, w.cfg.Hold/sayEvery) {
		tag, err := w.cfg.Pool.Exec(ctx, "UPDATE "+w.cfg.Place.jobs+" SET held_until = now() + $3::interval WHERE id = $1 AND attempt = $2 AND ended_at IS NULL", j.id, j.attempt, w.cfg.Hold)
		if err == nil && tag.RowsAffected() == 0 {
			lost()
			return
		}
		w.again(ctx, m, w.cfg.Hold)
	}
}
