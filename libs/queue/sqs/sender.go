package sqs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/queue"
)

const (
	// lookEvery is how often the sender looks for what was committed.
	lookEvery = 250 * time.Millisecond
	// atOnce is how many messages are sent at once; SQS gives no more in one request.
	atOnce = 10
	// mostSend bounds one request, within which the rows that it is about stay locked.
	mostSend = 5 * time.Second
	// LostAfter is how long a message that nobody took is left to SQS, before it is sent once more: a queue may be purged, or keep what
	// it has for too short. Where nobody works for that long, each job is there once more for each time; it is done once all the same.
	LostAfter = time.Hour
)

// Sender gives SQS what was enqueued.
type Sender struct {
	// Place is the queue.
	Place *Place
	// Pool logs in as the sender's role ([GrantsSQL]).
	Pool *pgxpool.Pool
	// Logger takes a line when sending begins to fail; nil means slog.Default.
	Logger *slog.Logger
	// LostAfter is [LostAfter], unless a test says otherwise.
	LostAfter time.Duration
}

// Run sends until ctx ends. What it could not send stays where it is, and is tried again with growing pauses.
func (s *Sender) Run(ctx context.Context) {
	log := s.Logger
	if log == nil {
		log = slog.Default()
	}
	backoff, failures := queue.Backoff{First: lookEvery, Most: 30 * time.Second}, 0
	for {
		n, err := s.Once(ctx)
		pause := lookEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if failures++; failures == 1 {
				log.ErrorContext(ctx, "messages are enqueued and not sent yet", "error", err)
			}
			pause = backoff.After(min(failures, 20)) //nolint:mnd // enough doublings to reach the most
		case failures > 0:
			log.InfoContext(ctx, "messages are sent again", "failures", failures)
			failures = 0
		}
		if err == nil && n == atOnce {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Once sends a few of what is due, and answers how many. Where the process dies between sending and noting it, they are sent again.
func (s *Sender) Once(ctx context.Context) (n int, err error) {
	lost := s.LostAfter
	if lost == 0 {
		lost = LostAfter
	}
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id, key, envelope, payload FROM `+s.Place.jobs+`
			WHERE ended_at IS NULL AND run_at <= now() AND (sent_at IS NULL OR greatest(sent_at, run_at, held_until) < now() - $1::interval)
			ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED`, lost, atOnce)
		if err != nil {
			return fmt.Errorf("look for what is to be sent: %w", err)
		}
		var due []message
		var id int64
		var b body
		_, err = pgx.ForEachRow(rows, []any{&id, &b.Key, &b.Envelope, &b.Payload}, func() error {
			text, err := json.Marshal(b)
			if err != nil {
				return err
			}
			due = append(due, message{id, string(text)})
			return nil
		})
		if err != nil {
			return fmt.Errorf("look for what is to be sent: %w", err)
		}
		if len(due) == 0 {
			return nil
		}
		n, err = s.send(ctx, tx, due)
		return err
	})
	return n, err
}

// message is what is to be sent of a job.
type message struct {
	id   int64
	text string
}

// send sends several at once. Each is a request of its own: a batch may be taken in part, and would not be cheaper at our sizes.
func (s *Sender) send(ctx context.Context, tx pgx.Tx, due []message) (int, error) {
	sending, cancel := context.WithTimeout(ctx, mostSend)
	defer cancel()
	errs := make([]error, len(due))
	var all sync.WaitGroup
	for i, m := range due {
		all.Go(func() {
			_, errs[i] = s.Place.client.SendMessage(sending, &sqs.SendMessageInput{QueueUrl: &s.Place.url, MessageBody: &m.text})
		})
	}
	all.Wait()
	var sent []int64
	var failed error
	for i, m := range due {
		if errs[i] == nil {
			sent = append(sent, m.id)
		} else {
			failed = fmt.Errorf("send to queue %s: %w", s.Place.url, errs[i])
		}
	}
	if _, err := tx.Exec(ctx, "UPDATE "+s.Place.jobs+" SET sent_at = clock_timestamp() WHERE id = ANY($1)", sent); err != nil {
		return 0, fmt.Errorf("note what was sent: %w", err)
	}
	if len(sent) == 0 {
		return 0, failed
	}
	// The rest is tried in the next round.
	return len(sent), nil
}
