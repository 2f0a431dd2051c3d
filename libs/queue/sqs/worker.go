package sqs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/queue"
)

const (
	// hold is how long a message is nobody else's before who works on it says so again.
	hold = 30 * time.Second
	// sayEvery is how many times within it that is said.
	sayEvery = 3
	// longPoll is the longest that SQS lets a request wait for a message.
	longPoll = 20 * time.Second
	// drain is how long handlers may go on when the worker stops, before their contexts end.
	drain = 5 * time.Second
	// settle bounds what is noted of a delivery once its handler has ended, whose own time may be up.
	settle = 5 * time.Second
	// mostHidden is the longest that SQS hides a message from its receipt, with some slack.
	mostHidden = 11 * time.Hour
	// remembered is how long an ended job's key is kept, forgetEvery how often what is older is removed.
	remembered, forgetEvery = 24 * time.Hour, time.Hour
)

// WorkerConfig says what a worker works on. Fields without a default are required.
type WorkerConfig struct {
	// Place is the queue.
	Place *Place
	// Pool logs in as the worker's role ([GrantsSQL]).
	Pool *pgxpool.Pool
	// Verifier decides which messages are believed.
	Verifier *queue.Verifier
	// Handlers by kind of work. A message of another kind is refused.
	Handlers map[string]queue.Handler
	// DeadLetter keeps what is refused or given up.
	DeadLetter queue.DeadLetterFunc
	// Concurrency is how many jobs run at once; 0 means 2.
	Concurrency int
	// Timeout of one job; 0 means 60 s.
	Timeout time.Duration
	// Hold is how long a message of a worker that died stays nobody's; 0 means 30 s.
	Hold time.Duration
	// Backoff between tries; zero means queue.DefaultBackoff.
	Backoff queue.Backoff
	// Logger takes one line per refused or failed job; nil means slog.Default.
	Logger *slog.Logger
}

// Worker works on the messages of a queue.
type Worker struct {
	cfg       WorkerConfig
	deliverer queue.Deliverer
}

// NewWorker makes a worker that Run starts.
func NewWorker(cfg WorkerConfig) (*Worker, error) {
	if cfg.Place == nil || cfg.Pool == nil || cfg.Verifier == nil || len(cfg.Handlers) == 0 || cfg.DeadLetter == nil {
		return nil, errors.New("a worker needs a queue, a pool, a verifier, handlers and a place for dead letters")
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 2
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Hold == 0 {
		cfg.Hold = hold
	}
	if cfg.Backoff == (queue.Backoff{}) {
		cfg.Backoff = queue.DefaultBackoff
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Worker{cfg: cfg, deliverer: queue.Deliverer{
		Verifier: cfg.Verifier, Handlers: cfg.Handlers, DeadLetter: cfg.DeadLetter, Backoff: cfg.Backoff, Logger: cfg.Logger}}, nil
}

// Load is the present load. What the worker counted is told also when the database can't be asked.
func (w *Worker) Load(ctx context.Context) (queue.Load, error) {
	l := queue.Load{Failed: w.deliverer.Failed(), Retried: w.deliverer.Retried()}
	var seconds float64
	err := w.cfg.Pool.QueryRow(ctx, `SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(run_at)), 0)::float8 FROM (
		SELECT run_at FROM `+w.cfg.Place.jobs+` WHERE ended_at IS NULL AND run_at <= clock_timestamp() AND coalesce(held_until, '-infinity') < clock_timestamp() LIMIT 100000) w`).
		Scan(&l.Waiting, &seconds)
	if err != nil {
		return l, fmt.Errorf("count the waiting jobs: %w", err)
	}
	l.Oldest = time.Duration(max(seconds, 0) * float64(time.Second))
	return l, nil
}

// Run works until ctx ends, then lets handlers finish for a few seconds, and returns. An error means that it could not start.
func (w *Worker) Run(ctx context.Context) error {
	if _, err := w.cfg.Pool.Exec(ctx, "SELECT FROM "+w.cfg.Place.jobs+" LIMIT 0"); err != nil {
		return fmt.Errorf("reach the jobs of the queue: %w", err)
	}
	// Handlers outlive ctx by a little.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { w.forget(ctx) })
	free := make(chan struct{}, w.cfg.Concurrency)
	for range w.cfg.Concurrency {
		free <- struct{}{}
	}
	failures := 0
	for ctx.Err() == nil {
		messages, err := w.receive(ctx, free)
		if err != nil {
			if failures++; failures == 1 {
				w.cfg.Logger.ErrorContext(ctx, "no messages are received", "error", err)
			}
			pause(ctx, queue.Backoff{First: time.Second, Most: 30 * time.Second}.After(min(failures, 20))) //nolint:mnd // reaches the most
			continue
		}
		failures = 0
		for _, m := range messages {
			all.Go(func() {
				defer func() { free <- struct{}{} }()
				w.work(working, m)
			})
		}
	}
	time.AfterFunc(drain, stop)
	all.Wait()
	return nil
}

// receive waits until a job can be begun, and takes as many messages as can be.
func (w *Worker) receive(ctx context.Context, free chan struct{}) ([]types.Message, error) {
	n := 0
	select {
	case <-ctx.Done():
		return nil, nil
	case <-free:
		n++
	}
	for n < min(w.cfg.Concurrency, atOnce) {
		select {
		case <-free:
			n++
			continue
		default:
		}
		break
	}
	out, err := w.cfg.Place.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &w.cfg.Place.url, MaxNumberOfMessages: int32(n), WaitTimeSeconds: int32(longPoll / time.Second), VisibilityTimeout: seconds(w.cfg.Hold), //nolint:gosec // few
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
	})
	var messages []types.Message
	if err == nil {
		messages = out.Messages
	}
	for range n - len(messages) {
		free <- struct{}{}
	}
	if ctx.Err() != nil {
		err = nil
	}
	return messages, err
}

// forget removes what ended long ago.
func (w *Worker) forget(ctx context.Context) {
	for {
		if _, err := w.cfg.Pool.Exec(ctx, "DELETE FROM "+w.cfg.Place.jobs+" WHERE ended_at < now() - $1::interval", remembered); err != nil && ctx.Err() == nil {
			w.cfg.Logger.WarnContext(ctx, "ended jobs were not removed and will be tried again", "error", err)
		}
		if !pause(ctx, forgetEvery) {
			return
		}
	}
}

// pause waits, and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// seconds is a duration as SQS counts it, never shorter.
func seconds(d time.Duration) int32 {
	d = min(max(d, 0), mostHidden)
	return int32((d + time.Second - 1) / time.Second) //nolint:gosec // at most some 40,000
}

// again has SQS deliver a message again after a while, and not before.
func (w *Worker) again(ctx context.Context, m types.Message, after time.Duration) {
	// What can't be told comes back by itself once it is nobody's.
	_, _ = w.cfg.Place.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &w.cfg.Place.url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds(after)})
}

// remove has SQS deliver a message no more.
func (w *Worker) remove(ctx context.Context, m types.Message) {
	if _, err := w.cfg.Place.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &w.cfg.Place.url, ReceiptHandle: m.ReceiptHandle}); err != nil {
		// It comes again, its job has ended, and it is removed then.
		w.cfg.Logger.DebugContext(ctx, "a message was not removed", "message", aws.ToString(m.MessageId), "error", err)
	}
}
