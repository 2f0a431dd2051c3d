// Package proxy passes requests to the set that their host names. It decides where a request goes and nothing else: who calls and
// what they may, each service decides by itself. It promises that an upstream sees exactly one unambiguous request for each one it
// gets, that no client speaks in the gateway's name, that hosts without a tenant can't be told apart, and that a tenant takes only
// its share. It relies on libs/workload to reach the right set or none.
package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"a3os.app/libs/pace"
	"a3os.app/libs/upstream"
	"a3os.app/services/gateway/internal/routes"
	"a3os.app/services/gateway/internal/turns"
)

// Config is what a proxy needs.
type Config struct {
	// Domain is the name below which tenants have their hosts.
	Domain routes.Domain
	// Table is what to route by now; nil while there is nothing.
	Table func() *routes.Table
	// Transport reaches workloads by their pseudo-hosts.
	Transport http.RoundTripper
	// Patience is how long requests wait for a service that isn't there, from when it was first missed.
	Patience time.Duration
	// MaxInFlight bounds requests in flight.
	MaxInFlight int64
	// MaxPerTenant bounds requests in flight for one tenant. Half of them at most are in one service of its set: one that is slow or
	// stands still fills its own half, and the others stay fast.
	MaxPerTenant int64
	// BodyTimeout is how long a client may keep the gateway waiting for its request's body; what comes of it gives it time again.
	BodyTimeout time.Duration
	// SlowAnswer is how long an answer may take to begin. A service most of whose answers take longer is left alone for a while.
	SlowAnswer time.Duration
	// Turns keep a tenant's calls from standing before its neighbours'.
	Turns turns.Config
	// Handshakes keep a tenant's new connections from standing before its neighbours' calls.
	Handshakes turns.Config
	// AnswerWithin is when a request whose answer did not begin is given up.
	AnswerWithin time.Duration
}

// Proxy is the handler behind the gateway's listener.
type Proxy struct {
	cfg     Config
	reverse *httputil.ReverseProxy
	metrics metrics
	spans   spans
	// turns are those of calls, handshakes those of new connections, while several tenants come.
	turns, handshakes *turns.Turns
	neighbours        turns.Neighbours
	// clients are those whose requests are served.
	clients *pace.Watch[places]
	// strangers is where handshakes wait that name no tenant.
	strangers turns.Lane
	all       routes.Places
	draining  atomic.Bool
}

// maxBuffered is up to which size a body of known length is held back whole. It makes a request repeatable when the connection
// that it went out on turns out to be closing, which is what a service's restart looks like from here.
const maxBuffered = 64 << 10

// New makes a proxy.
func New(cfg Config) (*Proxy, error) {
	p := &Proxy{cfg: cfg, spans: newSpans(), turns: turns.New(cfg.Turns), handshakes: turns.New(cfg.Handshakes), clients: pace.New[places](cfg.BodyTimeout, pace.ErrSlow)}
	var err error
	if p.metrics, err = newMetrics(p.all.InFlight); err != nil {
		return nil, err
	}
	p.reverse = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      upstream.NewPatient(timely{cfg.Transport, cfg.SlowAnswer, cfg.AnswerWithin}, cfg.Patience),
		ModifyResponse: p.answered,
		ErrorHandler:   p.fail,
		BufferPool:     &buffers{},
		// The library repeats what fail has logged.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		// Answers of unknown length, which streams are, are flushed at once whatever stands here; the others need not be.
		FlushInterval: 0,
	}
	return p, nil
}

// Drain makes every answer ask its client to come back on a new connection, so that none is cut when the server stops. It waits no longer for
// clients that are slow.
func (p *Proxy) Drain() {
	p.draining.Store(true)
	p.clients.Hurry()
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	growStack(false)
	last := p.draining.Load() || endsItsConnection(r)
	if last {
		w.Header().Set("Connection", "close")
	}
	table := p.cfg.Table()
	if table == nil {
		p.clients.Dismiss(w, r)
		refuse(w, r, errNothingHeld)
		return
	}
	route, up := p.find(table, r)
	if up == nil {
		p.clients.Dismiss(w, r)
		notFound(w)
		return
	}
	turns.ConnOf(r.Context()).Brings(&route.Load.Lane)
	held := places{route.Load, up.Service}
	if !p.enter(held) && !p.squeeze(held) {
		p.clients.Dismiss(w, r)
		turns.ConnOf(r.Context()).Refused()
		w.Header().Set("Retry-After", "1")
		p.metrics.answered(r.Context(), route.Load, http.StatusTooManyRequests)
		refuse(w, r, errBusy)
		return
	}
	defer p.leave(held)
	c := p.clients.Follow(w, r, isStream(r))
	c.Holds(held, r.RemoteAddr)
	defer p.part(r.Context(), c, route.Load)
	body, err := small(r, c)
	if err != nil {
		// The client is late, or went away, or sent less than it announced: there is no whole request to pass on, nor anybody to answer but the first.
		if !c.Late() {
			panic(http.ErrAbortHandler)
		}
		p.tooSlow(w, r, route.Load)
		return
	}
	start := time.Now()
	if !p.begin(w, r, route.Load) {
		return
	}
	w.Header().Del("Connection") // answered says it, after everything that could take it away
	// An offer to change protocols is the client's to the gateway, and the gateway declines (RFC 9110 §7.8).
	r.Header.Del("Upgrade")
	ctx, span := p.spans.start(r.Context(), r, route, up)
	defer span.End()
	if body == nil && waitsToSend(r) {
		// net/http writes an interim answer (103, say) and the 100 that a first read of the body brings at the same time, one into the other.
		w.WriteHeader(http.StatusContinue)
	}
	in := r.WithContext(withTarget(ctx, target{upstream: up, route: route, last: last, client: c}))
	carry(in, body, c)
	p.reverse.ServeHTTP(c.Writer(), in)
	p.metrics.took(r.Context(), time.Since(start))
}

