package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/id"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/postgres"
	"a3os.app/libs/queue/queuetest"
)

const schema = "queue"

// gone are the pools of killed workers, by application name.
var gone sync.Map

// database is a queue with its two roles.
type database struct {
	*pgtest.Database
	owner                  *pgxpool.Pool
	inserterURL, workerURL string
	inserter               *pgxpool.Pool
}

func newDatabase(t *testing.T) database {
	t.Helper()
	db := database{Database: pgtest.New(t)}
	db.owner = db.Pool(t)
	if err := postgres.Migrate(t.Context(), db.owner, schema); err != nil {
		t.Fatal(err)
	}
	db.inserterURL, db.workerURL = db.Role(t, "discovery"), db.Role(t, "worker")
	db.Exec(t, postgres.GrantsSQL(schema, db.RoleName(db.workerURL), db.RoleName(db.inserterURL)))
	db.inserter = db.PoolAs(t, db.inserterURL)
	return db
}

func (db database) insert(t *testing.T) func(ctx context.Context, m queue.Message, opts queue.InsertOpts) error {
	t.Helper()
	inserter, err := postgres.NewInserter(schema)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, m queue.Message, opts queue.InsertOpts) error {
		return pgx.BeginFunc(ctx, db.inserter, func(tx pgx.Tx) error { return inserter.InsertTx(ctx, tx, m, opts) })
	}
}

var errRollBack = errors.New("roll back")

func open(t *testing.T) queuetest.Queue {
	db := newDatabase(t)
	insert := db.insert(t)
	return queuetest.Queue{
		Insert: insert,
		InsertAndRollBack: func(ctx context.Context, m queue.Message) error {
			inserter, err := postgres.NewInserter(schema)
			if err != nil {
				return err
			}
			err = pgx.BeginFunc(ctx, db.inserter, func(tx pgx.Tx) error {
				return errors.Join(inserter.InsertTx(ctx, tx, m, queue.InsertOpts{}), errRollBack)
			})
			if errors.Is(err, errRollBack) {
				return nil
			}
			return errors.Join(errors.New("it was not rolled back"), err)
		},
		Plant: func(ctx context.Context, envelope, payload []byte) error {
			_, err := db.inserter.Exec(ctx, `insert into queue.river_job (kind, args, max_attempts, metadata)
				values ('a3os.message', jsonb_build_object('key', $1::text, 'envelope', encode($2, 'base64'), 'payload', encode($3, 'base64')), 25, '{}')`,
				id.NewMessage().String(), envelope, payload)
			return err
		},
		Work: func(t *testing.T, cfg queuetest.WorkerConfig) queuetest.Worker {
			t.Helper()
			return startWorker(t, db, cfg)
		},
	}
}

