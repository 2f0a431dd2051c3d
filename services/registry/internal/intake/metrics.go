package intake

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

type metrics struct{ kept, deferred, tooOften, refused metric.Int64Counter }

func newMetrics() (metrics, error) {
	meter := otel.Meter("a3os.app/services/registry/intake")
	var m metrics
	var err error
	if m.kept, err = meter.Int64Counter("registry.reports.kept", metric.WithDescription("reports that were kept")); err != nil {
		return m, fmt.Errorf("make the metrics of reports: %w", err)
	}
	if m.deferred, err = meter.Int64Counter("registry.reports.deferred", metric.WithDescription("reports that were told to come back later")); err != nil {
		return m, fmt.Errorf("make the metrics of reports: %w", err)
	}
	if m.tooOften, err = meter.Int64Counter("registry.reports.too_often", metric.WithDescription("reports of sets that make more than any is told to")); err != nil {
		return m, fmt.Errorf("make the metrics of reports: %w", err)
	}
	if m.refused, err = meter.Int64Counter("registry.checkpoints.refused", metric.WithDescription("checkpoints that were refused: each is an alarm")); err != nil {
		return m, fmt.Errorf("make the metrics of reports: %w", err)
	}
	// A counter that begins with its first count shows no growth.
	for _, c := range []metric.Int64Counter{m.kept, m.deferred, m.tooOften, m.refused} {
		c.Add(context.Background(), 0)
	}
	return m, nil
}
