package turns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// two are lanes of two tenants.
func two(t *testing.T, cfg Config) (turns *Turns, loud, quiet *Lane) {
	t.Helper()
	return New(cfg), &Lane{}, &Lane{}
}

// burst uses up what begins at once.
func burst(t *testing.T, turns *Turns, l *Lane, n int) {
	t.Helper()
	for range n {
		if waited, err := turns.Take(t.Context(), l, "192.0.2.1:1"); waited > 0 || err != nil {
			t.Fatalf("a call of the burst waited %s: %v", waited, err)
		}
	}
}

// order is in which calls began.
type order struct {
	mu    sync.Mutex
	calls sync.WaitGroup
	began []string
	errs  []error
}

func (o *order) take(ctx context.Context, turns *Turns, l *Lane, name, address string) {
	o.calls.Go(func() {
		_, err := turns.Take(ctx, l, address)
		o.mu.Lock()
		defer o.mu.Unlock()
		if err != nil {
			o.errs = append(o.errs, err)
			return
		}
		o.began = append(o.began, name)
	})
	synctest.Wait()
}

// sofar are those that began until now.
func (o *order) sofar() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.began)
}

func TestNeighbourOfAFloodBeginsAtOnceAndTheFloodEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, quiet := two(t, Config{Rate: 10, Burst: 2, Within: time.Minute, Waiting: 1000})
		burst(t, turns, loud, 2)
		var o order
		start := time.Now()
		const calls = 50
		for n := range calls {
			o.take(t.Context(), turns, loud, fmt.Sprint(n), "192.0.2.1:1")
		}
		burst(t, turns, quiet, 2)
		if since, began := time.Since(start), o.sofar(); since != 0 || len(began) != 0 {
			t.Errorf("the neighbour waited %s, %d calls of the flood began meanwhile", since, len(began))
		}
		for n := range calls {
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's clock
			synctest.Wait()
			if began := o.sofar(); len(began) != n+1 || began[n] != fmt.Sprint(n) {
				t.Fatalf("after %s %v of the flood had begun", time.Since(start), began)
			}
		}
		o.calls.Wait()
	})
}

func TestNeighboursAreThoseThatCameLately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Neighbours
		var one, other Neighbour
		comes := func(which string, who *Neighbour, want bool) {
			t.Helper()
			for range 3 {
				if got := n.Comes(who); got != want {
					t.Errorf("at %s, %s comes beside others: %t, want %t", time.Now().Format(time.TimeOnly), which, got, want)
				}
			}
		}
		comes("one", &one, false)
		comes("the other", &other, true)
		comes("one", &one, true)
		time.Sleep(lately) //nolint:forbidigo // the bubble's clock
		comes("one", &one, true)
		time.Sleep(lately) //nolint:forbidigo // the bubble's clock
		comes("one", &one, false)
		// Each comes in a period of its own.
		time.Sleep(lately) //nolint:forbidigo // the bubble's clock
		comes("the other", &other, true)
		time.Sleep(lately) //nolint:forbidigo // the bubble's clock
		comes("one", &one, true)
		time.Sleep(2 * lately) //nolint:forbidigo // the bubble's clock
		comes("one", &one, false)
	})
}

func TestSourceThatFloodsKeepsTheTenantsOthersWaitingForOneTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, _ := two(t, Config{Rate: 10, Burst: 1, Within: time.Minute, Waiting: 30})
		burst(t, turns, loud, 1)
		var o order
		o.take(t.Context(), turns, loud, "a0", "192.0.2.1:1")
		for n := range 29 {
			// A host of version 6 has a whole network of addresses.
			o.take(t.Context(), turns, loud, fmt.Sprint("flood", n), fmt.Sprintf("[2001:db8::%x]:443", n))
		}
		o.take(t.Context(), turns, loud, "a1", "192.0.2.1:2")
		o.take(t.Context(), turns, loud, "b0", "192.0.2.2:1")
		o.take(t.Context(), turns, loud, "b1", "192.0.2.2:2")
		o.calls.Wait()
		if want := []string{"a0", "flood0", "b0", "a1", "flood1", "b1", "flood2"}; !slices.Equal(o.began[:len(want)], want) {
			t.Errorf("calls began as %v, want %v first", o.began, want)
		}
		// There was room for 30, and of 33 those that were refused are the flood's newest.
		if len(o.errs) != 3 || !errors.Is(errors.Join(o.errs...), ErrCrowded) || len(o.began) != 30 || o.began[29] != "flood25" {
			t.Errorf("%v were refused and %v began, want three of the flood crowded out, after flood25", o.errs, o.began)
		}
	})
}

func TestCallThatGoesAwayTakesNobodysTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, _ := two(t, Config{Rate: 10, Burst: 1, Within: time.Minute, Waiting: 10})
		burst(t, turns, loud, 1)
		var o order
		for n := range 3 {
			ctx, leave := context.WithCancel(t.Context())
			o.take(ctx, turns, loud, fmt.Sprint("leaves", n), "192.0.2.1:1")
			leave()
		}
		o.take(t.Context(), turns, loud, "stays", "192.0.2.1:1")
		start := time.Now()
		o.calls.Wait()
		if !slices.Equal(o.began, []string{"stays"}) || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%v began after %s, want stays at the next turn", o.began, time.Since(start))
		}
		for _, err := range o.errs {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a call that left learnt %v", err)
			}
		}
		// A turn that comes while a call leaves is the next one's.
		leaves, stays := loud.enter(turns, "192.0.2.1:1"), loud.enter(turns, "192.0.2.1:1")
		loud.begin()
		loud.leave(leaves)
		select {
		case err := <-stays.turn:
			if err != nil {
				t.Errorf("the next one learnt %v", err)
			}
		default:
			t.Error("a turn was lost with the call that left")
		}
		// So is nobody's, where one leaves that was refused.
		crowded := loud.enter(turns, "192.0.2.1:1")
		loud.mu.Lock()
		loud.queue.shed().turn <- ErrCrowded
		loud.mu.Unlock()
		waits := loud.enter(turns, "192.0.2.1:1")
		loud.leave(crowded)
		select {
		case <-waits.turn:
			t.Error("a refusal was taken for a turn")
		default:
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		if err := <-waits.turn; err != nil {
			t.Errorf("the last one learnt %v", err)
		}
	})
}

func TestNoCallWaitsWithoutABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, _ := two(t, Config{Rate: 10, Burst: 1, Within: time.Second, Waiting: 1000})
		burst(t, turns, loud, 1)
		var o order
		// Sources that come anew all the time are each in turn before the second call of one that waits.
		for n := range 10 {
			o.take(t.Context(), turns, loud, "old", "192.0.2.1:1")
			o.take(t.Context(), turns, loud, "new", fmt.Sprintf("198.51.100.%d:1", n))
		}
		start := time.Now()
		o.calls.Wait()
		if waited := time.Since(start); waited > time.Second || len(o.began)+len(o.errs) != 20 || len(o.errs) == 0 {
			t.Errorf("calls waited %s, %d began and %d were refused", waited, len(o.began), len(o.errs))
		}
	})
}
