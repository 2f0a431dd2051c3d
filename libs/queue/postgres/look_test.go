package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/postgres"
	"a3os.app/libs/queue/queuetest"
)

// A look for work goes on where the last one found something. What is due since longer, as what is tried again or was committed late, and what
// has another priority, is found all the same, also while newer jobs never end.
func TestJobsDueBeforeThoseFoundAreFound(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	var mu sync.Mutex
	late, done := map[id.Message]bool{}, 0
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, DeadLetter: func(context.Context, queue.DeadLetter) error { return nil },
		Handler: func(_ context.Context, j queue.Job) error {
			mu.Lock()
			defer mu.Unlock()
			delete(late, j.Message.ID())
			done++
			return nil
		},
	})
	defer w.Stop()
	left := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return len(late), done
	}
	insert, began := db.insert(t), time.Now()
	next := func() {
		if err := insert(t.Context(), p.Message(t), queue.InsertOpts{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
		if time.Since(began) > time.Minute {
			n, of := left()
			t.Fatalf("%d jobs are not found, while %d were done", n, of)
		}
	}
	for _, n := left(); n == 0; _, n = left() {
		next()
	}
	inserter, err := postgres.NewInserter(schema)
	if err != nil {
		t.Fatal(err)
	}
	const many = 20
	mu.Lock()
	err = pgx.BeginFunc(t.Context(), db.owner, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "create temporary table before on commit drop as select id from queue.river_job"); err != nil {
			return err
		}
		for range many {
			m := p.Message(t)
			late[m.ID] = true
			if err := inserter.InsertTx(t.Context(), tx, m, queue.InsertOpts{}); err != nil {
				return err
			}
		}
		_, err := tx.Exec(t.Context(), `update queue.river_job set scheduled_at = now() - interval '1 hour', priority = 1 + 2 * (id % 2)
			where id not in (select id from before)`)
		return err
	})
	mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for n, _ := left(); n > 0; n, _ = left() {
		next()
	}
}
