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
	"golang.org/x/sync/errgroup"

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

// Row F12: an old transaction keeps PostgreSQL from forgetting the versions of rows that are done, and each look for work passes them. A queue
// without any, offered the same at the same time, tells what the machine has time for.
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
	db, young := newDatabase(t), newDatabase(t)
	old, err := db.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := old.Exec(t.Context(), "set transaction isolation level repeatable read; select count(*) from queue.river_job"); err != nil {
		t.Fatal(err)
	}
	ageBy(t, db, made)

	var of, beside flow
	g, ctx := errgroup.WithContext(t.Context())
	for f, d := range map[*flow]database{&of: db, &beside: young} {
		f.start(t, d)
		g.Go(func() error { return f.offer(ctx, t, offer) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]*flow{fmt.Sprintf("with %d old versions", 2*made): &of, "beside it, with none": &beside} {
		if len(f.waits) == 0 {
			t.Fatalf("%s, nothing was worked on", what)
		}
		t.Logf("%s, of %d jobs offered in %s %d were done; half waited up to %s, 99 of 100 up to %s", what, f.offered, offer, len(f.waits),
			f.waited(50).Round(time.Millisecond), f.waited(99).Round(time.Millisecond))
	}
	if want := 0.9 * float64(min(beside.offered, len(beside.waits))); float64(len(of.waits)) < want {
		t.Errorf("%d jobs were done, want %.0f: 90 %% of what is done where no transaction is old", len(of.waits), want)
	}
	if bound := max(waitBound, 2*beside.waited(99)); of.waited(99) > bound {
		t.Errorf("99 of 100 jobs waited up to %s, want %s", of.waited(99), bound)
	}
	t.Attr("row", fmt.Sprintf("F12 %d", len(of.waits)))
}

// flow is jobs that are offered to a queue evenly, and worked on meanwhile.
type flow struct {
	parties queuetest.Parties
	insert  func(context.Context, queue.Message, queue.InsertOpts) error

	mu       sync.Mutex
	enqueued map[id.Message]time.Time
	begun    []time.Duration

	// offered is how many were, less those of the last poll: they wait for the next one, however fast the worker is.
	offered int
	// waits is how long each waited that was begun while jobs were offered, sorted.
	waits []time.Duration
}

func (f *flow) start(t *testing.T, db database) {
	f.parties, f.enqueued, f.insert = queuetest.NewParties(t, id.NewTenant(), "dev"), map[id.Message]time.Time{}, db.insert(t)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: f.parties.Verifier, Timeout: time.Minute, DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
		Handler: func(_ context.Context, j queue.Job) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.begun = append(f.begun, time.Since(f.enqueued[j.Message.ID()]))
			return nil
		},
	})
	t.Cleanup(w.Stop)
}

func (f *flow) offer(ctx context.Context, t *testing.T, lasts time.Duration) error {
	began, n := time.Now(), 0
	tick := time.NewTicker(time.Second / offered)
	defer tick.Stop()
	for time.Since(began) < lasts {
		<-tick.C
		// A ticker drops what a slow insert missed: what is offered is by the clock.
		for ; n < int(time.Since(began)/(time.Second/offered)); n++ {
			m := f.parties.Message(t)
			f.mu.Lock()
			f.enqueued[m.ID] = time.Now()
			f.mu.Unlock()
			if err := f.insert(ctx, m, queue.InsertOpts{}); err != nil {
				return err
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered, f.waits = n-int(pollEvery.Seconds()*offered), slices.Sorted(slices.Values(f.begun))
	return nil
}

// waited is how long so many of a hundred waited at most.
func (f *flow) waited(ofHundred int) time.Duration { return f.waits[len(f.waits)*ofHundred/100] }

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
