package rpc

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"a3os.app/libs/latency"
)

// metrics counts and times calls (OpenTelemetry semantic conventions for RPC).
type metrics struct {
	duration metric.Float64Histogram
	options  *options
	tally    *Tally
}

// Tally is what a server did since it started, for who reports it. Calls about the process itself (its status, its health) don't count:
// whoever waits for a number of calls would be given his own questions.
type Tally struct {
	// Requests counts calls that were answered, streams when they end.
	Requests atomic.Int64
	// Errors counts those of them that failed through no fault of the caller.
	Errors atomic.Int64
	// Latency counts unary calls by how long they took.
	Latency latency.Counter
}

// aboutItself begin the procedures that a Tally leaves out.
var aboutItself = []string{"/a3os.set.v1.", "/grpc.health.v1.", "/grpc.reflection.v1."}

func (t *Tally) add(procedure string, failed, streaming bool, took time.Duration) {
	for _, p := range aboutItself {
		if strings.HasPrefix(procedure, p) {
			return
		}
	}
	t.Requests.Add(1)
	if failed {
		t.Errors.Add(1)
	}
	if !streaming {
		t.Latency.Add(took)
	}
}

// serversFault says whether a code means that the caller did nothing wrong.
func serversFault(code string) bool {
	switch code {
	case connect.CodeUnknown.String(), connect.CodeInternal.String(), connect.CodeDataLoss.String(),
		connect.CodeUnavailable.String(), connect.CodeDeadlineExceeded.String():
		return true
	}
	return false
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
		metric.WithExplicitBucketBoundaries(latency.Bounds()...))
	if err != nil {
		return metrics{}, fmt.Errorf("make the call metrics: %w", err)
	}
	return metrics{duration: h, options: &options{by: map[outcome][]metric.RecordOption{}}, tally: &Tally{}}, nil
}

func (m metrics) observe(ctx context.Context, procedure string, streaming bool, err error, took time.Duration) {
	code := codeOf(err)
	m.tally.add(procedure, serversFault(code), streaming, took)
	m.duration.Record(ctx, took.Seconds(), m.options.of(outcome{procedure: procedure, code: code})...)
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
