package postgres_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
)

// Row F6: a message that always fails is tried so often, each time after a longer pause, and then becomes a dead letter; the others
// don't notice.
func TestPoisonedMessageIsBoundedAndHarmsNoOther(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	const tries, others, first = 6, 100, 100 * time.Millisecond
	poison := p.Message(t)
	var mu sync.Mutex
	var at []time.Time
	done := map[id.Message]bool{}
	letters := make(chan queue.DeadLetter, 10)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, Backoff: queue.Backoff{First: first, Most: time.Minute},
		Handler: func(_ context.Context, j queue.Job) error {
			mu.Lock()
			defer mu.Unlock()
			if j.Message.ID() != poison.ID {
				done[j.Message.ID()] = true
				return nil
			}
			at = append(at, time.Now())
			if len(at)%2 == 0 {
				panic("poison")
			}
			return errors.New("poison")
		},
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error { letters <- l; return nil },
	})
	defer w.Stop()
	insert := db.insert(t)
	if err := insert(t.Context(), poison, queue.InsertOpts{MaxTries: tries}); err != nil {
		t.Fatal(err)
	}
	for range others {
		if err := insert(t.Context(), p.Message(t), queue.InsertOpts{}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the others are done", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(done) == others
	})
	l := <-letters
	if l.Verified == nil || l.Verified.ID() != poison.ID || !errors.Is(l.Err, queue.ErrGivenUp) || l.Attempt != tries {
		t.Errorf("dead letter is %+v", l)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(at) != tries {
		t.Errorf("it was tried %d times, want %d", len(at), tries)
	}
	for n := 1; n < len(at); n++ {
		// Half of the doubled pause is the least; River promotes what waits once in a while, so there is no upper bound to hold it to.
		if pause, least := at[n].Sub(at[n-1]), time.Duration(math.Pow(2, float64(n-1)))*first/2; pause < least {
			t.Errorf("try %d came %s after the one before, want %s or more", n+1, pause, least)
		}
	}
	t.Attr("row", fmt.Sprintf("F6 %d", tries))
}

