package supervise

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever saw the last turn hears of the next one when it comes, and not before; whoever saw an earlier one, or none, hears at once. When there
// are no more turns nobody waits.
func TestTurnIsHeardOfWhenItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns turns
		began := time.Now()
		first := turns.await(t.Context(), "")
		heard := make(chan string)
		for range 3 {
			go func() { heard <- turns.await(t.Context(), first) }()
		}
		const later = 300 * time.Millisecond
		time.AfterFunc(later, turns.next)
		for range 3 {
			if turn := <-heard; turn == first || time.Since(began) != later {
				t.Fatalf("after %s it is turn %s, and it was %s", time.Since(began), turn, first)
			}
		}
		if turn := turns.await(t.Context(), first); turn == first || time.Since(began) != later {
			t.Errorf("whoever saw turn %s was told of turn %s after %s", first, turn, time.Since(began))
		}
		now := turns.await(t.Context(), "")
		if turns.await(t.Context(), now); time.Since(began) != later+turnWithin {
			t.Errorf("without another turn an answer came after %s", time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		turns.await(gone, now)
		turns.end()
		turns.await(t.Context(), turns.await(t.Context(), ""))
		if time.Since(began) != later+turnWithin {
			t.Errorf("whoever is gone, or has nothing to wait for, waited until %s", time.Since(began))
		}
	})
}
