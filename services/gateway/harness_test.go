package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/config"
	"a3os.app/libs/drain"
	"a3os.app/libs/id"
	"a3os.app/libs/rpc"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
	"a3os.app/services/gateway"
)

const domain = "a3.test"

// harness is a plane as a gateway sees it: authorities, a registry's stream, tenants' services, all with real TLS.
type harness struct {
	t            *testing.T
	root, issuer workload.Authority
	signer       *snapshot.Signer
	public       ed25519.PublicKey
	certFile     string
	keyFile      string
	clientRoots  *x509.CertPool
	registry     *registry
	version      int64
	snapshotFile string
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, snapshotFile: filepath.Join(t.TempDir(), "snapshot")}
	h.root, h.issuer = authority(t, workload.TrustDomain{Plane: "dev"})
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.public = public
	if h.signer, err = snapshot.NewSigner("dev", private); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h.certFile, h.keyFile, h.clientRoots = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), x509.NewCertPool()
	h.newCertificate(time.Hour)
	h.registry = h.startRegistry(freeAddress(t))
	return h
}

func authority(t *testing.T, d workload.TrustDomain) (root, issuer workload.Authority) {
	t.Helper()
	root, err := workload.NewRoot(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if issuer, err = root.NewIntermediate(time.Now()); err != nil {
		t.Fatal(err)
	}
	return root, issuer
}

func source(t *testing.T, issuer workload.Authority, who workload.Identity) (*workload.Source, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	pair, err := issuer.IssueKeypair(who, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Save(dir); err != nil {
		t.Fatal(err)
	}
	s, err := workload.OpenSource(dir, who)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// newCertificate writes a new certificate of the gateway for clients, which lasts for so long, and makes clients trust it. It answers its
// serial number.
func (h *harness) newCertificate(lasts time.Duration) *big.Int {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain, "*." + domain},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lasts), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		h.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	h.clientRoots.AppendCertsFromPEM(cert)
	write(h.t, h.certFile, cert)
	write(h.t, h.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	return template.SerialNumber
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// registry is the registry's stream without its database: it sends what it is given, good or not.
type registry struct {
	registryv1.UnimplementedSnapshotServiceServer
	addr string
	stop func()

	mu      sync.Mutex
	sent    []*registryv1.WatchSnapshotResponse
	asked   []*registryv1.WatchSnapshotRequest
	changed chan struct{}
}

func (h *harness) startRegistry(addr string) *registry {
	h.t.Helper()
	r := &registry{addr: addr, changed: make(chan struct{})}
	who := workload.Identity{Plane: "dev", Service: "registry"}
	src, _ := source(h.t, h.issuer, who)
	trust := workload.Trust{Plane: "dev", PlaneRoots: h.roots(workload.TrustDomain{Plane: "dev"}, h.root)}
	creds, err := workload.GRPCServerCredentials(src, trust)
	if err != nil {
		h.t.Fatal(err)
	}
	srv, err := rpc.NewGRPCServer(rpc.GRPCConfig{Identity: who, Credentials: creds,
		Peer: func(_ context.Context, info credentials.AuthInfo) (workload.Identity, error) {
			peer, _, err := workload.Peer(info.(credentials.TLSInfo).State, trust)
			return peer, err
		}}, func(s grpc.ServiceRegistrar) { registryv1.RegisterSnapshotServiceServer(s, r) })
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(ctx, addr); err != nil {
			h.t.Errorf("the registry's stream ended with %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	h.t.Cleanup(r.stop)
	return r
}

func (h *harness) roots(d workload.TrustDomain, a workload.Authority) *x509.CertPool {
	h.t.Helper()
	p, err := workload.ParseRoots(d, a.CertificatePEM())
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (r *registry) send(s *registryv1.SignedSnapshot) {
	r.answer(&registryv1.WatchSnapshotResponse{Snapshot: s})
}

func (r *registry) answer(s *registryv1.WatchSnapshotResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, s)
	close(r.changed)
	r.changed = make(chan struct{})
}

// WatchSnapshot sends the newest that it was given, and from then on each one in its order.
func (r *registry) WatchSnapshot(req *registryv1.WatchSnapshotRequest, stream grpc.ServerStreamingServer[registryv1.WatchSnapshotResponse]) error {
	r.mu.Lock()
	r.asked = append(r.asked, req)
	next := max(0, len(r.sent)-1)
	r.mu.Unlock()
	for {
		r.mu.Lock()
		sent, changed := r.sent, r.changed
		r.mu.Unlock()
		for ; next < len(sent); next++ {
			if err := stream.Send(sent[next]); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// publish signs and sends a snapshot of these tenants.
func (h *harness) publish(tenants ...*tenant) *registryv1.SignedSnapshot {
	h.t.Helper()
	s := h.sign(tenants...)
	h.registry.send(s)
	return s
}

func (h *harness) sign(tenants ...*tenant) *registryv1.SignedSnapshot {
	h.t.Helper()
	h.version++
	signed, err := h.signer.Sign(&registryv1.Snapshot{Plane: "dev", Version: h.version, Routes: routesTo(tenants)})
	if err != nil {
		h.t.Fatal(err)
	}
	return signed
}

func routesTo(tenants []*tenant) (routes []*registryv1.Route) {
	for _, x := range tenants {
		r := &registryv1.Route{Slug: x.slug, TenantId: x.id.String(), CaCertificatesPem: string(x.root.CertificatePEM())}
		for _, s := range x.services {
			r.Components = append(r.Components, &registryv1.Component{Name: s.name, Address: s.addr, PathPrefixes: s.prefixes})
		}
		routes = append(routes, r)
	}
	return routes
}

// change signs a change from the last version to a new one: these tenants are new or other, and those are gone.
func (h *harness) change(gone []*tenant, tenants ...*tenant) *registryv1.SignedSnapshotChange {
	h.t.Helper()
	h.version++
	c := &registryv1.SnapshotChange{Plane: "dev", FromVersion: h.version - 1, Version: h.version, Routes: routesTo(tenants)}
	for _, x := range gone {
		c.RemovedTenantIds = append(c.RemovedTenantIds, x.id.String())
	}
	signed, err := h.signer.SignChange(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return signed
}

// tenant is a tenant with its services.
type tenant struct {
	h            *harness
	slug         string
	id           id.Tenant
	root, issuer workload.Authority
	services     []*service
}

// service is one listening service of a tenant.
type service struct {
	name, addr string
	prefixes   []string
	server     *http.Server
	seen       chan *http.Request
}

func (h *harness) tenant(slug string) *tenant {
	h.t.Helper()
	x := &tenant{h: h, slug: slug, id: id.NewTenant()}
	x.root, x.issuer = authority(h.t, workload.TrustDomain{Plane: "dev", Tenant: x.id})
	return x
}

// serve starts a service; a nil handler answers who it is and keeps the request.
func (x *tenant) serve(name string, handler http.Handler, prefixes ...string) *service {
	x.h.t.Helper()
	s := &service{name: name, addr: freeAddress(x.h.t), prefixes: prefixes, seen: make(chan *http.Request, 4096)}
	x.services = append(x.services, s)
	if handler == nil {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			s.seen <- r
			w.Header().Set("X-Seen-Body", strings.ReplaceAll(string(body), "\n", " "))
			_, _ = io.WriteString(w, x.slug+"/"+s.name)
		})
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		x.h.t.Fatal(err)
	}
	s.server = &http.Server{Handler: handler, TLSConfig: x.serverTLS(name), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = s.server.ServeTLS(l, "", "") }()
	x.h.t.Cleanup(func() { _ = s.server.Close() })
	return s
}

// trust is whom the tenant's services believe.
func (x *tenant) trust() workload.Trust {
	x.h.t.Helper()
	return workload.Trust{Plane: "dev", Tenant: x.id, PlaneRoots: x.h.roots(workload.TrustDomain{Plane: "dev"}, x.h.root),
		TenantRoots: x.h.roots(workload.TrustDomain{Plane: "dev", Tenant: x.id}, x.root)}
}

func (x *tenant) serverTLS(name string) *tls.Config {
	x.h.t.Helper()
	src, _ := source(x.h.t, x.issuer, workload.Identity{Plane: "dev", Tenant: x.id, Service: name})
	conf, err := workload.ServerTLS(src, x.trust())
	if err != nil {
		x.h.t.Fatal(err)
	}
	return conf
}

// restartable declares a service that a test starts, and ends, and starts again: with the server that services have.
func (x *tenant) restartable(name string, prefixes ...string) *service {
	x.h.t.Helper()
	addr := freeAddress(x.h.t)
	if runtime.GOOS == "linux" {
		// An address of its own, whose ports no outgoing connection is given while nothing listens there.
		_, port, _ := strings.Cut(addr, ":")
		addr = "127.0.0.2:" + port
	}
	s := &service{name: name, addr: addr, prefixes: prefixes}
	x.services = append(x.services, s)
	return s
}

// run starts a service as services are run. What it answers ends the service and waits.
func (x *tenant) run(s *service, handler http.Handler) (end func() error) {
	x.h.t.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{Identity: workload.Identity{Plane: "dev", Tenant: x.id, Service: s.name}, TLS: x.serverTLS(s.name)},
		nil, []rpc.Route{{Pattern: "/", Handler: handler, Open: "a test's"}})
	if err != nil {
		x.h.t.Fatal(err)
	}
	l, err := drain.Listen(x.h.t.Context(), s.addr)
	if err != nil {
		x.h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.h.t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.ServeListener(ctx, l) }()
	end = sync.OnceValue(func() error { cancel(); return <-done })
	x.h.t.Cleanup(func() { _ = end() })
	return end
}

// process is a running gateway.
type process struct {
	h    *harness
	addr string
	// stop asks it to end and waits; kill is the same for a test that expects requests to be cut.
	stop func() error
	ask  context.CancelFunc
}

// start runs a gateway. More configuration is `A3_X=y`.
func (h *harness) start(more ...string) *process {
	h.t.Helper()
	p := &process{h: h, addr: freeAddress(h.t)}
	_, dir := source(h.t, h.issuer, workload.Identity{Plane: "dev", Service: "gateway"})
	environ := []string{
		"A3_PLANE=dev", "A3_LISTEN=" + p.addr, "A3_CERT_DIR=" + dir, "A3_LOG_LEVEL=error", "A3_LEAVE_WITHIN=50ms", "A3_TENANT_RATE=10000", "A3_DOMAIN=" + domain, "A3_REGISTRY=" + h.registry.addr,
		"A3_PLANE_ROOTS=" + write(h.t, filepath.Join(h.t.TempDir(), "roots.pem"), h.root.CertificatePEM()),
		"A3_TLS_CERT=" + h.certFile, "A3_TLS_KEY=" + h.keyFile, "A3_SNAPSHOT=" + h.snapshotFile, "A3_SNAPSHOT_KEYS=" + snapshot.FormatPublicKey(h.public),
	}
	for _, kv := range more {
		name, _, _ := strings.Cut(kv, "=")
		environ = slices.DeleteFunc(environ, func(have string) bool { return strings.HasPrefix(have, name+"=") })
	}
	cfg, err := config.Load[gateway.Config]("gateway", append(environ, more...))
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan error, 1)
	go func() { done <- gateway.Run(ctx, cfg) }()
	p.ask = cancel
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	h.t.Cleanup(func() {
		if err := p.stop(); err != nil {
			h.t.Errorf("the gateway ended with %v", err)
		}
	})
	return p
}

// client is an HTTP client that finds every host at the gateway; http1 keeps it from HTTP/2.
func (p *process) client(http1 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: p.h.clientRoots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: !http1,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, p.addr)
		},
		MaxIdleConnsPerHost: 64,
	}
	if http1 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	p.h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, r)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// answer is an answer read whole.
type answer struct {
	*http.Response
	body string
}

func do(t *testing.T, c *http.Client, req *http.Request) answer {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return answer{Response: res, body: string(body)}
}

// until asks again until the answer has the status and body wanted: a change is on its way.
func (p *process) until(slug, path string, status int, body string) {
	p.h.t.Helper()
	c := p.client(false)
	deadline := time.After(20 * time.Second)
	for {
		var last string
		res, err := c.Get("https://" + slug + "." + domain + path)
		if err == nil {
			raw, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == status && (body == "" || string(raw) == body) {
				return
			}
			last = res.Status + " " + string(raw)
		} else {
			last = err.Error()
		}
		select {
		case <-deadline:
			p.h.t.Fatalf("%s%s never answered %d %q; the last answer was %s", slug, path, status, body, last)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
