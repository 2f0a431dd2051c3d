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

// two are lanes of two tenants that both call.
func two(t *testing.T, cfg Config) (turns *Turns, loud, quiet *Lane) {
	t.Helper()
	turns, loud, quiet = New(cfg), &Lane{}, &Lane{}
	for _, l := range []*Lane{loud, quiet} {
		turns.note(l)
	}
	return turns, loud, quiet
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
		if since := time.Since(start); since != 0 || len(o.began) != 0 {
			t.Errorf("the neighbour waited %s, %d calls of the flood began meanwhile", since, len(o.began))
		}
		for n := range calls {
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's clock
			synctest.Wait()
			if len(o.began) != n+1 || o.began[n] != fmt.Sprint(n) {
				t.Fatalf("after %s %v of the flood had begun", time.Since(start), o.began)
			}
		}
		o.calls.Wait()
	})
}

func TestAloneNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, lane, other := New(Config{Rate: 1, Burst: 1, Within: time.Minute, Waiting: 10}), &Lane{}, &Lane{}
		burst(t, turns, lane, 100)
		// A neighbour that calls now and then is one.
		burst(t, turns, other, 1)
		time.Sleep(lately) //nolint:forbidigo // the bubble's clock
		burst(t, turns, lane, 1)
		if waited, err := turns.Take(t.Context(), lane, "192.0.2.1:1"); waited != time.Second || err != nil {
			t.Errorf("beside a neighbour that called within a minute, the second call waited %s: %v", waited, err)
		}
		time.Sleep(2 * lately) //nolint:forbidigo // the bubble's clock
		burst(t, turns, lane, 100)
	})
}

func TestSourceThatFloodsKeepsTheTenantsOthersWaitingForOneTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, _ := two(t, Config{Rate: 10, Burst: 1, Within: time.Minute, Waiting: 30})
		burst(t, turns, loud, 1)
		var o order
		for n := range 30 {
			// A host of version 6 has a whole network of addresses.
			o.take(t.Context(), turns, loud, "flood", fmt.Sprintf("[2001:db8::%x]:443", n))
		}
		o.take(t.Context(), turns, loud, "a", "192.0.2.1:1")
		o.take(t.Context(), turns, loud, "b", "192.0.2.2:1")
		o.take(t.Context(), turns, loud, "a", "192.0.2.1:2")
		o.calls.Wait()
		if want := []string{"flood", "a", "b", "flood", "a", "flood"}; !slices.Equal(o.began[:6], want) {
			t.Errorf("calls began as %v, want %v first", o.began, want)
		}
		// There was room for 30, and of 33 those that were refused are the flood's.
		flooded := slices.DeleteFunc(slices.Clone(o.began), func(s string) bool { return s != "flood" })
		if len(o.errs) != 3 || !errors.Is(errors.Join(o.errs...), ErrCrowded) || len(flooded) != 27 {
			t.Errorf("%d calls of the flood began and %v were refused, want 27 and three crowded out", len(flooded), o.errs)
		}
	})
}

func TestCallThatGoesAwayTakesNobodysTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, loud, _ := two(t, Config{Rate: 10, Burst: 1, Within: time.Minute, Waiting: 1000})
		burst(t, turns, loud, 1)
		var o order
		start := time.Now()
		const calls = 60
		for n := range calls {
			ctx, cancel := context.WithCancel(t.Context())
			switch n % 3 {
			case 0:
				defer cancel()
			case 1:
				cancel() // before it came
			default:
				// At the very moment at which a turn is given.
				time.AfterFunc(time.Duration(1+n%7)*100*time.Millisecond, cancel)
			}
			o.take(ctx, turns, loud, fmt.Sprint(n), "192.0.2.1:1")
		}
		o.calls.Wait()
		if len(o.began)+len(o.errs) != calls || len(o.began) < calls/3 {
			t.Errorf("of %d calls %d began and %d gave up", calls, len(o.began), len(o.errs))
		}
		// A turn that nobody was there for is not paid for by those who were.
		if most := time.Duration(len(o.began)+1) * 100 * time.Millisecond; time.Since(start) > most {
			t.Errorf("%d calls took %s, want at most %s", len(o.began), time.Since(start), most)
		}
		burst(t, turns, loud, 0)
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock
		burst(t, turns, loud, 1)
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
