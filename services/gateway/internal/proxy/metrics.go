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
	// Of turns: how many waited, for how many seconds, and how many were refused.
	waited, refused metric.Int64Counter
	wait            metric.Float64Counter
	// slow counts requests that were ended since their clients were slow.
	slow metric.Int64Counter
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
	if m.waited, err = meter.Int64Counter("gateway.turns.waited", metric.WithDescription("requests and handshakes that waited since their tenant calls more often than its share, by tenant")); err != nil {
		return m, fmt.Errorf("make the proxy's metrics: %w", err)
	}
	if m.wait, err = meter.Float64Counter("gateway.turns.wait", metric.WithUnit("s"), metric.WithDescription("how long those waited, by tenant")); err != nil {
		return m, fmt.Errorf("make the proxy's metrics: %w", err)
	}
	if m.refused, err = meter.Int64Counter("gateway.turns.refused", metric.WithDescription("requests and handshakes that were refused since too many of their tenant's wait, by tenant")); err != nil {
		return m, fmt.Errorf("make the proxy's metrics: %w", err)
	}
	if m.slow, err = meter.Int64Counter("gateway.clients.slow", metric.WithDescription("requests that were ended since their clients did not send them in time, or took nothing of the answer while others waited, by tenant")); err != nil {
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

// known has a tenant's counters told from its first request on: what is first told as 1 never rose, to whoever watches.
func (m metrics) known(ctx context.Context, load *routes.Load) {
	load.Once.Do(func() {
		m.waited.Add(ctx, 0, load.Tenant())
		m.wait.Add(ctx, 0, load.Tenant())
		m.refused.Add(ctx, 0, load.Tenant())
		m.slow.Add(ctx, 0, load.Tenant())
	})
}

// began counts what waited for its turn.
func (m metrics) began(ctx context.Context, load *routes.Load, waited time.Duration) {
	m.waited.Add(ctx, 1, load.Tenant())
	m.wait.Add(ctx, waited.Seconds(), load.Tenant())
}

// crowded counts what came when its tenant had used its share up.
func (m metrics) crowded(ctx context.Context, load *routes.Load) {
	m.refused.Add(ctx, 1, load.Tenant())
}

// late counts what was ended since its client was slow. It may be the first that is told of its tenant.
func (m metrics) late(ctx context.Context, load *routes.Load) {
	m.known(ctx, load)
	m.slow.Add(ctx, 1, load.Tenant())
}

func (m metrics) took(ctx context.Context, d time.Duration) { m.duration.Record(ctx, d.Seconds()) }
