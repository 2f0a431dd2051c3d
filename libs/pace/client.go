package pace

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Client is who sent a request, while it is served. A nil Client is one that nothing is waited for.
type Client[P any] struct {
	watch         *Watch[P]
	w             http.ResponseWriter
	from          io.ReadCloser
	http1, stream bool
	// place is what the request holds, if it does, and address where it came from: the watch's mu guards them.
	place   P
	holds   bool
	address string
	// left is for how long the client may still keep the server waiting: the reader's.
	left time.Duration
	// whole says that there is no more to come, answered that the answer began, late that the request was ended.
	whole, answered, late atomic.Bool
	// reading is when what is waited for is late, and writing since when an answer is not taken, by the watch's clock; 0 while nothing is waited for
	// or written, ended for good once it was.
	reading, writing atomic.Int64

	before, after *Client[P]

	// mu keeps the connection from being told anything that is for the next request on it.
	mu   sync.Mutex
	over bool
}

const ended = -1

// Follow begins to look after a request. stream says that what comes of its body may come late. Whoever calls it reads the body from Body, tells by
// Holds what the request holds while it does, and calls Done at the end.
func (w *Watch[P]) Follow(rw http.ResponseWriter, r *http.Request, stream bool) *Client[P] {
	c := &Client[P]{watch: w, w: rw, from: r.Body, http1: r.ProtoMajor == 1, stream: stream, left: w.within}
	if !Brings(r) {
		c.whole.Store(true)
	}
	w.add(c)
	return c
}

// Of is whose body one is; nil where nobody is followed.
func (w *Watch[P]) Of(r io.Reader) *Client[P] {
	if b, ok := r.(*body[P]); ok {
		return (*Client[P])(b)
	}
	return nil
}

// Holds tells what the request holds from now on, and the address that it came from.
func (c *Client[P]) Holds(place P, address string) {
	if c == nil {
		return
	}
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	c.place, c.address, c.holds = place, address, true
}

// Body is the request's body, a read of which ends with the watch's error when the client is late.
func (c *Client[P]) Body() io.ReadCloser { return (*body[P])(c) }

// Writer is where the answer goes to a client that is to take it.
func (c *Client[P]) Writer() http.ResponseWriter { return (*writer[P])(c) }

// Late says that the request was ended: its client was late, or slow where there was no place left.
func (c *Client[P]) Late() bool { return c != nil && c.late.Load() }

// Answered tells that the answer begins. What HTTP/1.1 has not brought of the body by now is read before anything is written, and has so long to come.
func (c *Client[P]) Answered() {
	if c == nil {
		return
	}
	c.answered.Store(true)
	if !c.http1 || c.whole.Load() {
		return
	}
	c.tell(func(rc *http.ResponseController) error { return rc.SetReadDeadline(time.Now().Add(c.watch.within)) })
}

// Done ends looking after the request. Its handler is about to return.
func (c *Client[P]) Done() {
	if c == nil {
		return
	}
	if c.http1 && !c.whole.Load() && !c.late.Load() {
		// The server reads what is left before it takes the next request.
		c.tell(func(rc *http.ResponseController) error { return rc.SetReadDeadline(time.Now().Add(c.watch.within)) })
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.watch.remove(c)
}

// tell tells the connection something, while it is this request's.
func (c *Client[P]) tell(what func(*http.ResponseController) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = what(http.NewResponseController(c.w)) // one that can't be told, as a test's, goes on
	}
}

// spent is how much a client has spent of what it may keep the server waiting for its body, and untaken for how long it has taken nothing of its
// answer; 0 where nothing waits.
func (c *Client[P]) spent(now time.Duration) time.Duration {
	if until := c.reading.Load(); until > 0 {
		return now - time.Duration(until) + c.watch.within
	}
	return 0
}

func (c *Client[P]) untaken(now time.Duration) time.Duration {
	if since := c.writing.Load(); since > 0 {
		return now - time.Duration(since)
	}
	return 0
}

// wait is a read or a write that a client keeps waiting.
type wait[P any] struct {
	*Client[P]
	write  bool
	long   time.Duration
	source netip.Prefix
}

// end ends it. It answers false where nothing waits any more.
func (s wait[P]) end() bool {
	waits, deadline := &s.reading, (*http.ResponseController).SetReadDeadline
	if s.write {
		waits, deadline = &s.writing, (*http.ResponseController).SetWriteDeadline
	}
	since := waits.Load()
	if since <= 0 || !waits.CompareAndSwap(since, ended) {
		return false
	}
	s.late.Store(true)
	s.tell(func(rc *http.ResponseController) error { return deadline(rc, time.Unix(1, 0)) }) // long ago: what waits, waits no longer
	return true
}

type body[P any] Client[P]

// Read reads what comes, for as long as the client may keep it waiting.
func (b *body[P]) Read(p []byte) (int, error) {
	c := (*Client[P])(b)
	if c.whole.Load() {
		return c.from.Read(p)
	}
	until := int64(c.watch.now() + c.left)
	if !c.reading.CompareAndSwap(0, until) {
		return 0, c.watch.late
	}
	n, err := c.from.Read(p)
	if !c.reading.CompareAndSwap(until, 0) {
		return 0, c.watch.late
	}
	if c.stream {
		c.left = c.watch.within
	} else {
		c.left = min(c.watch.within, time.Duration(until)-c.watch.now()+time.Duration(n)*time.Second/leastRate)
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		c.whole.Store(true)
	case errors.Is(err, os.ErrDeadlineExceeded): // that of Answered
		c.late.Store(true)
		return n, c.watch.late
	}
	return n, err
}

// Close closes the body. HTTP/1.1 has what is left of it read.
func (b *body[P]) Close() error {
	c := (*Client[P])(b)
	if until := int64(c.watch.now() + c.left); !c.whole.Load() && c.reading.CompareAndSwap(0, until) {
		defer c.reading.CompareAndSwap(until, 0)
	}
	return c.from.Close()
}

type writer[P any] Client[P]

// Header implements http.ResponseWriter.
func (w *writer[P]) Header() http.Header { return w.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (w *writer[P]) WriteHeader(status int) { w.w.WriteHeader(status) }

// Write implements http.ResponseWriter.
func (w *writer[P]) Write(p []byte) (int, error) {
	since := w.begin()
	n, err := w.w.Write(p)
	w.writing.CompareAndSwap(since, 0)
	return n, err
}

// FlushError is for http.ResponseController.
func (w *writer[P]) FlushError() error {
	since := w.begin()
	err := http.NewResponseController(w.w).Flush()
	w.writing.CompareAndSwap(since, 0)
	return err
}

func (w *writer[P]) begin() (since int64) {
	since = int64(w.watch.now())
	w.writing.CompareAndSwap(0, since)
	return since
}

// Unwrap is for http.ResponseController.
func (w *writer[P]) Unwrap() http.ResponseWriter { return w.w }
