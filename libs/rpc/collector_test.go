package rpc_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"

	"a3os.app/libs/rpc"
	"a3os.app/libs/telemetry"
)

// Fault row F34: every call is traced, and the collector is down, or takes what it is sent and never answers. Calls are as quick as
// with one that is well, what waits for the collector is bounded, and the process ends in time.
func TestCollectorThatIsDownOrSlowIsNotNoticed(t *testing.T) {
	logger, tracer, meter := slog.Default(), otel.GetTracerProvider(), otel.GetMeterProvider()
	t.Cleanup(func() { slog.SetDefault(logger); otel.SetTracerProvider(tracer); otel.SetMeterProvider(meter) })
	var received atomic.Int64
	well := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		received.Add(n)
	}))
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-release
	}))
	defer well.Close()
	defer silent.Close()
	defer close(release)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("a collector that takes connections and is silent is not tested, this system has one loopback address: %v", err)
	}
	down := "http://" + l.Addr().String()
	_ = l.Close()

	const calls = 6000 // three times what a batch processor keeps
	undisturbed := traced(t, well.URL, calls)
	if received.Load() == 0 {
		t.Fatal("a collector that is well gets nothing: no call was traced")
	}
	for name, url := range map[string]string{"down": down, "silent": silent.URL} {
		got := traced(t, url, calls)
		t.Logf("%s: a call took %s in the middle and %s at the 99th per cent, beside %s and %s", name, got.median, got.p99, undisturbed.median, undisturbed.p99)
		// The machine's own noise is allowed for; waiting for the collector would cost seconds.
		if got.median > 2*undisturbed.median+time.Millisecond || got.p99 > 4*undisturbed.p99+100*time.Millisecond {
			t.Errorf("with a collector that is %s calls are slower", name)
		}
		const most = 24 << 20
		if got.grown > most {
			t.Errorf("with a collector that is %s the heap grew by %d MiB", name, got.grown>>20)
		}
		if got.ended > 5*time.Second {
			t.Errorf("with a collector that is %s telemetry took %s to end", name, got.ended)
		}
	}
	t.Attr("row", fmt.Sprint("F34 ", 2*calls))
}

// cost is what traced calls cost.
type cost struct {
	median, p99, ended time.Duration
	grown              int64
}

func traced(t *testing.T, collector string, calls int) cost {
	t.Helper()
	for name, value := range map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
		"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "50"} {
		t.Setenv(name, value)
	}
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "iam", Level: "error"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	d := &dependency{}
	d.is(func(context.Context) error { return nil })
	c := w.to("iam", w.serve("iam", []rpc.Service{d.mounted()}))
	if err := ask(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	before := heap()
	took := make([]time.Duration, calls)
	var next atomic.Int64
	var all sync.WaitGroup
	const callers = 4
	for range callers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(calls); i = next.Add(1) - 1 {
				begun := time.Now()
				if err := ask(t.Context(), c); err != nil {
					t.Error(err)
				}
				took[i] = time.Since(begun)
			}
		})
	}
	all.Wait()
	out := cost{grown: heap() - before}
	slices.Sort(took)
	out.median, out.p99 = took[calls/2], took[calls*99/100]
	begun := time.Now()
	const within = 3 * time.Second // as libs/set gives it
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	_ = tel.Close(ctx)
	out.ended = time.Since(begun)
	return out
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // far below
}
