// Package pace keeps a server from waiting for slow clients at the price of the others. A request whose body does not come is ended, however it
// came: nothing may come for so long, and in the long run a least of octets a second. A stream, whose next message may rightly come late, is not.
// And where a server has no place left, those whose clients keep it waiting give theirs up, streams that nobody answered yet included, and so do
// those whose clients take nothing of their answers. It promises that a client that is slow holds nothing that somebody else needs for longer than
// that, and costs no goroutine and no timer of its own. It relies on net/http to end a read or a write when it is told to.
package pace

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"a3os.app/libs/fault"
)

// ErrSlow is what a client is told whose request was ended.
var ErrSlow = fault.Declare(fault.DeadlineExceeded, "SLOW_CLIENT", "the request did not come whole in time; send it again, faster")

const (
	// leastRate is how many octets of a body, a second, a client may do with for as long as it likes.
	leastRate = 512
	// lookEvery is how often late clients are looked for, where what is allowed them isn't shorter still.
	lookEvery = time.Second
	// yieldRead and yieldWrite are how long a client has kept the server waiting when its place may be given to another: longer than a round
	// trip, and longer than a slow line takes for a buffer.
	yieldRead, yieldWrite = 250 * time.Millisecond, time.Second
	// hurried is how long a client may keep a server waiting that is about to end.
	hurried = 2 * time.Second
)

// Watch looks after the clients of one server. P is what a request holds while it is served, for Yield to choose by.
type Watch[P any] struct {
	within time.Duration
	late   error
	began  time.Time

	mu sync.Mutex
	// first and last are the ends of the list of clients, in the order that they came in.
	first, last *Client[P]
	looking     bool
	timer       *time.Timer
	hurry       bool
}

// New makes a Watch. A client may keep the server waiting for its body for within at a time, which is what it has to begin with; what it spends
// it is given back by what it sends. late is what a read of a body that was ended answers: ErrSlow, in the words of whoever reads it.
func New[P any](within time.Duration, late error) *Watch[P] {
	w := &Watch[P]{within: within, late: late, began: time.Now()}
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
	return w
}

// now is never 0, which stands for nothing.
func (w *Watch[P]) now() time.Duration { return time.Since(w.began) + 1 }

func (w *Watch[P]) add(c *Client[P]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.before = w.last; c.before == nil {
		w.first = c
	} else {
		c.before.after = c
	}
	w.last = c
	if !w.looking {
		w.looking = true
		w.timer.Reset(w.pause())
	}
}

func (w *Watch[P]) remove(c *Client[P]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.before == nil {
		w.first = c.after
	} else {
		c.before.after = c.after
	}
	if c.after == nil {
		w.last = c.before
	} else {
		c.after.before = c.before
	}
	c.before, c.after = nil, nil
}

// pause is until clients are looked at next.
func (w *Watch[P]) pause() time.Duration {
	const share = 4
	most := w.within
	if w.hurry {
		most = min(most, hurried)
	}
	return min(lookEvery, most/share)
}

// look ends what waits for late clients. It is called while there are clients.
func (w *Watch[P]) look() {
	for _, s := range w.waits(w.overdue) {
		s.end()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.looking = w.first != nil; w.looking {
		w.timer.Reset(w.pause())
	}
}

func (w *Watch[P]) overdue(c *Client[P], spent, untaken time.Duration) (read, write bool) {
	allowed := w.within
	if w.hurry {
		allowed = min(allowed, hurried)
	}
	return spent >= allowed && !c.stream, untaken >= hurried && w.hurry
}

// waits are those that clients keep waiting, as far as they are meant.
func (w *Watch[P]) waits(meant func(c *Client[P], spent, untaken time.Duration) (read, write bool)) (all []wait[P]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for c := w.first; c != nil; c = c.after {
		spent, untaken := c.spent(now), c.untaken(now)
		if spent == 0 && untaken == 0 {
			continue
		}
		switch read, write := meant(c, spent, untaken); {
		case write:
			all = append(all, wait[P]{Client: c, write: true, long: untaken})
		case read:
			all = append(all, wait[P]{Client: c, long: spent})
		}
	}
	return all
}

// Hurry has the server wait for nobody for longer than 2 s from now on, streams excepted: it is about to end.
func (w *Watch[P]) Hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurry = true
	if w.looking {
		w.timer.Reset(w.pause())
	}
}

// Yield ends requests that wait for slow clients, among those whose places are meant, so that there is room for another. Of the source with the most
// of them those go that have waited longest: whoever holds many loses some, and one that happens to be slow beside them loses nothing. It
// answers false where none waits. A place that was given up is free a moment later.
func (w *Watch[P]) Yield(among func(P) bool) bool {
	const tolerated = 8 // one in so many of a source's goes at once, so that a flood is not looked through for each that comes
	slow := w.waits(func(c *Client[P], spent, untaken time.Duration) (read, write bool) {
		if !c.holds || !among(c.place) {
			return false, false
		}
		return spent >= yieldRead && (!c.stream || !c.answered.Load()), untaken >= yieldWrite
	})
	of := map[netip.Prefix]int{}
	var most netip.Prefix
	for i := range slow {
		slow[i].source = Source(slow[i].address)
		if of[slow[i].source]++; of[slow[i].source] > of[most] {
			most = slow[i].source
		}
	}
	slow = slices.DeleteFunc(slow, func(s wait[P]) bool { return s.source != most })
	slices.SortFunc(slow, func(a, b wait[P]) int { return cmp.Compare(b.long, a.long) })
	ended := 0
	for _, s := range slow {
		if ended >= (len(slow)+tolerated-1)/tolerated {
			break
		}
		if s.end() {
			ended++
		}
	}
	return ended > 0
}

// Dismiss bounds how long a client may take with the body of a request that is answered without it: HTTP/1.1 has the rest read before the answer
// is written.
func (w *Watch[P]) Dismiss(rw http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && Brings(r) {
		_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(w.within))
	}
}

// Brings says whether a request brings a body.
func Brings(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// Source is whom what comes from an address, with a port or without, is counted with: the host, of which one has as many addresses of version 6 as
// it likes below the prefix that it was given. What is no address is one source.
func Source(address string) netip.Prefix {
	const host, network = 32, 64
	a, err := netip.ParseAddr(address)
	if err != nil {
		with, err := netip.ParseAddrPort(address)
		if err != nil {
			return netip.Prefix{}
		}
		a = with.Addr()
	}
	bits := network
	if a.Unmap().Is4() {
		bits = host
	}
	p, _ := a.Unmap().Prefix(bits)
	return p
}
