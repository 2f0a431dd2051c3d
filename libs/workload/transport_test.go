package workload_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"a3os.app/libs/workload"
)

// fleet is what the gateway and the registry trust: each tenant under its own root, and the control plane.
func (w world) fleet(t testing.TB) workload.Anchors {
	t.Helper()
	known := map[workload.TrustDomain]*x509.CertPool{}
	for _, c := range []ceremony{w.mine, w.sibling, w.control} {
		known[c.root.TrustDomain()] = c.roots(t)
	}
	return workload.AnchorsFunc(func(d workload.TrustDomain) (*x509.CertPool, error) {
		if roots, ok := known[d]; ok {
			return roots, nil
		}
		return nil, errors.New("unknown tenant")
	})
}

// moving is a Resolver whose addresses change.
type moving struct {
	mu        sync.Mutex
	addresses workload.Addresses
}

func (m *moving) Resolve(ctx context.Context, want workload.Identity) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addresses.Resolve(ctx, want)
}

func (m *moving) move(who workload.Identity, addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if addr == "" {
		delete(m.addresses, who)
		return
	}
	m.addresses[who] = addr
}

func transport(t testing.TB, source *workload.Source, anchors workload.Anchors, resolver workload.Resolver) *workload.Transport {
	t.Helper()
	made, err := workload.NewTransport(workload.TransportConfig{Source: source, Anchors: anchors, Resolver: resolver})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.CloseIdleConnections)
	return made
}

// house is a service of a tenant that says its name and counts connections and calls.
type house struct {
	addr               string
	who                workload.Identity
	calls, connections atomic.Int64
}

func build(t testing.TB, c ceremony, service string, trust workload.Anchors) *house {
	t.Helper()
	source := c.source(t, service)
	config, err := workload.ServerTLS(source, trust)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{who: source.Identity()}
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		h.connections.Add(1)
		return verify(state)
	}
	h.addr = serve(t, config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.calls.Add(1)
		_, _ = io.WriteString(w, h.who.URI()+" "+r.Proto) //nolint:gosec // G705: nobody renders it
	}))
	return h
}

func (w world) trustOf(t testing.TB, c ceremony) workload.Trust {
	t.Helper()
	return workload.Trust{Plane: plane, Tenant: c.root.TrustDomain().Tenant, TenantRoots: c.roots(t), PlaneRoots: w.control.roots(t)}
}

func TestAddressReusedByAnotherTenantIsAClosedDoor(t *testing.T) {
	w := newWorld(t)
	mine, sibling := build(t, w.mine, "iam", w.trustOf(t, w.mine)), build(t, w.sibling, "iam", w.trustOf(t, w.sibling))
	where := &moving{addresses: workload.Addresses{mine.who: mine.addr, sibling.who: sibling.addr}}
	gateway := transport(t, w.control.source(t, "gateway"), w.fleet(t), where)
	for _, h := range []*house{mine, sibling} {
		if got, err := get(t.Context(), gateway, "https://"+h.who.ServerName()); err != nil || got != h.who.URI()+" HTTP/2.0" {
			t.Fatalf("%s answered %q, %v", h.who, got, err)
		}
	}

	// The sibling's process now listens where mine did: to the resolver both are at one address, and the pool holds a proven
	// connection to that very address.
	where.move(mine.who, sibling.addr)
	before := sibling.calls.Load()
	if got, err := get(t.Context(), gateway, "https://"+mine.who.ServerName()); err == nil {
		t.Errorf("a request for %s was answered by %q", mine.who, got)
	}
	if sibling.calls.Load() != before || mine.calls.Load() != 1 {
		t.Error("a handler was reached")
	}
	if got, err := get(t.Context(), gateway, "https://"+sibling.who.ServerName()); err != nil || got != sibling.who.URI()+" HTTP/2.0" {
		t.Errorf("the sibling itself suffers: %q, %v", got, err)
	}
	if n := sibling.connections.Load(); n != 1 {
		t.Errorf("the sibling completed %d handshakes, want the one that was for it", n)
	}
}

