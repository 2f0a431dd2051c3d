package turns

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// refusedLately is for how long after a refusal a connection counts as one that floods.
const refusedLately = time.Second

// Conn is a client's connection. What comes over one whose calls are refused is looked at when it is the connection's turn among the others like
// it of its tenant: to refuse a call costs little, and to refuse hundreds that come in one moment keeps everybody's waiting for as long as that
// takes. Until then it lies with the kernel, which keeps the client from sending when it is much.
type Conn struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
	// whose is the tenant that all calls came for until now.
	whose atomic.Pointer[Lane]
	// many is whether there are several: those of the others must not wait with it, so nobody's do.
	many atomic.Bool
	// until is when it counts as one that floods no more, in nanoseconds of the clock.
	until atomic.Int64
	turns *Turns
	among *Neighbours
}

// NewConn makes a connection take turns, while several tenants come.
func (t *Turns) NewConn(c net.Conn, among *Neighbours) *Conn {
	return &Conn{Conn: c, turns: t, among: among, closed: make(chan struct{})}
}

type connKey struct{}

// With gives a context the connection that a call comes over.
func (c *Conn) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// ConnOf is the connection that a call comes over; nil, which does nothing, where nobody said.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// Brings says that a call has come for a tenant.
func (c *Conn) Brings(l *Lane) {
	if c != nil && c.whose.Load() != l && !c.whose.CompareAndSwap(nil, l) {
		c.many.Store(true)
	}
}

// Refused says that a call of its tenant was refused.
func (c *Conn) Refused() {
	if c != nil {
		c.until.Store(time.Now().Add(refusedLately).UnixNano())
	}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if until := c.until.Load(); until != 0 && err == nil {
		c.wait(until)
	}
	return n, err
}

// wait returns when it is the connection's turn, or when it is closed.
func (c *Conn) wait(until int64) {
	now := time.Now()
	if now.UnixNano() >= until || c.many.Load() || !c.among.several.Load() {
		return
	}
	wait := c.whose.Load().reads(now, c.turns.cfg)
	if wait <= 0 {
		return
	}
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-c.closed:
	}
}

// reads is how long a connection of the tenant's that floods waits until it is looked at.
func (l *Lane) reads(now time.Time, cfg Config) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read.Before(now) {
		l.read = now
	}
	wait := l.read.Sub(now)
	if wait > cfg.Within {
		return cfg.Within
	}
	l.read = l.read.Add(time.Duration(float64(time.Second) / cfg.Reads))
	return wait
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
