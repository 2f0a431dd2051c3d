package supervise

import (
	"context"
	"strconv"
	"sync"
	"time"
)

const (
	// afterTurn is the parameter with the turn that a caller has seen, who is answered when there was another one; turnHeader says which turn an
	// answer is of. A supervisor of a release before this one knows neither, and answers at once.
	afterTurn  = "after_turn"
	turnHeader = "A3-Turn"
	// turnWithin is how long an answer waits for a change.
	turnWithin = 5 * time.Second
)

// turns counts changes, and lets others wait for the next one. The zero turns is ready to use.
type turns struct {
	mu    sync.Mutex
	count uint64
	// turned is closed at the next change; nil while nobody waits.
	turned chan struct{}
	// over says that nobody waits any more.
	over bool
}

func (t *turns) next() { t.turn(false) }

// end lets go whoever waits, now and from now on.
func (t *turns) end() { t.turn(true) }

func (t *turns) turn(over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.over = t.over || over
	if t.turned != nil {
		close(t.turned)
		t.turned = nil
	}
}

// await returns which turn it is: at once, unless it is the one that was seen already.
func (t *turns) await(ctx context.Context, seen string) string {
	t.mu.Lock()
	if now := strconv.FormatUint(t.count, 10); now != seen || t.over {
		t.mu.Unlock()
		return now
	}
	if t.turned == nil {
		t.turned = make(chan struct{})
	}
	turned := t.turned
	t.mu.Unlock()
	timer := time.NewTimer(turnWithin)
	defer timer.Stop()
	select {
	case <-turned:
	case <-timer.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return strconv.FormatUint(t.count, 10)
}