// Row Q32: neither the row as it lies in the table nor the message in it makes a worker hold more than a bound.
func TestHostileSizesAreRefusedInBoundedMemory(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	good := p.Message(t)
	const depth = 10_000
	plant := func(args string) {
		t.Helper()
		if _, err := db.inserter.Exec(t.Context(), "insert into queue.river_job (kind, args, max_attempts, metadata) values ('a3os.message', $1::jsonb, 25, '{}')", args); err != nil {
			t.Fatal(err)
		}
	}
	envelope := func(raw []byte) string {
		return fmt.Sprintf(`{"key": %q, "envelope": %q, "payload": %q}`, id.NewMessage(), base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(good.Payload))
	}
	group := func(kind protowire.Type) []byte { return protowire.AppendTag(nil, 15, kind) }
	nested := append(bytes.Repeat(group(protowire.StartGroupType), depth), bytes.Repeat(group(protowire.EndGroupType), depth)...)
	claims := func(size uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), size)
	}
	rows := []string{
		envelope(nested), envelope(nested[:queue.MostEnvelope]), envelope(claims(100 << 20)), envelope(append(claims(100<<20), good.Envelope...)),
		envelope(claims(math.MaxInt64)), envelope(claims(math.MaxUint64)),
		`{"envelope": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, // PostgreSQL itself bounds how deep jsonb nests
		`{"envelope": ` + strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000) + `}`,
		`{"key": "` + strings.Repeat("k", 900<<10) + `"}`,
	}
	for _, r := range rows {
		plant(r)
	}
	letters := make(chan queue.DeadLetter, len(rows))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute,
		Handler:    func(context.Context, queue.Job) error { t.Error("it was worked on"); return nil },
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error { letters <- l; return nil },
	})
	defer w.Stop()
	for range rows {
		select {
		case l := <-letters:
			if !errors.Is(l.Err, queue.ErrMalformed) || l.Verified != nil {
				t.Errorf("dead letter is %.200v", l)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("a hostile row did not become a dead letter")
		}
	}
	runtime.ReadMemStats(&after)
	const bound = 64 << 20
	if grown := after.TotalAlloc - before.TotalAlloc; grown > bound {
		t.Errorf("the worker allocated %d MiB for %d hostile rows, want less than the 100 MB that one claimed", grown>>20, len(rows))
	} else {
		t.Logf("%d MiB allocated in all, the worker's own polling among it", grown>>20)
	}
	// More than a worker reads does not get in.
	for _, sql := range []string{
		`insert into queue.river_job (kind, args, max_attempts) values ('a3os.message', jsonb_build_object('envelope', repeat('A', 100 << 20)), 25)`,
		`insert into queue.river_job (kind, args, metadata, max_attempts) values ('a3os.message', '{}', jsonb_build_object('a', repeat('A', 100 << 20)), 25)`,
	} {
		if _, err := db.inserter.Exec(t.Context(), sql); err == nil {
			t.Error("a row of 100 MB is in the queue")
		}
	}
	t.Attr("row", fmt.Sprintf("Q32 %d", len(rows)+2))
}

// Who plants a row chooses River's own bound on attempts, and River deletes what reached it. Its letter is not lost for that.
func TestRowThatRiverGivesUpIsNotLostWithoutItsLetter(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	for _, sql := range []string{
		`insert into queue.river_job (kind, args, max_attempts) values ('stranger', '{}', 1)`,
		`insert into queue.river_job (kind, args, max_attempts) values ('a3os.message', '{"envelope": "AAAA"}', 1)`,
	} {
		if _, err := db.inserter.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	good := p.Message(t)
	if err := db.insert(t)(t.Context(), good, queue.InsertOpts{MaxTries: 1}); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "update queue.river_job set max_attempts = 1")
	const letters, refusals = 3, 2
	kept := make(chan int64, 10)
	var mu sync.Mutex
	offers, runs := map[int64]int{}, 0
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, Backoff: queue.Backoff{First: 10 * time.Millisecond, Most: 10 * time.Millisecond},
		Handler: func(context.Context, queue.Job) error {
			mu.Lock()
			defer mu.Unlock()
			runs++
			return errors.New("in vain")
		},
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error {
			mu.Lock()
			defer mu.Unlock()
			if offers[l.JobID]++; offers[l.JobID] <= refusals {
				return errors.New("discovery is down")
			}
			kept <- l.JobID
			return nil
		},
	})
	defer w.Stop()
	seen := map[int64]bool{}
	for range letters {
		select {
		case job := <-kept:
			seen[job] = true
		case <-time.After(30 * time.Second):
			t.Fatalf("kept are the letters of %v, want three", seen)
		}
	}
	await(t, "every job is over", func() bool {
		var left int
		if err := db.owner.QueryRow(t.Context(), "select count(*) from queue.river_job where state <> 'cancelled'").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	})
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != letters || runs > 1 {
		t.Errorf("letters of %v, and %d runs of the one that could be believed: want three, and one", seen, runs)
	}
}

func TestAttemptsGoOnFromAnEarlierJob(t *testing.T) {
	db := newDatabase(t)
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	m := p.Message(t)
	v, err := p.Verifier.Verify(m.Envelope, m.Payload)
	if err != nil {
		t.Fatal(err)
	}
	insert := db.insert(t)
	if err := insert(t.Context(), v.Message(), queue.InsertOpts{UniqueKey: "again", MaxTries: 2, AfterAttempt: 7}); err != nil {
		t.Fatal(err)
	}
	if err := insert(t.Context(), m, queue.InsertOpts{AfterAttempt: -1}); err == nil {
		t.Error("attempts go on from -1")
	}
	jobs, letters := make(chan queue.Job, 10), make(chan queue.DeadLetter, 1)
	w := startWorker(t, db, queuetest.WorkerConfig{
		Verifier: p.Verifier, Timeout: time.Minute, Backoff: queue.Backoff{First: time.Millisecond, Most: time.Millisecond},
		Handler:    func(_ context.Context, j queue.Job) error { jobs <- j; return errors.New("in vain") },
		DeadLetter: func(_ context.Context, l queue.DeadLetter) error { letters <- l; return nil },
	})
	defer w.Stop()
	if first, second, l := <-jobs, <-jobs, <-letters; first.Attempt != 8 || first.LastTry || second.Attempt != 9 || !second.LastTry || l.Attempt != 9 {
		t.Errorf("attempts %d and %d, the letter's %d: want 8, 9 and 9", first.Attempt, second.Attempt, l.Attempt)
	}
}
