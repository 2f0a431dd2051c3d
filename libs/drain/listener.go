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
	tcp  *net.TCPListener // nil where the listener is no TCP socket
	wrap func(net.Conn) net.Conn

	mu   sync.Mutex
	late []net.Conn
	// fresh are the connections without a request, and when each was made.
	fresh map[*tracked]time.Time
}

func newListener(l net.Listener, cfg Config) *listener {
	tcp, _ := l.(*net.TCPListener)
	if cfg.MaxConnections > 0 {
		l = netutil.LimitListener(l, cfg.MaxConnections)
	}
	wrap := cfg.Wrap
	if wrap == nil {
		wrap = func(c net.Conn) net.Conn { return c }
	}
	return &listener{Listener: l, tcp: tcp, wrap: wrap, fresh: map[*tracked]time.Time{}}
}

// Accept answers the next connection, and after Close those that were waiting in the kernel's queue.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		return &tracked{Conn: l.wrap(conn)}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.late) == 0 {
		return nil, err
	}
	conn, l.late = l.late[0], l.late[1:]
	return &tracked{Conn: l.wrap(conn)}, nil
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

// trackedOf is the one below what the server calls a connection, and the TLS between them, where there is.
func trackedOf(c net.Conn) (*tracked, *tls.Conn) {
	secured, ok := c.(*tls.Conn)
	if ok {
		c = secured.NetConn()
	}
	t, _ := c.(*tracked)
	return t, secured
}

// Conn is the connection that Config.Wrap made of the one that a server's ConnContext is told; nil where it isn't one of Serve's.
func Conn(c net.Conn) net.Conn {
	t, _ := trackedOf(c)
	if t == nil {
		return nil
	}
	return t.Conn
}

// watch is the hook of http.Server.
func (l *listener) watch(c net.Conn, state http.ConnState) {
	t, secured := trackedOf(c)
	if t == nil || t.stage.Load() == used {
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