// Connection has what comes over a connection wait for its turn, where calls of it are refused.
func (p *Proxy) Connection(c net.Conn) *turns.Conn { return p.turns.NewConn(c, &p.neighbours) }

// Welcome has a handshake wait for its turn: it costs more than a call does, and whoever makes many would keep everybody's calls waiting.
// It is its tenant's, as a call is; those that name none share one tenant's rate. The name is the client's word, as the host of a call is. What is
// refused here its client sees as a broken handshake, which no client of ours waits after, so that more may come, and wait for longer, than of calls.
func (p *Proxy) Welcome(hello *tls.ClientHelloInfo) error {
	address := hello.Conn.RemoteAddr().String()
	if table := p.cfg.Table(); table != nil {
		if slug, ok := p.cfg.Domain.Slug(hello.ServerName); ok {
			if route, ok := table.Route(slug); ok {
				return p.turn(hello.Context(), p.handshakes, &route.Load.Door, route.Load, address)
			}
		}
	}
	_, err := p.handshakes.Take(hello.Context(), &p.strangers, address)
	return err
}

// find answers no upstream for a host that leads nowhere, a path that no component serves, and a request that isn't to be routed at
// all: nobody can tell which.
func (p *Proxy) find(table *routes.Table, r *http.Request) (*routes.Route, *routes.Upstream) {
	if r.Method == http.MethodConnect || ambiguousPath(r.URL.Path, r.URL.RawPath) {
		return nil, nil
	}
	slug, ok := p.cfg.Domain.Slug(r.Host)
	if !ok {
		return nil, nil
	}
	route, ok := table.Route(slug)
	if !ok {
		return nil, nil
	}
	up, _ := route.Upstream(r.URL.Path)
	return route, up
}

// places is what a request holds while it is served: of the tenant's, and of the service's in its set.
type places struct {
	load    *routes.Load
	service *routes.Service
}

// client is who sent a request.
type client = pace.Client[places]

func (p *Proxy) enter(in places) bool {
	if !p.all.Enter(p.cfg.MaxInFlight) {
		return false
	}
	if !in.load.Enter(p.cfg.MaxPerTenant) {
		p.all.Leave()
		return false
	}
	if !in.service.Enter(p.ofService()) {
		in.load.Leave()
		p.all.Leave()
		return false
	}
	return true
}

// ofService is how many of a tenant's places may be one service's.
func (p *Proxy) ofService() int64 { return max(1, p.cfg.MaxPerTenant/2) }

// squeeze enters where all places are taken, some of them by requests whose clients are slow: those are ended.
func (p *Proxy) squeeze(in places) bool {
	full, among := &p.all, func(places) bool { return true }
	switch {
	case in.service.Full(p.ofService()):
		full, among = &in.service.Places, func(held places) bool { return held.service == in.service }
	case in.load.Full(p.cfg.MaxPerTenant):
		full, among = &in.load.Places, func(held places) bool { return held.load == in.load }
	case !p.all.Full(p.cfg.MaxInFlight): // somebody has left meanwhile
		return p.enter(in)
	}
	if !full.Search(func() bool { return p.clients.Yield(among) }) {
		return false
	}
	in.service.Squeeze()
	in.load.Squeeze()
	p.all.Squeeze()
	return true
}

func (p *Proxy) leave(in places) {
	in.service.Leave()
	in.load.Leave()
	p.all.Leave()
}

// endsItsConnection says whether nothing after this request on its connection may be believed. net/http takes a chunked body where
// a length stands beside it, as RFC 9112 §6.3 allows, and does not tell; whoever stands before us might have believed the length,
// and what follows would then be somebody else's request. HTTP/1.0 has no chunks and an end that others may see elsewhere; what
// follows a CONNECT was meant for the tunnel.
func endsItsConnection(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0 || r.Method == http.MethodConnect)
}

// waitsToSend says whether the client waits for a 100 until it sends its body, of which nothing was read.
func waitsToSend(r *http.Request) bool {
	return r.Header.Get("Expect") != "" && r.ProtoMajor == 1 && r.ProtoAtLeast(1, 1) && r.ContentLength != 0
}

// small reads a small body of known length, so that the transport can send it again; nil is any other. It fails where the body ends early.
func small(r *http.Request, c *client) ([]byte, error) {
	if r.ContentLength <= 0 || r.ContentLength > maxBuffered || r.Body == nil {
		return nil, nil
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(c.Body(), body)
	return body, err
}

// carry gives a request the body that was read of it, or what is yet to come from its client.
func carry(r *http.Request, body []byte, c *client) {
	switch {
	case body != nil:
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body = io.NopCloser(bytes.NewReader(body))
	case pace.Brings(r):
		r.Body = c.Body()
	}
}

// rewrite makes the request that the upstream sees.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.URL.Scheme = "https"
	out.URL.Host = targetFrom(out.Context()).upstream.ServerName
	out.URL.User = nil
	// The host that was matched, in the spelling that the client used less what could be read in two ways.
	out.Host = strings.ToLower(pr.In.Host)
	// Trailers of requests are used by none of our protocols, and would come after the headers were cleaned.
	out.Trailer = nil
	// Whoever waits for a 100 gets it from here.
	delete(out.Header, "Expect")
	clean(out.Header, pr.In.RemoteAddr)
	p.spans.pass(out.Context(), out.Header)
}

// buffers are those that answers are copied through.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get takes a buffer.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

// Put gives it back.
func (b *buffers) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}
