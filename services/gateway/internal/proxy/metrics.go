package proxy

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"a3os.app/services/gateway/internal/routes"
)

type metrics struct {
	requests metric.Int64Counter
	duration metric.Float64Histogram
}

func newMetrics(inFlight func() int64) (metrics, error) {
	meter := otel.Meter("a3os.app/services/gateway/proxy")
	var m metrics
	var err error
	if m.requests, err = meter.Int64Counter("gateway.requests", metric.WithDescription("requests that had a tenant, by tenant and class of status")); err != nil {
		return m, fmt.Errorf("make the proxy's metrics: %w", err)
	}
	if m.duration, err = meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("time from the headers to the end of the answer"),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)); err != nil {
		return m, fmt.Errorf("make the proxy's metrics: %w", err)
	}
	_, err = meter.Int64ObservableGauge("gateway.in_flight", metric.WithDescription("requests in flight"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(inFlight())
			return nil
		}))
	if err != nil {
		return m, fmt.Errorf("make the proxy's metrics: %w", err)
	}
	return m, nil
}

func (m metrics) answered(ctx context.Context, load *routes.Load, status int) {
	m.requests.Add(ctx, 1, load.Counted(status)...)
}

func (m metrics) took(ctx context.Context, d time.Duration) { m.duration.Record(ctx, d.Seconds()) }
