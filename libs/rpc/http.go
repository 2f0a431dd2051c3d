package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/cors"

	"a3os.app/libs/drain"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/callctx"
	"a3os.app/libs/pace"
	"a3os.app/libs/rpc/rpcclient"
	"a3os.app/libs/workload"
)

// Headers of ours.
const (
	// EnvelopeHeader carries the signed envelope that a workload presents.
	EnvelopeHeader = "A3-Envelope"
	// SourceHeader carries the address of the caller, set by the gateway and believed from no one else.
	SourceHeader = "A3-Source-Address"
)

// errorWriter writes refusals that come before the RPC chain in the caller's own protocol.
var errorWriter = connect.NewErrorWriter()

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	mapped := fault.Connect(err)
	if mapped.Code() == connect.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if errorWriter.IsSupported(r) {
		_ = errorWriter.Write(w, r, mapped)
		return
	}
	status := http.StatusInternalServerError
	switch mapped.Code() {
	case connect.CodeUnauthenticated:
		status = http.StatusUnauthorized
	case connect.CodePermissionDenied:
		status = http.StatusForbidden
	case connect.CodeInvalidArgument:
		status = http.StatusBadRequest
	case connect.CodeNotFound:
		status = http.StatusNotFound
	case connect.CodeFailedPrecondition:
		status = http.StatusConflict
	case connect.CodeResourceExhausted:
		status = http.StatusTooManyRequests
	case connect.CodeUnavailable:
		status = http.StatusServiceUnavailable
	default:
	}
	http.Error(w, mapped.Message(), status)
}

// recoverPanic turns a panic into an answer. Its value may repeat what a caller sent, so only type and stack are logged.
func (s *Server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer answerPanic(w, r)
		next.ServeHTTP(w, r)
	})
}

// answerPanic is deferred.
func answerPanic(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // the sentinel is compared as net/http does
		panic(p)
	}
	slog.ErrorContext(r.Context(), "panic outside of a handler", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	refuse(w, r, errors.New("panic"))
}

// bound is what a method may take.
type bound struct {
	bytes   int64
	streams bool
}

// limit bounds the body of what isn't a stream by the service's own measure, and how long its caller may keep the server waiting for it.
func (s *Server) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most, ok := s.bounds[r.URL.Path]
		if !ok {
			most.bytes = defaultMaxBytes
		}
		if !most.streams {
			// The message's own bound is Connect's; this one also holds for its frame and for plain routes.
			const frame = 64 << 10
			r.Body = http.MaxBytesReader(w, r.Body, most.bytes+frame)
		}
		// A stream's next message may come late. On HTTP/1.1 the server reads what nobody did of it, and must not wait for that either.
		if pace.Brings(r) && (!most.streams || r.ProtoMajor == 1) {
			c := s.clients.Follow(w, r, most.streams)
			defer c.Done()
			r.Body = c.Body()
		}
		next.ServeHTTP(w, r)
	})
}

// cors lets listed browser origins call; without any it adds nothing.
func (s *Server) cors(next http.Handler) http.Handler {
	if len(s.cfg.CORSOrigins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: s.cfg.CORSOrigins,
		AllowedMethods: []string{http.MethodGet, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Timeout",
			"X-Grpc-Web", "X-User-Agent", "Idempotency-Key"},
		ExposedHeaders: []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", rpcclient.RequestIDHeader},
		MaxAge:         7200,
	}).Handler(next)
}

// trace gives the request its id and notes where it came from. The span itself is a link of the RPC chain.
func (s *Server) trace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &callctx.Call{RequestID: id.NewRequest().String(), SourceAddress: host(r.RemoteAddr)}
		// The name is in canonical form already.
		w.Header()[rpcclient.RequestIDHeader] = []string{c.RequestID}
		next.ServeHTTP(w, r.WithContext(callctx.With(r.Context(), c)))
	})
}

// authenticate finds out who calls. Who shows nothing is unknown; who shows something that doesn't hold is refused here.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callctx.From(r.Context())
		who, err := s.identify(r, c)
		if err != nil {
			c.Presented = callctx.Presented{}
			s.cfg.Recorder.unverified(r.Context(), r.URL.Path, err)
			slog.DebugContext(r.Context(), "caller refused", "procedure", r.URL.Path, "error", err)
			refuse(w, r, err)
			return
		}
		c.Caller = who
		next.ServeHTTP(w, r)
	})
}

