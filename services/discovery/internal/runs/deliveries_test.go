package runs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
)

// Row Q29: a hundred jobs carry one message, and each is at its first attempt.
func TestOneMessageDeliveredAHundredTimesAtOnceHasOneEffect(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w := id.NewWorkspace()
	run := e.Start(t, w, id.NewIntegration())
	ctx := e.Job(t, run.GetId())
	const deliveries = 100
	records := people("a", "ann", "bob")
	deliver := func(attempt uint32) (worked, over int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for job := range int64(deliveries) {
			wg.Go(func() {
				begun, err := e.Runs.BeginSlice(ctx, attempt, job+1)
				mine := err == nil && !begun.GetDone()
				if mine {
					check(t, e.Put(ctx, attempt, records...))
					_, err = e.Runs.Seal(ctx, seal(len(records), true, "a"))
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case mine && err == nil:
					worked++
				case err == nil || fault.KindOf(err) == fault.Aborted:
					over++
				default:
					t.Errorf("delivery %d: %v", job, err)
				}
			})
		}
		wg.Wait()
		return worked, over
	}
	if worked, over := deliver(1); worked != 1 || over != deliveries-1 {
		t.Errorf("of %d deliveries %d worked on the slice and %d were told that it is over, want one", deliveries, worked, over)
	}
	if worked, _ := deliver(2); worked != 0 {
		t.Errorf("delivered again, %d worked on the slice", worked)
	}
	e.Publish(t, w, run.GetId())
	wantPublished(t, e, w, "ann", "bob")
	if n := e.Count(t, "SELECT count(*) FROM discovery.slices"); n != 1 {
		t.Errorf("%d slices were sealed, want one", n)
	}
	t.Attr("row", fmt.Sprintf("Q29 %d", 2*deliveries))
}

// Row F5: every message of two runs comes again, many times, in any order, while and after the later run goes on.
func TestMessagesDuplicatedAndReorderedChangeNothing(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	var late []context.Context // what was delivered once, and comes again
	read := func(s ...discoverytest.Slice) string {
		run := e.Start(t, w, i)
		for n, one := range s {
			ctx := e.Job(t, run.GetId())
			again(t, e, late)
			_, err := e.Runs.BeginSlice(ctx, 1, job)
			check(t, err)
			// The present one again, while it is worked on.
			if _, err := e.Runs.BeginSlice(ctx, 1, job+1); fault.KindOf(err) != fault.Aborted {
				t.Errorf("a slice that is worked on is begun by another job: %v", err)
			}
			again(t, e, late)
			check(t, e.Put(ctx, 1, one.Records...))
			_, err = e.Runs.Seal(ctx, seal(len(one.Records), n == len(s)-1, one.Completed...))
			check(t, err)
			late = append(late, ctx)
			again(t, e, late)
		}
		e.Publish(t, w, run.GetId())
		again(t, e, late)
		return run.GetId()
	}
	read(discoverytest.Slice{Records: people("a", "ann", "bob"), Completed: []string{"a"}}, discoverytest.Slice{Records: people("b", "cy"), Completed: []string{"b"}})
	wantPublished(t, e, w, "ann", "bob", "cy")
	// bob and cy are gone; nothing of the first run may bring them back.
	read(discoverytest.Slice{Records: people("a", "ann"), Completed: []string{"a"}}, discoverytest.Slice{Records: people("b", "dan"), Completed: []string{"b"}})
	wantPublished(t, e, w, "ann", "dan")
	before := history(t, e, w)
	again(t, e, late)
	if after := history(t, e, w); !slices.Equal(before, after) {
		t.Errorf("the history is %v, and was %v", after, before)
	}
	t.Attr("row", fmt.Sprintf("F5 %d", deliveries.Load()))
}

// deliveries counts what again delivered.
var deliveries atomic.Int64

// again delivers messages whose slices are over, shuffled and twice, as workers that came late and stage what they saw.
func again(t *testing.T, e *discoverytest.Env, late []context.Context) {
	t.Helper()
	for _, n := range append(rand.Perm(len(late)), rand.Perm(len(late))...) {
		deliveries.Add(1)
		if begun, err := e.Runs.BeginSlice(late[n], 1, job+1); err != nil || !begun.GetDone() {
			t.Errorf("a slice that is over can be begun again: %v", err)
		}
		if err := e.Put(late[n], 1, people("a", "bob", "eve")...); fault.KindOf(err) != fault.Aborted {
			t.Errorf("records of a slice that is over are staged: %v", err)
		}
		if _, err := e.Runs.Seal(late[n], seal(4, true, "a")); err != nil && fault.KindOf(err) != fault.Aborted {
			t.Errorf("a slice that is over is sealed again: %v", err)
		}
	}
}
