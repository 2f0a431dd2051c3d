package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics counts and times calls (OpenTelemetry semantic conventions for RPC).
type metrics struct {
	duration metric.Float64Histogram
	sets     *sync.Map
}

type outcome struct{ procedure, code string }

func newMetrics() (metrics, error) {
	h, err := otel.Meter("a3os.app/libs/rpc").Float64Histogram("rpc.server.call.duration",
		metric.WithUnit("s"), metric.WithDescription("time from the first link to the answer"),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
	if err != nil {
		return metrics{}, fmt.Errorf("make the call metrics: %w", err)
	}
	return metrics{duration: h, sets: new(sync.Map)}, nil
}

func (m metrics) observe(ctx context.Context, procedure string, err error, took time.Duration) {
	o := outcome{procedure: procedure, code: "ok"}
	if err != nil {
		o.code = "unknown"
		if ce, ok := errors.AsType[*connect.Error](err); ok {
			o.code = ce.Code().String()
		}
	}
	set, ok := m.sets.Load(o)
	if !ok {
		set, _ = m.sets.LoadOrStore(o, metric.WithAttributeSet(attribute.NewSet(
			attribute.String("rpc.method", o.procedure), attribute.String("rpc.response.status_code", o.code))))
	}
	if opt, ok := set.(metric.MeasurementOption); ok {
		m.duration.Record(ctx, took.Seconds(), opt)
	}
}
