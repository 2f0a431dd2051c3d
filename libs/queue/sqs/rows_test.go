package sqs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
	"a3os.app/libs/queue/sqs"
)

// seen is what a test's workers did and buried.
type seen struct {
	jobs    chan queue.Job
	letters chan queue.DeadLetter
}

func (b *bench) start(t *testing.T, p queuetest.Parties, handler queue.Handler) seen {
	t.Helper()
	s := seen{make(chan queue.Job, 1000), make(chan queue.DeadLetter, 1000)}
	w := b.work(t, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, Backoff: queue.Backoff{First: 20 * time.Millisecond, Most: 100 * time.Millisecond},
		Handler: func(ctx context.Context, job queue.Job) error {
			s.jobs <- job
			return handler(ctx, job)
		},
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error {
			s.letters <- l
			return nil
		},
	})
	t.Cleanup(w.Stop)
	return s
}

func done(context.Context, queue.Job) error { return nil }

func next[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	// Longer than a message is held: one whose delivery was cut off comes again after that.
	const patience = 100 * time.Second
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("nothing came in %s", patience)
	}
	return v
}

// flush sees that nothing came before a message that is enqueued now.
func (b *bench) flush(t *testing.T, p queuetest.Parties, s seen) {
	t.Helper()
	m := p.Message(t)
	if err := b.insert(t.Context(), m, queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}
	if job := next(t, s.jobs); job.Message.ID() != m.ID {
		t.Errorf("message %s came, attempt %d, and should not have", job.Message.ID(), job.Attempt)
	}
	select {
	case l := <-s.letters:
		t.Errorf("a dead letter: %s", l.Reason)
	default:
	}
}

// Rows Q30, F28 and O40, of the queue at SQS.
func TestRows(t *testing.T) {
	server := ministacktest.Start(t)
	for name, test := range map[string]func(*testing.T, *ministacktest.Server){
		"what is put into the queue by hand is refused":  byHand,
		"a message that comes twice is done once":        twice,
		"a message that the queue lost is sent again":    lost,
		"work that takes longer than a message is held":  keptWhileWorkedOn,
		"a tenant's roles do nothing at another's queue": othersRoles,
		"a queue that throttles and fails loses nothing": throttled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
}

// Who may send to the queue, and can't write to the database, gets nothing done: neither by what no signer made, nor by good messages
// that nobody enqueued or under the key of another job.
func byHand(t *testing.T, server *ministacktest.Server) {
	b, p := newBench(t, server), queuetest.NewParties(t, id.NewTenant(), "dev")
	b.hold = time.Minute
	b.send(t)
	s := b.start(t, p, done)
	bad := queuetest.BadMessages(t, p)
	for _, m := range bad {
		if err := b.put(t.Context(), id.NewMessage().String(), m.Envelope, m.Payload); err != nil {
			t.Fatal(err)
		}
	}
	for range bad {
		if l := next(t, s.letters); l.Verified != nil || l.Reason == "" {
			t.Errorf("dead letter is %+v", l)
		}
	}
	for _, text := range []string{"noise", "{}", `{"key":1}`, `{"more":1}`, strings.Repeat("[", 200_000)} {
		if _, err := b.root.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &b.url, MessageBody: aws.String(text)}); err != nil {
			t.Fatal(err)
		}
		if l := next(t, s.letters); !errors.Is(l.Err, queue.ErrMalformed) {
			t.Errorf("%.20q is buried as %+v", text, l)
		}
	}
	waiting, stray := p.Message(t), p.Message(t)
	err := pgx.BeginFunc(t.Context(), b.db.Pool(t), func(tx pgx.Tx) error {
		if err := b.inserter.InsertTx(t.Context(), tx, waiting, queue.InsertOpts{}); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "UPDATE queue.sqs_jobs SET run_at = now() + interval '1 hour' WHERE envelope = $1", waiting.Envelope)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, key := range map[string]string{"nobody's": stray.ID.String(), "another job's": waiting.ID.String()} {
		if err := b.put(t.Context(), key, stray.Envelope, stray.Payload); err != nil {
			t.Fatal(err)
		}
		if l := next(t, s.letters); !errors.Is(l.Err, queue.ErrForged) || l.Verified != nil {
			t.Errorf("a good message under %s key is buried as %+v", what, l)
		}
	}
	b.flush(t, p, s)
	t.Attr("row", fmt.Sprint("Q30 ", len(bad)))
}

