package proxy

import (
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"a3os.app/services/gateway/internal/routes"
)

// Callers who ask that their traces be kept are granted so many a second, and find the others by the same id.
func TestTracesAreNotKeptAtWillOfCallers(t *testing.T) {
	const id, calls = "4bf92f3577b34da6a3ce929d0e0e4736", 1000
	s := newSpans()
	began, kept := time.Now(), 0
	for range calls {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://acme.a3.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Traceparent", "00-"+id+"-00f067aa0ba902b7-01")
		ctx, span := s.start(r.Context(), r, &routes.Route{}, &routes.Upstream{})
		if span.SpanContext().IsSampled() {
			kept++
		}
		s.pass(ctx, r.Header)
		span.End()
		passed := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), propagation.HeaderCarrier(r.Header)))
		if passed.TraceID().String() != id || passed.IsSampled() != span.SpanContext().IsSampled() {
			t.Fatalf("%v is passed on of %v", passed, span.SpanContext())
		}
	}
	// A second begins within the bound each time.
	most := mostGranted * (2 + int(time.Since(began).Seconds()))
	if kept < 1 || kept > most {
		t.Errorf("of %d calls %d are kept, want one at least and %d at most", calls, kept, most)
	}
}
