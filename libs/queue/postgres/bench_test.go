package postgres_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"a3os.app/libs/id"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/postgres"
	"a3os.app/libs/queue/queuetest"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

const (
	// benchJobs are enqueued in each turn, each in a transaction of its own, while the worker works.
	benchJobs = 1500
	// benchAtOnce is the bound on jobs at once, and the number of producers, on both sides.
	benchAtOnce = 16
)

// bareArgs say what a slice's payload says, to River alone.
type bareArgs struct {
	Run         string `json:"run_id"`
	Integration string `json:"integration_id"`
	Slice       int    `json:"slice"`
	Workspace   string `json:"workspace_id"`
	Tenant      string `json:"tenant_id"`
}

func (bareArgs) Kind() string { return "bare" }

type bareWorker struct {
	river.WorkerDefaults[bareArgs]
	done func()
}

func (w *bareWorker) Work(context.Context, *river.Job[bareArgs]) error {
	w.done()
	return nil
}

// BenchmarkSignedJobs puts jobs with signed envelopes through the queue, from signing to the handler that has read the payload, and, in
// turns, as many of the same words through River alone: same server, schema by the same migration, same bound on jobs at once, same pace
// of fetching, and each job once by its key: what differs is the envelope.
func BenchmarkSignedJobs(b *testing.B) {
	ours, bare := newBenchDatabase(b), newBenchDatabase(b)
	signed := signedSide(b, ours)
	alone := bareSide(b, bare)
	// What is measured once is warm: plans, connections, the pages of the tables.
	signed()
	alone()
	var s, a time.Duration
	n := 0
	for b.Loop() {
		s += signed()
		a += alone()
		n++
	}
	per := float64(benchJobs * n)
	b.ReportMetric(per/s.Seconds(), "jobs/s")
	b.ReportMetric(per/a.Seconds(), "bare-jobs/s")
}

func newBenchDatabase(b *testing.B) *pgxpool.Pool {
	b.Helper()
	db := pgtest.New(b)
	cfg, err := pgxpool.ParseConfig(db.URL)
	if err != nil {
		b.Fatal(err)
	}
	cfg.MaxConns = benchAtOnce + 8
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if err := postgres.Migrate(b.Context(), pool, schema); err != nil {
		b.Fatal(err)
	}
	return pool
}

// signedSide starts a worker and answers how long a turn takes.
func signedSide(b *testing.B, pool *pgxpool.Pool) func() time.Duration {
	b.Helper()
	p := queuetest.NewParties(b, id.NewTenant(), "dev")
	inserter, err := postgres.NewInserter(schema)
	if err != nil {
		b.Fatal(err)
	}
	var left queuetest.Turn
	worker, err := postgres.NewWorker(postgres.WorkerConfig{
		Pool: pool, Schema: schema, Name: "bench", Verifier: p.Verifier, Concurrency: benchAtOnce, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[string]queue.Handler{queuetest.Kind: func(_ context.Context, j queue.Job) error {
			defer left.Done()
			return j.Message.Decode(new(queuev1.SlicePayload))
		}},
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error { b.Error(l.Reason); return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	b.Cleanup(func() { stop(); <-ended })
	return func() time.Duration {
		return left.Take(b, benchJobs, benchAtOnce, func() error {
			workspace := id.NewWorkspace()
			m, err := p.Signer.Sign(&queuev1.SlicePayload{RunId: id.NewRun().String(), IntegrationId: id.NewIntegration().String(), Slice: 3,
				WorkspaceId: workspace.String(), TenantId: p.Tenant.String()}, workspace, queuetest.Kind, queue.BySchedule, time.Hour)
			if err != nil {
				return err
			}
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return inserter.InsertTx(ctx, tx, m, queue.InsertOpts{}) })
		})
	}
}

func bareSide(b *testing.B, pool *pgxpool.Pool) func() time.Duration {
	b.Helper()
	var left queuetest.Turn
	workers := river.NewWorkers()
	river.AddWorker(workers, &bareWorker{done: left.Done})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: schema, Workers: workers, PollOnly: true, FetchCooldown: 5 * time.Millisecond,
		FetchPollInterval: 500 * time.Millisecond, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: benchAtOnce}}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if err := client.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Stop(context.WithoutCancel(b.Context())) })
	tenant := id.NewTenant().String()
	once := &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: rivertype.JobStates()}}
	return func() time.Duration {
		return left.Take(b, benchJobs, benchAtOnce, func() error {
			args := bareArgs{Run: id.NewRun().String(), Integration: id.NewIntegration().String(), Slice: 3, Workspace: id.NewWorkspace().String(), Tenant: tenant}
			return pgx.BeginFunc(b.Context(), pool, func(tx pgx.Tx) error {
				_, err := client.InsertTx(b.Context(), tx, args, once)
				return err
			})
		})
	}
}
