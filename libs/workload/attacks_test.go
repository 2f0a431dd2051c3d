package workload_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// world is a plane with two tenants, and whatever attackers hold of it.
type world struct {
	mine, sibling, control, prod ceremony
	trust                        workload.Trust
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{
		mine:    hold(t, workload.TrustDomain{Plane: plane, Tenant: id.NewTenant()}),
		sibling: hold(t, workload.TrustDomain{Plane: plane, Tenant: id.NewTenant()}),
		control: hold(t, workload.TrustDomain{Plane: plane}),
	}
	w.prod = hold(t, workload.TrustDomain{Plane: "prod", Tenant: w.mine.root.TrustDomain().Tenant})
	w.trust = workload.Trust{Plane: plane, Tenant: w.tenant(), TenantRoots: w.mine.roots(t), PlaneRoots: w.control.roots(t)}
	return w
}

func (w world) tenant() id.Tenant { return w.mine.root.TrustDomain().Tenant }

func pool(roots ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, root := range roots {
		p.AddCert(root)
	}
	return p
}

// serve runs a real HTTPS server on loopback until the test ends.
func serve(t testing.TB, config *tls.Config, handler http.Handler) (addr string) {
	t.Helper()
	addr, _ = serveLogging(t, config, handler)
	return addr
}

// lines is a log as a channel that never blocks its writer.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}

func serveLogging(t testing.TB, config *tls.Config, handler http.Handler) (addr string, errorLog <-chan string) {
	t.Helper()
	said := make(lines, 64)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.NewTextHandler(said, nil), slog.LevelError), TLSConfig: config}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String(), said
}

// ask makes one request as whoever holds the certificate, with a client that doesn't care whom it talks to.
func ask(ctx context.Context, addr string, presents *tls.Certificate) (string, error) {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // G402: an attacker doesn't verify
	if presents != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return presents, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	return get(ctx, transport, "https://"+addr)
}

func get(ctx context.Context, transport http.RoundTripper, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// greeter answers who it takes the caller for, and counts.
func greeter(anchors workload.Anchors, calls *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		peer, ok, err := workload.Peer(*r.TLS, anchors)
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case !ok:
			_, _ = io.WriteString(w, "a user")
		default:
			_, _ = io.WriteString(w, peer.URI()) //nolint:gosec // G705: nobody renders it
		}
	})
}

func TestServerKnowsItsOwnTenantsServicesAndTheControlPlanes(t *testing.T) {
	w := newWorld(t)
	config, err := workload.ServerTLS(w.mine.source(t, "iam"), w.trust)
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	addr := serve(t, config, greeter(w.trust, &calls))
	audit, gateway := pair(t, w.mine.keypair(t, "audit")), pair(t, w.control.keypair(t, "gateway"))
	for name, c := range map[string]struct {
		presents *tls.Certificate
		want     string
	}{
		"a sibling service": {&audit, of(w.tenant(), "audit").URI()},
		"the gateway":       {&gateway, control("gateway").URI()},
		"a user":            {nil, "a user"},
	} {
		if got, err := ask(t.Context(), addr, c.presents); err != nil || got != c.want {
			t.Errorf("%s was taken for %q, %v", name, got, err)
		}
	}
}

func TestServerRefusesEveryForgeryInTheHandshake(t *testing.T) {
	w := newWorld(t)
	source := w.mine.source(t, "discovery")
	for name, f := range forgeries(t, w, of(w.tenant(), "iam")) {
		t.Run(name, func(t *testing.T) {
			config, err := workload.ServerTLS(source, f.trust)
			if err != nil {
				t.Fatal(err)
			}
			var calls atomic.Int64
			addr, errorLog := serveLogging(t, config, greeter(f.trust, &calls))
			if _, err := ask(t.Context(), addr, nil); err != nil || calls.Swap(0) != 1 {
				t.Fatalf("the server doesn't serve at all: %v", err)
			}
			answer, err := ask(t.Context(), addr, &f.presents)
			if err == nil || calls.Load() != 0 {
				t.Fatalf("the handler was reached and answered %q, %v", answer, err)
			}
			if line := <-errorLog; !strings.Contains(line, "TLS handshake error") || !strings.Contains(line, f.because) {
				t.Errorf("the handshake failed for another reason than %q: %s", f.because, line)
			}
		})
	}
}

func TestPeerRefusesEveryForgeryByItself(t *testing.T) {
	w := newWorld(t)
	for name, f := range forgeries(t, w, of(w.tenant(), "iam")) {
		t.Run(name, func(t *testing.T) {
			verifier, err := workload.NewVerifier(f.trust)
			if err != nil {
				t.Fatal(err)
			}
			state := presented(t, f.presents)
			for by, peer := range map[string]func() (workload.Identity, bool, error){
				"Peer":          func() (workload.Identity, bool, error) { return workload.Peer(state, f.trust) },
				"Verifier.Peer": func() (workload.Identity, bool, error) { return verifier.Peer(state) },
			} {
				got, ok, err := peer()
				if err == nil || ok || got != (workload.Identity{}) {
					t.Errorf("%s took it for %v, %v", by, got, ok)
				} else if !strings.Contains(err.Error(), f.because) {
					t.Errorf("%s refused it for another reason than %q: %v", by, f.because, err)
				}
			}
		})
	}
}

