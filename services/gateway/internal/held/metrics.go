package held

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"a3os.app/libs/snapshot"
)

type metrics struct{ refusals metric.Int64Counter }

func newMetrics(version, onDisk func() int64) (metrics, error) {
	meter := otel.Meter("a3os.app/services/gateway/held")
	var errs [3]error
	var m metrics
	m.refusals, errs[0] = meter.Int64Counter("gateway.snapshot.refused", metric.WithDescription("snapshots that were refused, by reason: each is an alarm"))
	gauge := func(name, what string, of func() int64) error {
		_, err := meter.Int64ObservableGauge(name, metric.WithDescription(what), metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(of())
			return nil
		}))
		return err
	}
	errs[1] = gauge("gateway.snapshot.version", "version of the snapshot that is routed by", version)
	errs[2] = gauge("gateway.snapshot.kept.version", "version of the snapshot that is on disk, which a restart begins with", onDisk)
	if err := errors.Join(errs[:]...); err != nil {
		return metrics{}, fmt.Errorf("make the snapshot metrics: %w", err)
	}
	// A counter that begins with its first count shows no growth, and the first refusal is an alarm already.
	for _, r := range reasons {
		m.refusals.Add(context.Background(), 0, metric.WithAttributes(attribute.String("reason", r.word)))
	}
	m.refusals.Add(context.Background(), 0, metric.WithAttributes(attribute.String("reason", unreadable)))
	return m, nil
}

func (m metrics) refused(ctx context.Context, reason string) {
	m.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}

// reasons are why snapshots are refused, and the metric's label for each.
var reasons = []struct {
	err  error
	word string
}{
	{snapshot.ErrTooLarge, "too_large"}, {snapshot.ErrKey, "unknown_key"}, {snapshot.ErrSignature, "bad_signature"},
	{snapshot.ErrPlane, "wrong_plane"}, {snapshot.ErrOlder, "older"}, {snapshot.ErrGap, "gap"}, {snapshot.ErrMalformed, "malformed"},
}

// unreadable is the label of what is none of those: the disk could not be read.
const unreadable = "unreadable"

// reasonOf is the label of an error.
func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return unreadable
}