func TestConnectionsAreReusedPerWorkload(t *testing.T) {
	w := newWorld(t)
	iam, audit := build(t, w.mine, "iam", w.trust), build(t, w.mine, "audit", w.trust)
	caller := transport(t, w.mine.source(t, "discovery"), w.trust, workload.Addresses{iam.who: iam.addr, audit.who: audit.addr})
	for range 20 {
		for _, h := range []*house{iam, audit} {
			if _, err := get(t.Context(), caller, "https://"+h.who.ServerName()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if iam.connections.Load() != 1 || audit.connections.Load() != 1 {
		t.Errorf("20 requests each took %d and %d connections", iam.connections.Load(), audit.connections.Load())
	}
}

func TestWithdrawnAddressStopsRequestsOverStandingConnections(t *testing.T) {
	w := newWorld(t)
	iam := build(t, w.mine, "iam", w.trust)
	where := &moving{addresses: workload.Addresses{iam.who: iam.addr}}
	caller := transport(t, w.mine.source(t, "discovery"), w.trust, where)
	if _, err := get(t.Context(), caller, "https://"+iam.who.ServerName()); err != nil {
		t.Fatal(err)
	}
	where.move(iam.who, "")
	if _, err := get(t.Context(), caller, "https://"+iam.who.ServerName()); err == nil || iam.calls.Load() != 1 {
		t.Errorf("a suspended workload was still called: %v", err)
	}
}

func TestTransportCallsWorkloadsAndNobodyElse(t *testing.T) {
	w := newWorld(t)
	iam := build(t, w.mine, "iam", w.trust)
	caller := transport(t, w.mine.source(t, "discovery"), w.trust, workload.Addresses{
		iam.who: iam.addr,
		of(w.sibling.root.TrustDomain().Tenant, "iam"): iam.addr,
	})
	sibling := of(w.sibling.root.TrustDomain().Tenant, "iam")
	for name, c := range map[string]struct{ address, because string }{
		"no TLS":                  {"http://" + iam.who.ServerName(), "are called at https"},
		"an address":              {"https://" + iam.addr, "are called at https"},
		"a port":                  {"https://" + iam.who.ServerName() + ":8443", "are called at https"},
		"another case":            {"https://IAM" + iam.who.ServerName()[3:], "is not a service name"},
		"another host":            {"https://example.com", "is not a trust domain"},
		"a tenant not trusted":    {"https://" + sibling.ServerName(), "is not trusted here"},
		"a service without place": {"https://" + of(w.tenant(), "audit").ServerName(), "no address is known"},
	} {
		if got, err := get(t.Context(), caller, c.address); err == nil || !strings.Contains(err.Error(), c.because) {
			t.Errorf("%s: answered %q, %v", name, got, err)
		}
	}
	if iam.calls.Load() != 0 {
		t.Error("a handler was reached")
	}
	if _, err := workload.NewTransport(workload.TransportConfig{}); err == nil {
		t.Error("a transport of nothing was made")
	}
}

func TestRenewalCutsNothingOffAndNewRequestsUseTheNewCertificate(t *testing.T) {
	w := newWorld(t)
	server, client := w.mine.source(t, "iam"), w.mine.source(t, "discovery")
	config, err := workload.ServerTLS(server, w.trust)
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/serial" {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].SerialNumber.String()) //nolint:gosec // G705: a number
			return
		}
		// An echo, line by line: a stream in both directions.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		buffer := make([]byte, 1)
		for {
			if _, err := io.ReadFull(r.Body, buffer); err != nil {
				return
			}
			_, _ = w.Write(buffer)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	caller := transport(t, client, w.trust, workload.Addresses{server.Identity(): addr})
	base := "https://" + server.Identity().ServerName()

	reader, writer := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/echo", reader)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = writer.Write([]byte("a")) }()
	stream, err := caller.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Body.Close() }()
	echo := func(letter string) {
		t.Helper()
		buffer := make([]byte, 1)
		if _, err := io.ReadFull(stream.Body, buffer); err != nil || string(buffer) != letter {
			t.Fatalf("the stream gave %q, %v, want %q", buffer, err, letter)
		}
	}
	echo("a")
	if got, err := get(t.Context(), caller, base+"/serial"); err != nil || got != client.Leaf().SerialNumber.String() {
		t.Fatalf("the server sees certificate %s, %v", got, err)
	}

	for _, source := range []*workload.Source{server, client} {
		renewed, err := w.mine.issuer.IssueKeypair(source.Identity(), time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if err := source.Store(renewed); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := get(t.Context(), caller, base+"/serial"); err != nil || got != client.Leaf().SerialNumber.String() {
		t.Errorf("after the renewal the server sees certificate %s, %v, want %s", got, err, client.Leaf().SerialNumber)
	}
	look := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // G402: only looks which certificate is shown
	plain, err := look.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if shown, ok := plain.(*tls.Conn); !ok || !shown.ConnectionState().PeerCertificates[0].Equal(server.Leaf()) {
		t.Error("the server still shows its old certificate")
	}

	if _, err := writer.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	echo("b")
	_ = writer.Close()
	if rest, err := io.ReadAll(stream.Body); err != nil || len(rest) != 0 {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
}
