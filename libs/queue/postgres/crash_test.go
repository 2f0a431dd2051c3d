package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/id"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/postgres"
	"a3os.app/libs/queue/queuetest"
)

// TestMain lets this test binary be a worker in a process of its own, for the tests that kill one.
func TestMain(m *testing.M) {
	if url := os.Getenv("QUEUE_TEST_WORKER"); url != "" {
		if err := workerProcess(url, os.Getenv("QUEUE_TEST_TENANT"), os.Getenv("QUEUE_TEST_KEY")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// workerProcess prints a line per delivery and never finishes one.
func workerProcess(url, tenant, key string) error {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	tenantID, err := id.ParseTenant(tenant)
	if err != nil {
		return err
	}
	keys, err := queue.ParseVerifyingKeys(key)
	if err != nil {
		return err
	}
	verifier, err := queue.NewVerifier(queue.VerifierConfig{Keys: keys, Plane: "dev", Tenant: tenantID, Issuer: "discovery"})
	if err != nil {
		return err
	}
	worker, err := postgres.NewWorker(postgres.WorkerConfig{
		Pool: pool, Schema: schema, Name: "doomed", Verifier: verifier, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[string]queue.Handler{queuetest.Kind: func(ctx context.Context, job queue.Job) error {
			fmt.Fprintln(os.Stdout, "attempt", job.Attempt)
			<-ctx.Done()
			return ctx.Err()
		}},
		DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
	})
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}

// startProcess starts a worker process and waits until it has begun a job. The answer is that job's line, and the kill.
func startProcess(t *testing.T, db database, p queuetest.Parties) (line string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{"QUEUE_TEST_WORKER=" + db.workerURL, "QUEUE_TEST_TENANT=" + p.Tenant.String(), "QUEUE_TEST_KEY=" + p.Key.Public().String()}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the worker began nothing: %v", lines.Err())
	}
	return lines.Text(), func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
}

func TestJobOfAKilledProcessIsBackWithinSeconds(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	if err := db.insert(t)(t.Context(), p.Message(t), queue.InsertOpts{}); err != nil {
		t.Fatal(err)
	}

	t.Run("when it is started again", func(t *testing.T) {
		for want := range 3 {
			line, kill := startProcess(t, db, p)
			if line != fmt.Sprint("attempt ", want+1) {
				t.Errorf("begins with %q", line)
			}
			kill()
		}
	})

	t.Run("by one that runs already", func(t *testing.T) {
		line, kill := startProcess(t, db, p)
		if line != "attempt 4" {
			t.Errorf("begins with %q", line)
		}
		jobs := make(chan queue.Job, 10)
		w := startWorker(t, db, queuetest.WorkerConfig{
			Verifier: p.Verifier, Timeout: time.Minute,
			Handler:    func(_ context.Context, j queue.Job) error { jobs <- j; return nil },
			DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
		})
		defer w.Stop()
		// While the process lives its job is its own, however often the other looks.
		sweeps := sweepsOf(t, db)
		await(t, "the second worker has looked twice", func() bool { return sweepsOf(t, db) != sweeps })
		sweeps = sweepsOf(t, db)
		await(t, "the second worker has looked again", func() bool { return sweepsOf(t, db) != sweeps })
		if len(jobs) > 0 {
			t.Fatal("the job of a living process was taken away")
		}
		kill()
		start := time.Now()
		select {
		case j := <-jobs:
			if j.Attempt != 5 {
				t.Errorf("attempt %d", j.Attempt)
			}
			t.Logf("%s after the kill", time.Since(start).Round(time.Millisecond))
		case <-time.After(10 * time.Second):
			t.Error("it was not back within 10 s")
		}
	})
}

// sweepsOf tells when workers last looked for jobs of the dead.
func sweepsOf(t *testing.T, db database) string {
	t.Helper()
	var at string
	if err := db.owner.QueryRow(t.Context(), "select coalesce(string_agg(query_start::text, ' ' order by pid), '') from pg_stat_activity where usename = $1 and query like '%holders%' and application_name like 'worker-%'",
		db.RoleName(db.workerURL)).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWorkerOutlivesARestartOfPostgreSQL(t *testing.T) {
	server := pgtest.Server(t, 15)
	url, err := server.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := postgres.Migrate(t.Context(), pool, schema); err != nil {
		t.Fatal(err)
	}
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	inserter, err := postgres.NewInserter(schema)
	if err != nil {
		t.Fatal(err)
	}
	insert := func(m queue.Message) error {
		return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return inserter.InsertTx(t.Context(), tx, m, queue.InsertOpts{}) })
	}

	jobs := make(chan queue.Job, 10)
	release := make(chan struct{})
	workerPool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := postgres.NewWorker(postgres.WorkerConfig{
		Pool: workerPool, Schema: schema, Name: "worker", Verifier: p.Verifier, Logger: slog.New(slog.DiscardHandler),
		Handlers: map[string]queue.Handler{queuetest.Kind: func(_ context.Context, j queue.Job) error {
			jobs <- j
			<-release
			return nil
		}},
		DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		workerPool.Close()
	}()

	first, second := p.Message(t), p.Message(t)
	if err := insert(first); err != nil {
		t.Fatal(err)
	}
	<-jobs
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(release)
	await(t, "a message can be enqueued again", func() bool { return insert(second) == nil })
	select {
	case j := <-jobs:
		if j.Message.ID() != second.ID {
			t.Errorf("message %s, attempt %d", j.Message.ID(), j.Attempt)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("nothing is worked on after the restart")
	}
	await(t, "both are done, and the worker is known to live again", func() bool {
		var done, locks int
		err := pool.QueryRow(t.Context(), `select (select count(*) from queue.river_job where state = 'completed'), (select count(*) from pg_locks where locktype = 'advisory')`).Scan(&done, &locks)
		return err == nil && done == 2 && locks == 1
	})
}

func TestDeadLettersAndErrorsFitTheirColumns(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	if err := db.insert(t)(t.Context(), p.Message(t), queue.InsertOpts{MaxTries: 2}); err != nil {
		t.Fatal(err)
	}
	letters := make(chan queue.DeadLetter, 1)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, Backoff: queue.Backoff{First: time.Millisecond, Most: time.Millisecond},
		Handler:    func(context.Context, queue.Job) error { return fmt.Errorf("%s", strings.Repeat("ä", 100_000)) },
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error { letters <- l; return nil },
	})
	defer w.Stop()
	if l := <-letters; len(l.Reason) > 1000 || !strings.HasPrefix(l.Reason, "äää") || strings.ToValidUTF8(l.Reason, "") != l.Reason {
		t.Errorf("the reason has %d bytes", len(l.Reason))
	}
	var most int
	if err := db.owner.QueryRow(t.Context(), "select max(length(errors::text)) from queue.river_job").Scan(&most); err != nil || most > 4000 {
		t.Errorf("errors have %d bytes, %v", most, err)
	}
}
