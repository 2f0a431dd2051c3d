package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"a3os.app/services/gateway/internal/routes"
)

// spans make the gateway's span of each request. It goes on from the caller's trace where the request names one (W3C trace context)
// and begins one where it doesn't, so that what a service records, and its siblings after it, is one trace from here on. The trace's
// id is the caller's word: it is for finding things, never for a decision. That it be kept is a wish: so many a second are granted, of
// all callers, since what is kept costs every process behind this one.
type spans struct {
	tracer  trace.Tracer
	context propagation.TraceContext
	granted ratelimiter.RateLimiter[any]
}

// mostGranted is how many traces a second are kept because their callers ask for it.
const mostGranted = 10

func newSpans() spans {
	return spans{tracer: otel.Tracer("a3os.app/services/gateway"), granted: ratelimiter.NewBursty[any](mostGranted, time.Second)}
}

var serverKind = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// start begins the span. Its name is the component's: paths may hold ids, and there are as many as callers think of.
func (s spans) start(ctx context.Context, r *http.Request, route *routes.Route, up *routes.Upstream) (context.Context, trace.Span) {
	if len(r.Header["Traceparent"]) > 0 {
		ctx = s.context.Extract(ctx, propagation.HeaderCarrier(r.Header))
		if asked := trace.SpanContextFromContext(ctx); asked.IsSampled() && !s.granted.TryAcquirePermit() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, asked.WithTraceFlags(asked.TraceFlags().WithSampled(false)))
		}
	}
	ctx, span := s.tracer.Start(ctx, up.Identity.Service, serverKind...)
	if span.IsRecording() {
		span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("a3os.tenant", route.Tenant.String()),
			attribute.String("network.protocol.version", r.Proto))
	}
	return ctx, span
}

// pass makes the upstream's span a child of ours. What the caller sent of a trace is gone then, also where it could not be read.
func (s spans) pass(ctx context.Context, h http.Header) {
	delete(h, "Traceparent")
	delete(h, "Tracestate")
	s.context.Inject(ctx, propagation.HeaderCarrier(h))
}

// answered notes the status on the request's span. What a caller did wrong is no error of the server's.
func (spans) answered(ctx context.Context, status int) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
}
