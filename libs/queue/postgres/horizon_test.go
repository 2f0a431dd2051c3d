package postgres_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
)

// envHorizon is for how long the old transaction is really held: 10m is the row's own time. Without it the versions that ten minutes
// leave behind are made at once, and jobs are offered for seconds.
const envHorizon = "A3_HORIZON_FOR"

const (
	offered = 50 // jobs/s
	// waitBound is how long 99 of 100 jobs may wait; a worker polls every half second.
	waitBound = 3 * time.Second
	pollEvery = 500 * time.Millisecond
)

// Row F12: an old transaction keeps PostgreSQL from forgetting the versions of rows that are done, and each look for work passes them.
func TestOldTransactionDoesNotSlowTheQueue(t *testing.T) {
	offer, made := 8*time.Second, int(10*time.Minute/time.Second)*offered
	if s := os.Getenv(envHorizon); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("%s: %v", envHorizon, err)
		}
		offer, made = d, 0
	} else if testing.Short() {
		t.Skip("an old transaction that holds the horizon is not tested with -short: it takes 20 s")
	}
	db := newDatabase(t)
	old, err := db.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := old.Exec(t.Context(), "set transaction isolation level repeatable read; select count(*) from queue.river_job"); err != nil {
		t.Fatal(err)
	}
	ageBy(t, db, made)

	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	var mu sync.Mutex
	enqueued, waits := map[id.Message]time.Time{}, []time.Duration(nil)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
		Handler: func(_ context.Context, j queue.Job) error {
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, time.Since(enqueued[j.Message.ID()]))
			return nil
		},
	})
	defer w.Stop()
	insert := db.insert(t)
	began, n := time.Now(), 0
	tick := time.NewTicker(time.Second / offered)
	defer tick.Stop()
	for time.Since(began) < offer {
		<-tick.C
		// A ticker drops what a slow insert missed: what is offered is by the clock.
		for ; n < int(time.Since(began)/(time.Second/offered)); n++ {
			m := p.Message(t)
			mu.Lock()
			enqueued[m.ID] = time.Now()
			mu.Unlock()
			if err := insert(t.Context(), m, queue.InsertOpts{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	mu.Lock()
	done, seen := len(waits), slices.Sorted(slices.Values(waits))
	mu.Unlock()
	if done == 0 {
		t.Fatal("nothing was worked on")
	}
	// What was offered within the last poll waits for the next one, however fast the worker is.
	n -= int(pollEvery.Seconds() * offered)
	p99 := seen[len(seen)*99/100]
	t.Logf("with %d old versions, of %d jobs offered in %s %d were done (%.0f %%); half waited up to %s, 99 of 100 up to %s",
		2*made, n, offer, done, 100*float64(done)/float64(n), seen[len(seen)/2].Round(time.Millisecond), p99.Round(time.Millisecond))
	if float64(done) < 0.9*float64(n) {
		t.Errorf("of %d jobs offered, %d were done: want 90 %%", n, done)
	}
	if p99 > waitBound {
		t.Errorf("99 of 100 jobs waited up to %s, want %s", p99, waitBound)
	}
	t.Attr("row", fmt.Sprintf("F12 %d", done))
}

// ageBy leaves behind the versions of so many jobs that were enqueued, taken and done one after the other.
func ageBy(t *testing.T, db database, jobs int) {
	t.Helper()
	if jobs == 0 {
		return
	}
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	m := p.Message(t)
	_, err := db.owner.Exec(t.Context(), `insert into queue.river_job (kind, args, max_attempts, metadata, scheduled_at, created_at)
		select 'a3os.message', jsonb_build_object('key', n::text, 'envelope', encode($1, 'base64'), 'payload', encode($2, 'base64')), 25, '{}', at, at
		from generate_series(1, $3) n, lateral (select now() - interval '1 second' * (20 + ($3 - n) / 50.0)) v (at)`, m.Envelope, m.Payload, jobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"update queue.river_job set state = 'running', attempt = 1, attempted_at = now(), attempted_by = '{gone}'",
		"update queue.river_job set state = 'completed', finalized_at = now()",
	} {
		if err := pgx.BeginFunc(t.Context(), db.owner, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
