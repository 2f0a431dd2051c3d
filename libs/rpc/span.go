package rpc

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// spans makes the server's span of each call (OpenTelemetry semantic conventions for RPC). otelconnect describes a span whether it
// is sampled or not; 99 of 100 aren't, and the description cost more than the verification of a token.
type spans struct {
	tracer  trace.Tracer
	extract propagation.TraceContext
}

func newSpans() spans { return spans{tracer: otel.Tracer("a3os.app/libs/rpc")} }

// traceparent is the header of the W3C's trace context (§3.2), in net/http's spelling.
const traceparent = "Traceparent"

// spanKind is what every span of a server starts with; all else is said of spans that are recorded.
var spanKind = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// start begins the span of a call. The sampler decides, by the caller's decision where the caller made one.
func (s spans) start(ctx context.Context, c *call) (context.Context, error) {
	if len(c.header[traceparent]) > 0 {
		ctx = s.extract.Extract(ctx, propagation.HeaderCarrier(c.header))
	}
	ctx, c.span = s.tracer.Start(ctx, strings.TrimPrefix(c.rule.Procedure, "/"), spanKind...)
	return ctx, nil
}

// end ends the span of a call. Faults of the caller are no errors of the server.
func (s spans) end(_ context.Context, c *call, err error) error {
	if c.span == nil {
		return err
	}
	if c.span.IsRecording() {
		c.span.SetAttributes(attribute.String("rpc.system.name", c.protocol), attribute.String("rpc.method", strings.TrimPrefix(c.rule.Procedure, "/")),
			attribute.String("rpc.response.status_code", codeOf(err)))
		switch connect.CodeOf(err) {
		case connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeUnimplemented, connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
			if err != nil {
				c.span.SetStatus(codes.Error, "")
			}
		default:
		}
	}
	c.span.End()
	return err
}

// codeOf is the code of an answer, as spans and metrics tell it.
func codeOf(err error) string {
	if err == nil {
		return "ok"
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok {
		return ce.Code().String()
	}
	return connect.CodeUnknown.String()
}
