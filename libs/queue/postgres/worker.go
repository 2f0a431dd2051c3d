package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"a3os.app/libs/queue"
)

const (
	pollEvery = 500 * time.Millisecond
	// fetchCooldown is between two fetches while there is work. With few jobs at once it bounds their rate.
	fetchCooldown = 5 * time.Millisecond
	// sweepEvery is how often jobs of dead workers are looked for.
	sweepEvery = 2 * time.Second
	// rescueSlack is how long past its timeout River leaves a job alone, which it then takes for stuck. The sweep is quicker; River's
	// rescuer is for a worker that lives and hangs.
	rescueSlack = 30 * time.Second
	// minConns is the least a pool must have room for: one shows that the worker lives, the others fetch and complete.
	minConns = 3
	// drain is how long handlers may go on when the worker stops, before their contexts end.
	drain = 5 * time.Second
)

// WorkerConfig says what a worker works on. Fields without a default are required.
type WorkerConfig struct {
	// Pool logs in as the worker's role ([GrantsSQL]); one of its connections is held as long as the worker runs.
	Pool *pgxpool.Pool
	// Schema the queue lies in.
	Schema string
	// Name of the worker in its jobs' history, as `discovery-worker`.
	Name string
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
	// Backoff between tries; zero means queue.DefaultBackoff.
	Backoff queue.Backoff
	// Logger takes one line per refused or failed job; nil means slog.Default.
	Logger *slog.Logger
}

// Worker works on the jobs of a queue.
type Worker struct {
	cfg    WorkerConfig
	client *river.Client[pgx.Tx]
	// name is this worker's alone, and the name of the lock it lives by.
	name      string
	deliverer queue.Deliverer
}

// Load is the present load. What the worker counted is told also when the database can't be asked.
func (w *Worker) Load(ctx context.Context) (queue.Load, error) {
	l := queue.Load{Failed: w.deliverer.Failed(), Retried: w.deliverer.Retried()}
	var seconds float64
	err := w.cfg.Pool.QueryRow(ctx, fmt.Sprintf(`
		select count(*), coalesce(extract(epoch from clock_timestamp() - min(scheduled_at)), 0)::float8 from (
			select scheduled_at from %s where state in ('available', 'retryable', 'scheduled') and scheduled_at <= clock_timestamp() limit 100000) w`,
		table(w.cfg.Schema, "river_job"))).Scan(&l.Waiting, &seconds)
	if err != nil {
		return l, fmt.Errorf("count the waiting jobs: %w", err)
	}
	l.Oldest = time.Duration(max(seconds, 0) * float64(time.Second))
	return l, nil
}

// NewWorker makes a worker that Run starts.
func NewWorker(cfg WorkerConfig) (*Worker, error) {
	if cfg.Pool == nil || cfg.Schema == "" || cfg.Name == "" || cfg.Verifier == nil || len(cfg.Handlers) == 0 || cfg.DeadLetter == nil {
		return nil, errors.New("a worker needs a pool, a schema, a name, a verifier, handlers and a place for dead letters")
	}
	if n := cfg.Pool.Config().MaxConns; n < minConns {
		return nil, fmt.Errorf("the pool of worker %s has room for %d connections: it needs %d, of which one is held", cfg.Name, n, minConns)
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 2
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Backoff == (queue.Backoff{}) {
		cfg.Backoff = queue.DefaultBackoff
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	w := &Worker{cfg: cfg, name: cfg.Name + "-" + rand.Text(), deliverer: queue.Deliverer{
		Verifier: cfg.Verifier, Handlers: cfg.Handlers, DeadLetter: cfg.DeadLetter, Backoff: cfg.Backoff, Logger: cfg.Logger}}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &work{worker: w}); err != nil {
		return nil, fmt.Errorf("make worker %s: %w", cfg.Name, err)
	}
	client, err := river.NewClient(newDriver(cfg.Pool), &river.Config{
		ErrorHandler:         &strangers{worker: w},
		FetchCooldown:        fetchCooldown,
		FetchPollInterval:    pollEvery,
		ID:                   w.name,
		JobTimeout:           cfg.Timeout,
		Logger:               slog.New(quiet{cfg.Logger.Handler()}),
		PollOnly:             true,
		Queues:               map[string]river.QueueConfig{queueName: {MaxWorkers: cfg.Concurrency}},
		ReindexerIndexNames:  []string{}, // reindexing takes the owner: `migrate` does it
		RescueStuckJobsAfter: cfg.Timeout + rescueSlack,
		RetryPolicy:          retryPolicy{cfg.Backoff},
		Schema:               cfg.Schema,
		SoftStopTimeout:      drain,
		Workers:              workers,
	})
	if err != nil {
		return nil, fmt.Errorf("make worker %s: %w", cfg.Name, err)
	}
	w.client = client
	return w, nil
}

// Run works until ctx ends, then lets handlers finish for a few seconds, and returns. An error means that it could not start.
func (w *Worker) Run(ctx context.Context) error {
	if err := Ping(ctx, w.cfg.Pool, w.cfg.Schema); err != nil {
		return err
	}
	p := &presence{pool: w.cfg.Pool, schema: w.cfg.Schema, name: w.name, log: w.cfg.Logger}
	if err := p.enter(ctx); err != nil {
		return err
	}
	// The presence outlives ctx: as long as a handler runs, its job must not be taken for a dead worker's.
	alive, leave := context.WithCancel(context.WithoutCancel(ctx))
	left := make(chan struct{})
	go func() {
		defer close(left)
		p.keep(alive)
	}()
	defer func() {
		leave()
		<-left
	}()
	if err := w.client.Start(ctx); err != nil {
		return fmt.Errorf("start worker %s: %w", w.cfg.Name, err)
	}
	<-w.client.Stopped()
	return nil
}

// quiet lets River's log through from warnings up: of jobs this package tells in its own words.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(n string) slog.Handler      { return quiet{q.Handler.WithGroup(n)} }