// startWorker runs a worker in this process, with a pool of its own.
func startWorker(t *testing.T, db database, cfg queuetest.WorkerConfig) queuetest.Worker {
	t.Helper()
	pool := poolOf(t, db.workerURL)
	worker, err := postgres.NewWorker(postgres.WorkerConfig{
		Pool: pool, Schema: schema, Name: "worker", Verifier: cfg.Verifier, Handlers: map[string]queue.Handler{queuetest.Kind: cfg.Handler},
		DeadLetter: cfg.DeadLetter, Timeout: cfg.Timeout, Backoff: cfg.Backoff, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	return queuetest.Worker{
		Stop: func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the worker ended with: %v", err)
			}
			pool.Close()
		},
		// The process lives on here, so its connections are cut and refused in place of being lost with it.
		Kill: func() {
			name := pool.Config().ConnConfig.RuntimeParams["application_name"]
			gone.Store(name, true)
			db.Exec(t, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = '`+name+`'`)
			cancel()
		},
	}
}

func poolOf(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	name := "worker-" + id.NewMessage().String()
	cfg.ConnConfig.RuntimeParams["application_name"] = name
	cfg.MaxConns, cfg.MinConns = 4, 0
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if _, dead := gone.Load(name); dead {
			return errors.New("this worker was killed")
		}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func TestPostgres(t *testing.T) { queuetest.Run(t, open) }

func TestRolesCanDoTheirPartAndNoMore(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	if err := db.insert(t)(t.Context(), p.Message(t), queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}
	worker, stranger := db.PoolAs(t, db.workerURL), db.PoolAs(t, db.Role(t, "stranger"))
	for _, tc := range []struct {
		who  string
		pool *pgxpool.Pool
		sql  string
	}{
		{"inserter", db.inserter, "delete from queue.river_job"},
		{"inserter", db.inserter, "update queue.river_job set args = '{}'"},
		{"inserter", db.inserter, "update queue.river_job set state = 'completed', finalized_at = now()"},
		{"inserter", db.inserter, "truncate queue.river_job"},
		{"inserter", db.inserter, "select * from queue.river_leader"},
		{"inserter", db.inserter, "select * from queue.river_queue"},
		{"inserter", db.inserter, "select * from queue.river_migration"},
		{"inserter", db.inserter, "create table queue.t ()"},
		{"inserter", db.inserter, "select setval('queue.river_job_id_seq', 1)"},
		{"worker", worker, "insert into queue.river_job (kind) values ('x')"},
		{"worker", worker, "truncate queue.river_job"},
		{"worker", worker, "alter table queue.river_job drop constraint a3_args_bounded"},
		{"worker", worker, "create table queue.t ()"},
		{"worker", worker, "update queue.river_migration set version = 1"},
		{"stranger", stranger, "select * from queue.river_job"},
		{"stranger", stranger, "insert into queue.river_job (kind) values ('x')"},
		{"stranger", stranger, "select 'available'::queue.river_job_state"},
	} {
		_, err := tc.pool.Exec(t.Context(), tc.sql)
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || pgErr.Code != "42501" {
			t.Errorf("%s: %s: %v", tc.who, tc.sql, err)
		}
	}
	// Run again, both change nothing.
	if err := postgres.Migrate(t.Context(), db.owner, schema); err != nil {
		t.Error(err)
	}
	db.Exec(t, postgres.GrantsSQL(schema, db.RoleName(db.workerURL), db.RoleName(db.inserterURL)))
}

func TestRowsThatAreNoMessageBecomeDeadLettersInBoundedMemory(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	_, err := db.inserter.Exec(t.Context(), `insert into queue.river_job (kind, args) values ('a3os.message', jsonb_build_object('envelope', repeat('A', 100 << 20)))`)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.ConstraintName != "a3_args_bounded" {
		t.Errorf("a row of 100 MB: %v", err)
	}
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	rows := map[string]string{
		"another kind": `insert into queue.river_job (kind, args) values ('stranger', '{}')`,
		"no object":    `insert into queue.river_job (kind, args) values ('a3os.message', '[]')`,
		"a number":     `insert into queue.river_job (kind, args) values ('a3os.message', '7')`,
		"null":         `insert into queue.river_job (kind, args) values ('a3os.message', 'null')`,
		"empty":        `insert into queue.river_job (kind, args) values ('a3os.message', '{}')`,
		"wrong types":  `insert into queue.river_job (kind, args) values ('a3os.message', '{"key": 1, "envelope": {"a": 1}}')`,
		"more fields":  `insert into queue.river_job (kind, args) values ('a3os.message', '{"key": "k", "more": 1}')`,
		"no base64":    `insert into queue.river_job (kind, args) values ('a3os.message', '{"envelope": "?"}')`,
		"bad metadata": `insert into queue.river_job (kind, args, metadata) values ('a3os.message', '{}', '{"a3_tries": -5, "a3_uncounted": "x"}')`,
		"deep":         `insert into queue.river_job (kind, args) values ('a3os.message', '{"envelope": ` + deep + `}')`,
		"almost 1 MiB": `insert into queue.river_job (kind, args) values ('a3os.message', jsonb_build_object('envelope', repeat('A', 1000 << 10)))`,
	}
	for name, sql := range rows {
		if _, err := db.inserter.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	letters := make(chan queue.DeadLetter, 100)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, Backoff: queue.Backoff{First: 10 * time.Millisecond, Most: 10 * time.Millisecond},
		Handler: func(context.Context, queue.Job) error { return nil },
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error {
			letters <- l
			return nil
		},
	})
	defer w.Stop()
	for range rows {
		select {
		case l := <-letters:
			if !errors.Is(l.Err, queue.ErrMalformed) || l.Attempt != 1 || l.Verified != nil {
				t.Errorf("dead letter is %.200v", l)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("a row that is no message did not become a dead letter")
		}
	}
	await(t, "every job is over", func() bool {
		var left int
		if err := db.owner.QueryRow(t.Context(), "select count(*) from queue.river_job where state <> 'cancelled'").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
}

func TestIdleWorkerHoldsFewConnections(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	arrived := make(chan queue.Job, 1)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute,
		Handler:    func(_ context.Context, j queue.Job) error { arrived <- j; return nil },
		DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
	})
	defer w.Stop()
	if err := db.insert(t)(t.Context(), p.Message(t), queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}
	<-arrived
	var n, listening int
	if err := db.owner.QueryRow(t.Context(), "select count(*), count(*) filter (where query ilike 'listen%') from pg_stat_activity where usename = $1", db.RoleName(db.workerURL)).Scan(&n, &listening); err != nil {
		t.Fatal(err)
	}
	if n > 3 || listening > 0 {
		t.Errorf("%d connections, %d of them listen", n, listening)
	}
	t.Logf("%d connections", n)
}

// await polls what only the database can tell.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	end := time.NewTimer(30 * time.Second)
	defer end.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-end.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
