// Package turns keeps a tenant's calls from standing before its neighbours'. A tenant that calls more often than its share has its calls
// begin one after the other, evenly; those whose turn has not come wait, cheaply, and no other tenant's wait for them. Within a tenant the
// sources that call take turns too (fair queuing, RFC 970), so that one that floods keeps the tenant's others waiting for one turn each. A
// call takes a turn to begin and holds nothing afterwards: neither a slow service nor a stream that stays open keeps anybody waiting. Where calls
// are refused, the connections that they come over take turns to be read. It promises that no call waits without a bound. It relies on the proxy to bound how many calls of a tenant there are at all.
package turns

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"a3os.app/libs/pace"
)

// ErrCrowded says that more of a tenant's calls wait than its share lets begin in time.
var ErrCrowded = errors.New("too many calls of the tenant wait for their turn")

// Config says what a tenant's share is.
type Config struct {
	// Rate is how many of a tenant's calls begin in a second.
	Rate float64
	// Burst is how many begin at once where the tenant has not called for a while.
	Burst int
	// Within is how long a call waits for its turn at most. One whose turn won't come waits as well before it is refused, so that whoever
	// calls again once it was answered calls no more often for it.
	Within time.Duration
	// Waiting is how many of a tenant wait at most. Those beyond are refused at once.
	Waiting int
	// Reads is how often in a second what came over a tenant's connections is looked at, of those over which it floods.
	Reads float64
}

// Turns are those of all tenants.
type Turns struct{ cfg Config }

// New makes turns.
func New(cfg Config) *Turns { return &Turns{cfg: cfg} }

// Lane is one tenant's place to wait. The zero Lane is ready.
type Lane struct {
	mu    sync.Mutex
	pace  *rate.Limiter
	queue queue
	// awaited says that somebody will give the next turn.
	awaited bool
	// read is when the next of its connections that flood is looked at.
	read time.Time
}

// Take returns when a call from an address may begin, and how long it waited. It answers ErrCrowded where too many wait already or the turn
// does not come in time, and what ended the context where that comes first.
func (t *Turns) Take(ctx context.Context, l *Lane, address string) (waited time.Duration, err error) {
	c := l.enter(t, address)
	if c == nil {
		return 0, nil
	}
	began, patience := time.Now(), time.NewTimer(t.cfg.Within)
	defer patience.Stop()
	select {
	case err = <-c.turn:
	case <-patience.C:
		err = ErrCrowded
		if !l.quit(c) {
			err = <-c.turn
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
		l.leave(c)
	}
	return time.Since(began), err
}

// enter takes a turn, where there is one and nobody waits for it, and answers nil; or a place to wait at.
func (l *Lane) enter(t *Turns, address string) *call {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pace == nil {
		l.pace = rate.NewLimiter(rate.Limit(t.cfg.Rate), t.cfg.Burst)
	}
	if l.queue.waiting == 0 && l.pace.Allow() {
		return nil
	}
	c := l.queue.push(pace.Source(address))
	if l.queue.waiting > t.cfg.Waiting {
		l.queue.shed().turn <- ErrCrowded
	}
	l.await()
	return c
}

// await has the next turn given when it is due, where one isn't awaited already.
func (l *Lane) await() {
	if l.awaited {
		return
	}
	l.awaited = true
	time.AfterFunc(l.pace.Reserve().Delay(), func() {
		l.begin()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.awaited = false
		if l.queue.waiting > 0 {
			l.await()
		}
	})
}

// begin gives a turn to the call that is next; one that nobody waits for is lost.
func (l *Lane) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.queue.pop(); c != nil {
		c.turn <- nil
	}
}

// leave gives up a call's place; a turn that has come to it meanwhile goes to the next.
func (l *Lane) leave(c *call) {
	if !l.quit(c) && <-c.turn == nil {
		l.begin()
	}
}

// quit gives up a call's place. It answers false where it was told already.
func (l *Lane) quit(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.remove(c)
}
