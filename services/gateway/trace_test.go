package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/libs/rpc"
	"a3os.app/libs/telemetry"
	"a3os.app/libs/workload"
)

// collector takes traces as OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracev1.Span
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var req collectorv1.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &req)
		}
		if err != nil {
			t.Errorf("the exporter sent what can't be read: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				c.spans = append(c.spans, ss.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

// find waits for the span of a name and kind in the trace of a request that had this name for its parent; empty for any trace.
func (c *collector) find(t *testing.T, trace, name string, kind tracev1.Span_SpanKind) *tracev1.Span {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		for _, s := range c.spans {
			if s.GetName() == name && s.GetKind() == kind && (trace == "" || hex.EncodeToString(s.GetTraceId()) == trace) {
				c.mu.Unlock()
				return s
			}
		}
		seen := len(c.spans)
		c.mu.Unlock()
		select {
		case <-deadline:
			t.Fatalf("no span %q of kind %s in trace %q among %d", name, kind, trace, seen)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// asking is a service that asks its sibling for something before it answers.
type asking struct {
	iamv1connect.UnimplementedSetupServiceHandler
	sibling iamv1connect.CertificateServiceClient
}

func (a asking) RedeemSetupCode(ctx context.Context, _ *connect.Request[iamv1.RedeemSetupCodeRequest]) (*connect.Response[iamv1.RedeemSetupCodeResponse], error) {
	_, err := a.sibling.IssueCertificate(ctx, connect.NewRequest(&iamv1.IssueCertificateRequest{Csr: make([]byte, 64)}))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&iamv1.RedeemSetupCodeResponse{}), nil
}

type asked struct {
	iamv1connect.UnimplementedCertificateServiceHandler
}

func (asked) IssueCertificate(context.Context, *connect.Request[iamv1.IssueCertificateRequest]) (*connect.Response[iamv1.IssueCertificateResponse], error) {
	return connect.NewResponse(&iamv1.IssueCertificateResponse{}), nil
}

// handler is a service as every member of a set makes it: rpc's server with its chain.
func (x *tenant) handler(name string, svc rpc.Service) http.Handler {
	x.h.t.Helper()
	trust := x.trust()
	s, err := rpc.NewServer(rpc.ServerConfig{Identity: workload.Identity{Plane: "dev", Tenant: x.id, Service: name},
		Peer: func(state tls.ConnectionState) (workload.Identity, bool, error) { return workload.Peer(state, trust) }}, []rpc.Service{svc}, nil)
	if err != nil {
		x.h.t.Fatal(err)
	}
	return s.Handler()
}

// A request is one trace from the gateway to the service and on to its sibling: the caller's where it names one, else one that the
// gateway begins; each span is the child of the one before it.
func TestRequestIsOneTraceFromTheGatewayToTheLastService(t *testing.T) {
	before := otel.GetTracerProvider()
	logger := slog.Default()
	t.Cleanup(func() { otel.SetTracerProvider(before); slog.SetDefault(logger) })
	c := newCollector(t)
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	// The services' own; the gateway sets up another when it starts.
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "services", Level: "error"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.WithoutCancel(t.Context())) })

	h := newHarness(t)
	acme := h.tenant("acme")
	who := func(name string) workload.Identity {
		return workload.Identity{Plane: "dev", Tenant: acme.id, Service: name}
	}
	iam := acme.serve("iam", acme.handler("iam", rpc.Mount(iamv1connect.NewCertificateServiceHandler, iamv1connect.CertificateServiceHandler(asked{}))))
	src, _ := source(t, acme.issuer, who("discovery"))
	transport, err := workload.NewTransport(workload.TransportConfig{Source: src, Anchors: acme.trust(), Resolver: workload.Addresses{who("iam"): iam.addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	sibling, err := rpc.ToWorkload(transport, who("iam"), iamv1connect.NewCertificateServiceClient)
	if err != nil {
		t.Fatal(err)
	}
	acme.serve("discovery", acme.handler("discovery", rpc.Mount(iamv1connect.NewSetupServiceHandler, iamv1connect.SetupServiceHandler(asking{sibling: sibling}))), "/a3os.iam.v1.")
	p := h.start()
	h.publish(acme)
	p.until("acme", "/a3os.iam.v1.Nothing/Nothing", http.StatusNotFound, "404 page not found\n")

	client := iamv1connect.NewSetupServiceClient(p.client(false), "https://acme."+domain)
	call := func(traceparent string) {
		t.Helper()
		req := connect.NewRequest(&iamv1.RedeemSetupCodeRequest{Code: "a code that is long enough"})
		if traceparent != "" {
			req.Header().Set("Traceparent", traceparent)
		}
		if _, err := client.RedeemSetupCode(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	const (
		redeem, issue  = "a3os.iam.v1.SetupService/RedeemSetupCode", "a3os.iam.v1.CertificateService/IssueCertificate"
		server, out    = tracev1.Span_SPAN_KIND_SERVER, tracev1.Span_SPAN_KIND_CLIENT
		theirs, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	)
	inOrder := func(trace string) *tracev1.Span {
		t.Helper()
		service := c.find(t, trace, redeem, server)
		trace = hex.EncodeToString(service.GetTraceId())
		last := c.find(t, trace, issue, server)
		asks := c.find(t, trace, issue, out)
		gateway := c.find(t, trace, "discovery", server)
		for _, pair := range [][2]*tracev1.Span{{gateway, service}, {service, asks}, {asks, last}} {
			if string(pair[1].GetParentSpanId()) != string(pair[0].GetSpanId()) {
				t.Errorf("span %q is no child of %q", pair[1].GetName(), pair[0].GetName())
			}
		}
		return gateway
	}
	call("")
	if root := inOrder(""); len(root.GetParentSpanId()) != 0 {
		t.Errorf("the gateway's span has the parent %x, and nobody was before it", root.GetParentSpanId())
	}
	call("00-" + theirs + "-" + parent + "-01")
	if g := inOrder(theirs); hex.EncodeToString(g.GetParentSpanId()) != parent {
		t.Errorf("the gateway's span is a child of %x, not of the caller's", g.GetParentSpanId())
	}
	// What can't be read of a trace begins a new one, and is passed on to nobody.
	call("00-" + theirs + "-zz-01")
}
