package rpc_test

import (
	"testing"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"

	"a3os.app/libs/id"
)

// recording has every span of the process kept, sampled as telemetry does it: by the caller's decision, else never.
func recording(t *testing.T) *tracetest.SpanRecorder {
	t.Helper()
	r := tracetest.NewSpanRecorder()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdk.NewTracerProvider(sdk.WithSpanProcessor(r), sdk.WithSampler(sdk.ParentBased(sdk.NeverSample()))))
	t.Cleanup(func() { otel.SetTracerProvider(before) })
	return r
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampled = "00-" + traceID + "-00f067aa0ba902b7-01"
	ignored = "00-" + traceID + "-00f067aa0ba902b7-00"
)

func TestSpanIsTheCallersAndTellsTheCodeThatTheCallerGot(t *testing.T) {
	spans := recording(t)
	w := newWorld(t)
	runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid")
	call := func(parent string) {
		req := connect.NewRequest(&discoveryv1.GetRunRequest{RunId: id.NewRun().String()})
		req.Header().Set("Authorization", "Bearer "+w.token(w.claims(nil), nil))
		if parent != "" {
			req.Header().Set("Traceparent", parent)
		}
		// The handler panics, which callers see as an internal error.
		if _, err := runs.GetRun(t.Context(), req); connect.CodeOf(err) != connect.CodeInternal {
			t.Errorf("want an internal error, got %v", err)
		}
	}
	call("")
	call(ignored)
	if n := len(spans.Ended()); n != 0 {
		t.Fatalf("%d spans were recorded of calls that nobody sampled", n)
	}
	call(sampled)
	ended := spans.Ended()
	if len(ended) != 1 {
		t.Fatalf("%d spans were recorded of one sampled call", len(ended))
	}
	s := ended[0]
	if s.SpanContext().TraceID().String() != traceID || s.SpanKind() != trace.SpanKindServer || s.Name() != "a3os.discovery.v1.RunService/GetRun" {
		t.Errorf("span is %s %s of trace %s", s.SpanKind(), s.Name(), s.SpanContext().TraceID())
	}
	if s.Status().Code != codes.Error || s.Status().Description != "" {
		t.Errorf("status is %v: a fault of the server's is an error, in no words of its cause", s.Status())
	}
	got := attribute.NewSet(s.Attributes()...)
	for key, want := range map[attribute.Key]string{"rpc.system.name": "connect", "rpc.method": "a3os.discovery.v1.RunService/GetRun", "rpc.response.status_code": "internal"} {
		if v, _ := got.Value(key); v.AsString() != want {
			t.Errorf("%s is %q, want %q", key, v.AsString(), want)
		}
	}
}

func TestRefusedCallsAndStreamsHaveSpansToo(t *testing.T) {
	spans := recording(t)
	w := newWorld(t)
	runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid", connect.WithGRPC())
	req := connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: id.NewRun().String()})
	req.Header().Set("Traceparent", sampled)
	stream, err := runs.WatchRun(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnauthenticated {
		t.Fatalf("a stream with no token: %v", stream.Err())
	}
	ended := spans.Ended()
	if len(ended) != 1 {
		t.Fatalf("%d spans were recorded of one refused stream", len(ended))
	}
	got := attribute.NewSet(ended[0].Attributes()...)
	if v, _ := got.Value("rpc.response.status_code"); v.AsString() != "unauthenticated" || ended[0].Status().Code == codes.Error {
		t.Errorf("code is %q, status %v: what a caller did wrong is no error of the server's", v.AsString(), ended[0].Status())
	}
}
