package drain

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// listener knows which connections have not brought a request yet. net/http closes those when it shuts down, even with the request
// already read from the wire; so they must be waited for before.
type listener struct {
	net.Listener
	tcp *net.TCPListener // nil where the listener is no TCP socket

	mu   sync.Mutex
	late []net.Conn
	// fresh are the connections without a request, and when each was made.
	fresh map[*tracked]time.Time
}

// newListener limits l to so many connections at a time; 0 is no limit.
func newListener(l net.Listener, most int) *listener {
	tcp, _ := l.(*net.TCPListener)
	if most > 0 {
		l = netutil.LimitListener(l, most)
	}
	return &listener{Listener: l, tcp: tcp, fresh: map[*tracked]time.Time{}}
}

// Accept answers the next connection, and after Close those that were waiting in the kernel's queue.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		return &tracked{Conn: conn}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.late) == 0 {
		return nil, err
	}
	conn, l.late = l.late[0], l.late[1:]
	return &tracked{Conn: conn}, nil
}

// noMore keeps new connections from being made.
func (l *listener) noMore() {
	if l.tcp != nil {
		noMoreSYN(l.tcp)
	}
}

// Close takes what waits in the kernel's queue, and closes the socket. Those clients are connected as far as they know: closed
// with the socket, they would be reset, and with them the requests that they have sent.
func (l *listener) Close() error {
	if l.tcp != nil {
		late := queued(l.tcp)
		l.mu.Lock()
		l.late = append(l.late, late...)
		l.mu.Unlock()
	}
	return l.Listener.Close()
}

// tracked is a connection and whether its first request has come.
type tracked struct {
	net.Conn
	stage atomic.Int32
}

const (
	unknown  = iota // not yet seen by the server
	fresh           // no request yet
	prefaced        // HTTP/2, settled and without a request yet
	used            // has brought a request, or is gone
)

// watch is the hook of http.Server.
func (l *listener) watch(c net.Conn, state http.ConnState) {
	secured, ok := c.(*tls.Conn)
	if ok {
		c = secured.NetConn()
	}
	t, ok := c.(*tracked)
	if !ok || t.stage.Load() == used {
		return
	}
	switch state {
	case http.StateNew:
		t.stage.Store(fresh)
		l.mu.Lock()
		l.fresh[t] = time.Now()
		l.mu.Unlock()
	case http.StateActive:
		// HTTP/2 is active once for its preface, before any request.
		if t.stage.Load() == fresh && secured != nil && secured.ConnectionState().NegotiatedProtocol == "h2" {
			t.stage.Store(prefaced)
			return
		}
		fallthrough
	case http.StateClosed, http.StateHijacked:
		t.stage.Store(used)
		l.mu.Lock()
		delete(l.fresh, t)
		l.mu.Unlock()
	case http.StateIdle:
	}
}

// fresher says whether there is a connection without a request that was made after a moment.
func (l *listener) fresher(than time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, made := range l.fresh {
		if made.After(than) {
			return true
		}
	}
	return false
}
