package rpc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics counts and times calls (OpenTelemetry semantic conventions for RPC).
type metrics struct {
	duration metric.Float64Histogram
	options  *options
}

// options are the attributes of outcomes that were seen, made once: there are as many as methods that are served times codes.
type options struct {
	mu sync.RWMutex
	by map[outcome][]metric.RecordOption
}

type outcome struct{ procedure, code string }

func newMetrics() (metrics, error) {
	h, err := otel.Meter("a3os.app/libs/rpc").Float64Histogram("rpc.server.call.duration",
		metric.WithUnit("s"), metric.WithDescription("time from the first link to the answer"),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
	if err != nil {
		return metrics{}, fmt.Errorf("make the call metrics: %w", err)
	}
	return metrics{duration: h, options: &options{by: map[outcome][]metric.RecordOption{}}}, nil
}

func (m metrics) observe(ctx context.Context, procedure string, err error, took time.Duration) {
	m.duration.Record(ctx, took.Seconds(), m.options.of(outcome{procedure: procedure, code: codeOf(err)})...)
}

func (o *options) of(k outcome) []metric.RecordOption {
	o.mu.RLock()
	opts, ok := o.by[k]
	o.mu.RUnlock()
	if ok {
		return opts
	}
	opts = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(
		attribute.String("rpc.method", k.procedure), attribute.String("rpc.response.status_code", k.code)))}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.by[k] = opts
	return opts
}