// SQS delivers at least once, and whoever sends may die before it has noted it.
func twice(t *testing.T, server *ministacktest.Server) {
	b, p := newBench(t, server), queuetest.NewParties(t, id.NewTenant(), "dev")
	b.send(t)
	release := make(chan struct{})
	s := b.start(t, p, func(context.Context, queue.Job) error {
		<-release
		return nil
	})
	m := p.Message(t)
	if err := b.insert(t.Context(), m, queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}
	first := next(t, s.jobs)
	// While it is worked on, and once it is done.
	for range 3 {
		if err := b.put(t.Context(), m.ID.String(), m.Envelope, m.Payload); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(2 * held)
	close(release)
	b.flush(t, p, s)
	if err := b.put(t.Context(), m.ID.String(), m.Envelope, m.Payload); err != nil {
		t.Fatal(err)
	}
	b.flush(t, p, s)
	if first.Attempt != 1 {
		t.Errorf("it was done in attempt %d", first.Attempt)
	}
}

func lost(t *testing.T, server *ministacktest.Server) {
	b, p := newBench(t, server), queuetest.NewParties(t, id.NewTenant(), "dev")
	m := p.Message(t)
	if err := b.insert(t.Context(), m, queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}
	sender := &sqs.Sender{Place: b.place(t, b.sending), Pool: b.pool}
	if n, err := sender.Once(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d were sent: %v", n, err)
	}
	if _, err := b.root.PurgeQueue(t.Context(), &awssqs.PurgeQueueInput{QueueUrl: &b.url}); err != nil {
		t.Fatal(err)
	}
	if n, err := sender.Once(t.Context()); n != 0 || err != nil {
		t.Errorf("%d were sent again at once: %v", n, err)
	}
	sender.LostAfter = time.Millisecond
	if n, err := sender.Once(t.Context()); n != 1 || err != nil {
		t.Errorf("%d were sent again: %v", n, err)
	}
	s := b.start(t, p, done)
	if job := next(t, s.jobs); job.Message.ID() != m.ID || job.Attempt != 1 {
		t.Errorf("message %s came, attempt %d", job.Message.ID(), job.Attempt)
	}
}

func keptWhileWorkedOn(t *testing.T, server *ministacktest.Server) {
	b, p := newBench(t, server), queuetest.NewParties(t, id.NewTenant(), "dev")
	b.send(t)
	long := p.Message(t)
	handler := func(_ context.Context, job queue.Job) error {
		if job.Message.ID() == long.ID {
			<-time.After(3 * held)
		}
		return nil
	}
	s, other := b.start(t, p, handler), b.start(t, p, handler)
	if err := b.insert(t.Context(), long, queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}
	<-time.After(4 * held)
	if got := len(s.jobs) + len(other.jobs); got != 1 {
		t.Errorf("it was delivered %d times", got)
	}
}

// Row O40, of the queue: neither role of one tenant does anything at another's queue, nor one role what is the other's.
func othersRoles(t *testing.T, server *ministacktest.Server) {
	own, other := newBench(t, server), newBench(t, server)
	cases := 2
	for role, cfg := range map[string]aws.Config{"discovery": other.sending, "worker": other.working} {
		c := awssqs.NewFromConfig(cfg)
		_, sends := c.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &own.url, MessageBody: aws.String("x")})
		_, receives := c.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &own.url})
		_, purges := c.PurgeQueue(t.Context(), &awssqs.PurgeQueueInput{QueueUrl: &own.url})
		for what, err := range map[string]error{"send": sends, "receive": receives, "purge": purges} {
			cases++
			if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("the other tenant's %s may %s: %v", role, what, err)
			}
		}
	}
	if _, err := awssqs.NewFromConfig(own.sending).ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &own.url}); err == nil {
		t.Error("who sends can receive")
	}
	if _, err := awssqs.NewFromConfig(own.working).SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &own.url, MessageBody: aws.String("x")}); err == nil {
		t.Error("who receives can send")
	}
	t.Attr("row", fmt.Sprint("O40 ", cases))
}

// Row F28, of the queue: one request in two is throttled or answered 503.
func throttled(t *testing.T, server *ministacktest.Server) {
	var n, refusals atomic.Int64
	behind := server.Behind(t, func(w http.ResponseWriter, _ *http.Request) bool {
		i := n.Add(1)
		if i%2 == 0 {
			return false
		}
		refusals.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		if i%4 == 1 {
			w.Header().Set("X-Amzn-Query-Error", "RequestThrottled;Sender")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w, `{"__type":"com.amazonaws.sqs#RequestThrottled","message":"Rate exceeded"}`)
			return true
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	b, p := newBench(t, server), queuetest.NewParties(t, id.NewTenant(), "dev")
	b.hold = time.Minute
	soon := func(cfg aws.Config) aws.Config {
		cfg.Retryer = func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 100 * time.Millisecond })
		}
		return behind.As(cfg)
	}
	b.sending, b.working, b.url = soon(b.sending), soon(b.working), strings.Replace(b.url, server.URL, behind.URL, 1)
	b.send(t)
	const jobs = 20
	times := map[id.Message]int{}
	for range jobs {
		m := p.Message(t)
		times[m.ID] = 0
		if err := b.insert(t.Context(), m, queue.InsertOpts{}); err != nil {
			t.Fatal(err)
		}
	}
	s := b.start(t, p, done)
	for range jobs {
		times[next(t, s.jobs).Message.ID()]++
	}
	b.flush(t, p, s)
	for m, n := range times {
		if n != 1 {
			t.Errorf("message %s was done %d times", m, n)
		}
	}
	if refusals.Load() < jobs {
		t.Errorf("only %d requests were refused", refusals.Load())
	}
	t.Attr("row", fmt.Sprint("F28 ", refusals.Load()))
}
