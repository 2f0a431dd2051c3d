package sqs_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/id"
	"a3os.app/libs/ministacktest"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
	"a3os.app/libs/queue/sqs"
)

const (
	schema = "queue"
	// held is how long the tests' workers have a message without saying so again.
	held = 2 * time.Second
)

// bench is a tenant's queue, its jobs, and what each role may.
type bench struct {
	db               *pgtest.Database
	url              string
	sending, working aws.Config
	senders, workers string
	root             *awssqs.Client
	inserter         *sqs.Inserter
	pool             *pgxpool.Pool
	// hold is how long its workers have a message without saying so again.
	hold time.Duration
}

func newBench(t testing.TB, server *ministacktest.Server) *bench {
	t.Helper()
	b := &bench{hold: held, db: pgtest.New(t), root: awssqs.NewFromConfig(server.Root())}
	b.db.Exec(t, "CREATE SCHEMA "+schema)
	for range 2 { // again it changes nothing
		if err := sqs.Migrate(t.Context(), b.db.Pool(t), schema); err != nil {
			t.Fatal(err)
		}
	}
	b.senders, b.workers = b.db.Role(t, "discovery"), b.db.Role(t, "worker")
	b.db.Exec(t, sqs.GrantsSQL(schema, b.db.RoleName(b.workers), b.db.RoleName(b.senders)))
	b.pool = b.db.PoolAs(t, b.senders)
	name := strings.ReplaceAll(id.NewTenant().String(), "_", "-")
	out, err := b.root.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	b.url = *out.QueueUrl
	arn := "arn:aws:sqs:" + ministacktest.Region + ":" + ministacktest.Account + ":" + name
	b.sending = server.Role(t, name+"-discovery", ministacktest.Statement{Effect: "Allow", Action: []string{"sqs:SendMessage"}, Resource: []string{arn}})
	b.working = server.Role(t, name+"-worker", ministacktest.Statement{Effect: "Allow",
		Action: []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"}, Resource: []string{arn}})
	if b.inserter, err = sqs.NewInserter(schema); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) place(t testing.TB, cfg aws.Config) *sqs.Place {
	t.Helper()
	p, err := sqs.NewPlace(cfg, b.url, schema)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *bench) insert(ctx context.Context, m queue.Message, opts queue.InsertOpts) error {
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error { return b.inserter.InsertTx(ctx, tx, m, opts) })
}

// send runs a sender until the test ends.
func (b *bench) send(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&sqs.Sender{Place: b.place(t, b.sending), Pool: b.pool, Logger: slog.New(slog.DiscardHandler)}).Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// put puts a message into the queue by hand.
func (b *bench) put(ctx context.Context, key string, envelope, payload []byte) error {
	text, err := json.Marshal(map[string]any{"key": key, "envelope": envelope, "payload": payload})
	if err != nil {
		return err
	}
	_, err = b.root.SendMessage(ctx, &awssqs.SendMessageInput{QueueUrl: &b.url, MessageBody: aws.String(string(text))})
	return err
}

// plant puts a message into the queue, and its job into the table, as who has taken over both.
func (b *bench) plant(ctx context.Context, t *testing.T, envelope, payload []byte) error {
	key := id.NewMessage().String()
	_, err := b.db.Pool(t).Exec(ctx, `INSERT INTO queue.sqs_jobs (key, envelope, payload, most_tries, run_at, sent_at) VALUES ($1, $2, $3, 25, now(), now())`,
		key, append([]byte{}, envelope...), append([]byte{}, payload...))
	return errors.Join(err, b.put(ctx, key, envelope, payload))
}

var errRollBack = errors.New("roll back")

// wire carries a worker's requests until it is cut.
type wire struct{ cut atomic.Bool }

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	if w.cut.Load() {
		return nil, errors.New("this worker was killed")
	}
	return http.DefaultClient.Do(r)
}

func (b *bench) work(t *testing.T, cfg queuetest.WorkerConfig) queuetest.Worker {
	t.Helper()
	line := &wire{}
	at := b.working
	at.HTTPClient = line
	pool := b.db.PoolAs(t, b.workers)
	w, err := sqs.NewWorker(sqs.WorkerConfig{Place: b.place(t, at), Pool: pool, Verifier: cfg.Verifier, Handlers: map[string]queue.Handler{queuetest.Kind: cfg.Handler},
		DeadLetter: cfg.DeadLetter, Timeout: cfg.Timeout, Backoff: cfg.Backoff, Hold: b.hold, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return queuetest.Worker{
		Stop: func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the worker ended with: %v", err)
			}
		},
		// The process lives on here, so what it says is lost in place of it.
		Kill: func() {
			line.cut.Store(true)
			go pool.Close()
			b.db.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+b.db.RoleName(b.workers)+"'")
			cancel()
		},
	}
}

func TestDriver(t *testing.T) {
	server := ministacktest.Start(t)
	queuetest.Run(t, func(t *testing.T) queuetest.Queue {
		b := newBench(t, server)
		b.send(t)
		return queuetest.Queue{
			Insert: b.insert,
			InsertAndRollBack: func(ctx context.Context, m queue.Message) error {
				err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
					return errors.Join(b.inserter.InsertTx(ctx, tx, m, queue.InsertOpts{}), errRollBack)
				})
				if errors.Is(err, errRollBack) {
					return nil
				}
				return errors.Join(errors.New("it was not rolled back"), err)
			},
			Plant: func(ctx context.Context, envelope, payload []byte) error { return b.plant(ctx, t, envelope, payload) },
			Work:  b.work,
			// SQS delivers at least once, an answer may be lost with the messages in it, and a call that is made again may put one in twice.
			DeliversAgain: true,
		}
	})
}