func TestClientRefusesEveryForgedServer(t *testing.T) {
	w := newWorld(t)
	want := of(w.tenant(), "iam")
	source := w.mine.source(t, "discovery")
	impostors := forgeries(t, w, want)
	impostors["another service of the tenant"] = forgery{trust: w.trust, presents: pair(t, w.mine.keypair(t, "audit"))}
	impostors["another service under the right pseudo-host"] = forgery{trust: w.trust, presents: stolen(t, w.mine.issuer).presents(t, func(l *x509.Certificate) {
		name(t, l, of(w.tenant(), "audit"))
		l.DNSNames = []string{want.ServerName()}
	})}
	impostors["the gateway"] = forgery{trust: w.trust, presents: pair(t, w.control.keypair(t, "gateway"))}
	impostors["the right pseudo-host and no URI"] = forgery{trust: w.trust, presents: stolen(t, w.mine.issuer).presents(t, func(l *x509.Certificate) {
		l.DNSNames = []string{want.ServerName()}
	})}
	for name, f := range impostors {
		t.Run(name, func(t *testing.T) {
			if name == "a chain without end" {
				t.Skip("harmless from a server: the client dialled it, and verifies what belongs to the chain")
			}
			var calls atomic.Int64
			addr := serve(t, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{f.presents}, NextProtos: []string{"h2"}}, greeter(f.trust, &calls))
			transport, err := workload.NewTransport(workload.TransportConfig{Source: source, Anchors: f.trust, Resolver: workload.Addresses{want: addr}})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := get(t.Context(), transport, "https://"+want.ServerName())
			if err == nil || calls.Load() != 0 {
				t.Errorf("it was taken for %s and answered %q", want, answer)
			}
		})
	}
}

func TestOlderTLSIsRefused(t *testing.T) {
	w := newWorld(t)
	config, err := workload.ServerTLS(w.mine.source(t, "iam"), w.trust)
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	addr := serve(t, config, greeter(w.trust, &calls))
	old := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}} //nolint:gosec // G402: that is the attack
	if _, err := get(t.Context(), old, "https://"+addr); err == nil || calls.Load() != 0 {
		t.Errorf("TLS 1.2 reached the handler: %v", err)
	}
}

func TestSessionsAreNotResumedOnAnOldProof(t *testing.T) {
	w := newWorld(t)
	config, err := workload.ServerTLS(w.mine.source(t, "iam"), w.trust)
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	addr := serve(t, config, greeter(w.trust, &calls))
	client, err := workload.ClientTLS(w.mine.source(t, "audit"), w.trust, of(w.tenant(), "iam"))
	if err != nil {
		t.Fatal(err)
	}
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		var resumed bool
		verify := client.VerifyConnection
		counting := client.Clone()
		counting.VerifyConnection = func(state tls.ConnectionState) error { resumed = state.DidResume; return verify(state) }
		transport := &http.Transport{TLSClientConfig: counting, ForceAttemptHTTP2: true, DisableKeepAlives: true}
		if _, err := get(t.Context(), transport, "https://"+addr); err != nil || resumed {
			t.Errorf("resumed: %v, %v", resumed, err)
		}
	}
}

func TestNobodyIsTrustedWhereNothingIsSaid(t *testing.T) {
	w := newWorld(t)
	source := w.mine.source(t, "iam")
	state := presented(t, pair(t, w.mine.keypair(t, "audit")))
	gateway := presented(t, pair(t, w.control.keypair(t, "gateway")))
	for name, anchors := range map[string]workload.Anchors{
		"nil":             nil,
		"zero":            workload.Trust{},
		"plane alone":     workload.Trust{Plane: plane},
		"no pools":        workload.Trust{Plane: plane, Tenant: w.tenant()},
		"a nil pool":      workload.AnchorsFunc(func(workload.TrustDomain) (*x509.CertPool, error) { return nil, nil }),
		"roots crossed":   workload.Trust{Plane: plane, Tenant: w.tenant(), TenantRoots: w.trust.PlaneRoots, PlaneRoots: w.trust.TenantRoots},
		"another plane":   workload.Trust{Plane: "prod", Tenant: w.tenant(), TenantRoots: w.trust.TenantRoots, PlaneRoots: w.trust.PlaneRoots},
		"another's roots": workload.Trust{Plane: plane, Tenant: w.sibling.root.TrustDomain().Tenant, TenantRoots: w.trust.TenantRoots},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []tls.ConnectionState{state, gateway} {
				if got, ok, err := workload.Peer(s, anchors); err == nil || ok {
					t.Errorf("it trusts %v", got)
				}
			}
			if name == "roots crossed" {
				return // there are pools; the handshake above is what fails
			}
			if _, err := workload.ClientTLS(source, anchors, of(w.tenant(), "audit")); err == nil {
				t.Error("a client would fall back to the machine's own roots")
			}
		})
	}
	if _, err := workload.ServerTLS(source, nil); err == nil {
		t.Error("a server without roots was configured")
	}
	if _, err := workload.NewVerifier(nil); err == nil {
		t.Error("a verifier without roots was made")
	}
}

// presented is what crypto/tls shows of a peer that presented this chain.
func presented(t testing.TB, chain tls.Certificate) tls.ConnectionState {
	t.Helper()
	var state tls.ConnectionState
	for _, der := range chain.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		state.PeerCertificates = append(state.PeerCertificates, c)
	}
	return state
}