func (s *Server) identify(r *http.Request, c *callctx.Call) (*caller, error) {
	who := &caller{}
	peer, err := s.peer(r)
	if err != nil {
		return nil, fault.Wrap(fault.Unauthenticated, err, "the client certificate is not valid here")
	}
	who.peer = peer
	member := who.member(s.boundTenant())
	if gateway := peer.Tenant.IsZero() && peer.Service == "gateway"; gateway || member {
		if a := r.Header.Get(SourceHeader); a != "" {
			c.SourceAddress = a
		}
	}
	if h := r.Header.Get("Authorization"); h != "" {
		token, ok := bearer(h)
		if !ok || s.cfg.Tokens == nil {
			return nil, fault.New(fault.Unauthenticated, "the Authorization header must be of the form: Bearer <access token>")
		}
		claims, err := s.cfg.Tokens.Verify(r.Context(), token)
		if err != nil {
			return nil, err
		}
		who.claims, c.Presented.Token = &claims, token
	}
	if h := r.Header.Get(EnvelopeHeader); h != "" {
		if !member || s.cfg.Envelopes == nil {
			return nil, fault.New(fault.Unauthenticated, "an envelope is presented by workloads of the set alone")
		}
		p, err := s.cfg.Envelopes(h)
		if err != nil {
			return nil, fault.Wrap(fault.Unauthenticated, err, "the presented envelope is not valid here")
		}
		who.presented, c.Presented.Envelope = &p, h
	}
	return who, nil
}

// peer is the workload at the other end; zero where no certificate was shown.
func (s *Server) peer(r *http.Request) (workload.Identity, error) {
	if r.TLS == nil || s.cfg.Peer == nil {
		return workload.Identity{}, nil
	}
	peer, _, err := s.cfg.Peer(*r.TLS)
	return peer, err
}

// bearer reads an Authorization header (RFC 6750 §2.1). There is one, and its scheme is known without regard to case.
func bearer(h string) (string, bool) {
	const scheme = "bearer "
	if len(h) <= len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) {
		return "", false
	}
	return h[len(scheme):], true
}

func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return h
}

// admission bounds what is in flight, over all and per principal, so that one can't take the places of everyone.
type admission struct {
	most, share int

	mu    sync.Mutex
	total int
	by    map[string]int
}

var errBusy = fault.Declare(fault.ResourceExhausted, "BUSY", "the service is busy; try again shortly")

func newAdmission(most int) *admission {
	const quarter = 4
	return &admission{most: most, share: max(1, most/quarter), by: map[string]int{}}
}

func (a *admission) enter(key string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total >= a.most || a.by[key] >= a.share {
		return errBusy
	}
	a.total++
	a.by[key]++
	return nil
}

// full says whether all places are taken, or all that a principal may have.
func (a *admission) full(key string) (all, own bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total >= a.most, a.by[key] >= a.share
}

// squeeze takes a place beyond those that there are: somebody is about to leave.
func (a *admission) squeeze(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total++
	a.by[key]++
}

func (a *admission) leave(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if a.by[key]--; a.by[key] == 0 {
		delete(a.by, key)
	}
}

// admit takes a place for the request, or sheds it. Where there is none, whoever the server waits for gives theirs up.
func (s *Server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := callerFrom(r.Context()).key()
		if err := s.admission.enter(key); err != nil && !s.squeeze(key) {
			w.Header().Set("Retry-After", "1")
			refuse(w, r, err)
			return
		}
		defer s.admission.leave(key)
		s.clients.Of(r.Body).Holds(key, callctx.From(r.Context()).SourceAddress)
		next.ServeHTTP(w, r)
	})
}

// squeeze takes a place where there is none, from whoever the server waits for; for a principal that has its share, from that one's own.
func (s *Server) squeeze(key string) bool {
	all, own := s.admission.full(key)
	if !all && !own { // somebody has left meanwhile
		return s.admission.enter(key) == nil
	}
	if !s.clients.Yield(func(other string) bool { return !own || other == key }) {
		return false
	}
	s.admission.squeeze(key)
	return true
}

// Serve listens on addr until ctx ends, then lets requests in flight finish, for 20 s at most.
func (s *Server) Serve(ctx context.Context, addr string) error {
	l, err := drain.Listen(ctx, addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	return s.ServeListener(ctx, l)
}

// ServeListener is Serve on a listener of one's own.
func (s *Server) ServeListener(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.leaving(s.handler),
		TLSConfig:         s.cfg.TLS,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// Every answer carries an id that no other will: a table of headers to refer back to (RFC 7541 §2.3.2) would be filled with
		// them and never used, at the price of several links.
		HTTP2:    &http.HTTP2Config{MaxEncoderHeaderTableSize: 1},
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, s.drain)()
	return drain.Serve(ctx, srv, l, drain.Config{Ask: s.drain, LeaveWithin: leaveWithin, DrainWithin: drainWithin})
}

// leaving asks clients to come back on a new connection once the server drains.
func (s *Server) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.draining:
			w.Header().Set("Connection", "close")
		default:
		}
		next.ServeHTTP(w, r)
	})
}

const (
	// leaveWithin is long enough for whoever is talking to be asked, and short, for nothing else starts meanwhile.
	leaveWithin = 300 * time.Millisecond
	drainWithin = 20 * time.Second
)

func serveUntil(ctx context.Context, srv *http.Server, serve func() error) error {
	failed := make(chan error, 1)
	go func() { failed <- serve() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// The context that ended must not end the draining.
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWithin)
	defer cancel()
	if err := srv.Shutdown(dctx); err != nil {
		_ = srv.Close()
		return fmt.Errorf("requests were still in flight after %s: %w", drainWithin, err)
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
