package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/pace"
	"a3os.app/libs/upstream"
	"a3os.app/services/gateway/internal/routes"
	"a3os.app/services/gateway/internal/turns"
)

// What the gateway answers by itself.
var (
	errNothingHeld = fault.Declare(fault.Unavailable, "NO_ROUTES", "the gateway has no routes yet; try again shortly")
	errBusy        = fault.Declare(fault.ResourceExhausted, "BUSY", "too many requests are in flight; try again shortly")
	errShare       = fault.Declare(fault.ResourceExhausted, "SHARE_EXCEEDED", "the tenant calls more often than its share allows; try again shortly, less often")
	errUnreachable = fault.Declare(fault.Unavailable, "UNREACHABLE", "the service can't be reached now; try again shortly")
	errLate        = fault.Declare(fault.Unavailable, "LATE_ANSWER", "the service did not answer in time; what the request did is not known")
	errBroken      = fault.Declare(fault.Unavailable, "BROKEN_ANSWER", "the service ended without an answer; what the request did is not known")
)

// notFoundBody is the one answer for every host without a tenant and every path without a component.
const notFoundBody = "not found\n"

func notFound(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(notFoundBody)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, notFoundBody)
}

// errorWriter writes refusals in the protocol that the caller speaks.
var errorWriter = connect.NewErrorWriter()

func refuse(w http.ResponseWriter, r *http.Request, err *fault.Error) {
	mapped := fault.Connect(err)
	if errorWriter.IsSupported(r) {
		_ = errorWriter.Write(w, r, mapped)
		return
	}
	http.Error(w, mapped.Message(), statusOf(err))
}

func statusOf(err *fault.Error) int {
	switch err.Kind { //nolint:exhaustive // the gateway says nothing of any other kind
	case fault.ResourceExhausted:
		return http.StatusTooManyRequests
	case fault.DeadlineExceeded:
		return http.StatusRequestTimeout
	}
	return http.StatusServiceUnavailable
}

// tooSlow answers a client that is late with its request. Nothing else comes on its connection, where one request comes after the other: nobody
// knows where the next one would begin.
func (p *Proxy) tooSlow(w http.ResponseWriter, r *http.Request, load *routes.Load) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	p.metrics.answered(r.Context(), load, http.StatusRequestTimeout)
	refuse(itsFault{w}, r, pace.ErrSlow)
}

// itsFault says of a deadline that was the client's (504 is for those of servers, in Connect's words as well) that it was.
type itsFault struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w itsFault) WriteHeader(status int) {
	if status == http.StatusGatewayTimeout {
		status = http.StatusRequestTimeout
	}
	w.ResponseWriter.WriteHeader(status)
}

// part ends looking after a client, and counts it where it was too slow.
func (p *Proxy) part(ctx context.Context, c *client, load *routes.Load) {
	c.Done()
	if c.Late() {
		p.metrics.late(ctx, load)
	}
}

// answered counts what an upstream answered, and says once more where it is the last answer of its connection: an interim answer
// (103, say) makes the library forget every header that was set before.
func (p *Proxy) answered(res *http.Response) error {
	ctx := res.Request.Context()
	t := targetFrom(ctx)
	t.client.Answered()
	if t.last {
		res.Header.Set("Connection", "close")
	}
	p.metrics.answered(ctx, t.route.Load, res.StatusCode)
	p.spans.answered(ctx, res.StatusCode)
	return nil
}

// begin waits for the request's turn. It answers false where it was answered instead.
func (p *Proxy) begin(w http.ResponseWriter, r *http.Request, load *routes.Load) bool {
	ctx := r.Context()
	err := p.turn(ctx, p.turns, &load.Lane, load, r.RemoteAddr)
	switch {
	case err == nil:
		return true
	case errors.Is(err, turns.ErrCrowded):
		turns.ConnOf(ctx).Refused()
		w.Header().Set("Retry-After", "1")
		p.metrics.answered(ctx, load, http.StatusTooManyRequests)
		refuse(w, r, errShare)
		return false
	default:
		// The client gave up: nobody reads an answer.
		panic(http.ErrAbortHandler)
	}
}

// turn waits in a lane of the tenant, and counts that it did and what came of it.
func (p *Proxy) turn(ctx context.Context, t *turns.Turns, lane *turns.Lane, load *routes.Load, address string) error {
	p.metrics.known(ctx, load)
	if !p.neighbours.Comes(&load.Comes) {
		return nil
	}
	waited, err := t.Take(ctx, lane, address)
	switch {
	case errors.Is(err, turns.ErrCrowded):
		p.metrics.crowded(ctx, load)
	case err == nil && waited > 0:
		p.metrics.began(ctx, load, waited)
	}
	return err
}

// fail answers for an upstream that did not. The client learns that, and nothing of addresses.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	t := targetFrom(ctx)
	if t.client.Late() {
		p.spans.answered(ctx, http.StatusRequestTimeout)
		p.tooSlow(w, r, t.route.Load)
		return
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		// The client gave up: nobody reads an answer.
		panic(http.ErrAbortHandler)
	}
	if t.last {
		w.Header().Set("Connection", "close")
	}
	p.metrics.answered(ctx, t.route.Load, http.StatusServiceUnavailable)
	p.spans.answered(ctx, http.StatusServiceUnavailable)
	if !upstream.IsSlow(err) { // its breaker has said so, once
		slog.WarnContext(ctx, "upstream failed", "tenant", t.route.Tenant.String(), "service", t.upstream.Identity.Service, "error", err)
	}
	switch {
	case upstream.IsAbsent(err), upstream.IsSlow(err):
		w.Header().Set("Retry-After", "1")
		refuse(w, r, errUnreachable)
	case errors.Is(err, errLate):
		refuse(w, r, errLate)
	default:
		refuse(w, r, errBroken)
	}
}
