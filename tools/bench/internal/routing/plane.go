package routing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

const (
	devPlane = "dev"
	// slug of the tenant whose route changes, service of its one component.
	slug, service = "changing", "front"
	answer        = "here"
)

// plane is a plane of its own with one tenant that is served from here and thousands that are there to be routed.
type plane struct {
	fleet    string
	environ  []string
	tenant   id.Tenant
	roots    string
	client   *http.Client
	front    string
	writes   registryv1.TenantWriteServiceClient
	registry *grpc.ClientConn
	upstream *httptest.Server // the same answers, for Caddy, without TLS
	server   *http.Server
	address  string
}

func newPlane(ctx context.Context, cfg Config, dir string) (p *plane, err error) {
	p = &plane{fleet: filepath.Join(cfg.Root, "bin", "fleet"), tenant: id.NewTenant(),
		upstream: httptest.NewServer(http.HandlerFunc(answers))}
	if p.fleet, err = filepath.Abs(p.fleet); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close(context.WithoutCancel(ctx)))
		}
	}()
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p.front = addr
	_, port, _ := net.SplitHostPort(addr)
	home := filepath.Join(dir, "home")
	p.environ = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "A3_HOME=" + home, "A3_PORT=" + port, "A3_TENANTS=bench", "A3_UNIX_TENANTS=none", "A3_LOG_LEVEL=error"}
	if out, err := p.run(ctx, "plane", "up"); err != nil {
		return nil, fmt.Errorf("bring a plane up: %w: %s", err, out)
	}
	w, err := readHome(home)
	if err != nil {
		return nil, err
	}
	if err := p.serve(w); err != nil {
		return nil, err
	}
	if err := p.fill(ctx, w, cfg.Routes); err != nil {
		return nil, fmt.Errorf("fill the registry: %w", err)
	}
	if err := p.connect(w); err != nil {
		return nil, err
	}
	return p, p.begin(ctx)
}

func (p *plane) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.fleet, args...) //nolint:gosec // the program is ours
	cmd.Env = p.environ
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *plane) close(ctx context.Context) error {
	p.upstream.Close()
	if p.server != nil {
		_ = p.server.Close()
	}
	if p.registry != nil {
		_ = p.registry.Close()
	}
	if out, err := p.run(ctx, "plane", "down", "--remove-data"); err != nil {
		return fmt.Errorf("take the plane down: %w: %s", err, out)
	}
	return nil
}

// where is what a plane's home says about it.
type where struct {
	home, served string
	ports        map[string]int
}

func readHome(home string) (where, error) {
	var state struct {
		Served string         `json:"served"`
		Ports  map[string]int `json:"ports"`
	}
	text, err := os.ReadFile(filepath.Join(home, "plane.json"))
	if err != nil {
		return where{}, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return where{}, err
	}
	w := where{home: home, served: state.Served, ports: state.Ports}
	if w.served == "" {
		w.served = home
	}
	return w, nil
}

func answers(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) }

// serve makes the tenant's authority and listens as its service does.
func (p *plane) serve(w where) error {
	identity := workload.Identity{Plane: devPlane, Tenant: p.tenant, Service: service}
	root, err := workload.NewRoot(identity.TrustDomain(), time.Now())
	if err != nil {
		return err
	}
	issuing, err := root.NewIntermediate(time.Now())
	if err != nil {
		return err
	}
	pair, err := issuing.IssueKeypair(identity, time.Now())
	if err != nil {
		return err
	}
	dir := filepath.Join(filepath.Dir(w.home), "service")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := pair.Save(dir); err != nil {
		return err
	}
	source, err := workload.OpenSource(dir, identity)
	if err != nil {
		return err
	}
	planeRoots, err := os.ReadFile(filepath.Join(w.served, "pki", "roots.pem"))
	if err != nil {
		return err
	}
	trust := workload.Trust{Plane: devPlane, Tenant: p.tenant}
	p.roots = string(root.CertificatePEM())
	if trust.TenantRoots, err = workload.ParseRoots(identity.TrustDomain(), root.CertificatePEM()); err != nil {
		return err
	}
	if trust.PlaneRoots, err = workload.ParseRoots(workload.TrustDomain{Plane: devPlane}, planeRoots); err != nil {
		return err
	}
	config, err := workload.ServerTLS(source, trust)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback answers at once
	if err != nil {
		return err
	}
	p.address = l.Addr().String()
	p.server = &http.Server{Handler: http.HandlerFunc(answers), TLSConfig: config, ReadHeaderTimeout: giveUp, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = p.server.ServeTLS(l, "", "") }()
	return nil
}

// components of a tenant that is only there to be routed, as many as AccessOS has.
var components = map[string][]string{"audit": {"/a3os.audit.v1.", "/audit/v1/log/"}, "iam": {"/a3os.iam.v1.", "/oauth2/", "/.well-known/"},
	"integrations": {"/a3os.integrations.v1."}, "discovery": {"/a3os.discovery.v1."}, "discovery-worker": {}}

// fill writes tenants into the registry's database as if they had been made one by one, which would take an hour.
func (p *plane) fill(ctx context.Context, w where, routes int) error {
	text, err := os.ReadFile(filepath.Join(w.served, "plane", "database", "owner.url"))
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tenants := make([]id.Tenant, routes-1)
	roots := make([]string, len(tenants))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range tenants {
		g.Go(func() error {
			tenants[i] = id.NewTenant()
			root, err := workload.NewRoot(workload.TrustDomain{Plane: devPlane, Tenant: tenants[i]}, time.Now())
			roots[i] = string(root.CertificatePEM())
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// After what the registry has read, so that it reads them with the first change.
	var version int64
	if err := conn.QueryRow(ctx, "SELECT version + 1 FROM registry.snapshots").Scan(&version); err != nil {
		return err
	}
	var rows, slugs, sets, parts [][]any
	add := func(tenant id.Tenant, slug, roots string) {
		key := tenant.Bytes()
		rows = append(rows, []any{key, slug, slug, "active", "database", "local", version})
		slugs = append(slugs, []any{slug, key})
		sets = append(sets, []any{key, roots, "bench"})
	}
	add(p.tenant, slug, p.roots)
	for i, tenant := range tenants {
		add(tenant, fmt.Sprintf("t%05d", i), roots[i])
		n := 0
		for name, prefixes := range components {
			// An address of its own for each, in 127.64.0.0/10.
			address := fmt.Sprintf("127.%d.%d.%d:%d", 64+i>>16, i>>8&255, i&255, 20000+n)
			parts = append(parts, []any{tenant.Bytes(), name, int16(n), address, prefixes}) //nolint:gosec // at most five
			n++
		}
	}
	for _, t := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{
		{"tenants", []string{"id", "slug", "display_name", "state", "isolation_tier", "region", "routes_version"}, rows},
		{"slugs", []string{"slug", "tenant_id"}, slugs},
		{"service_sets", []string{"tenant_id", "ca_certificates_pem", "release"}, sets},
		{"components", []string{"tenant_id", "name", "position", "address", "path_prefixes"}, parts},
	} {
		if _, err := conn.CopyFrom(ctx, pgx.Identifier{"registry", t.table}, t.columns, pgx.CopyFromRows(t.rows)); err != nil {
			return fmt.Errorf("%s: %w", t.table, err)
		}
	}
	_, err = conn.Exec(ctx, "ANALYZE registry.tenants, registry.service_sets, registry.components")
	return err
}

// connect reaches the registry as its operator, and the gateway as anybody.
func (p *plane) connect(w where) error {
	operator := workload.Identity{Plane: devPlane, Service: "operator"}
	source, err := workload.OpenSource(filepath.Join(w.served, "pki", operator.Service), operator)
	if err != nil {
		return err
	}
	roots, err := os.ReadFile(filepath.Join(w.served, "pki", "roots.pem"))
	if err != nil {
		return err
	}
	pool, err := workload.ParseRoots(workload.TrustDomain{Plane: devPlane}, roots)
	if err != nil {
		return err
	}
	creds, err := workload.GRPCClientCredentials(source, workload.Trust{Plane: devPlane, PlaneRoots: pool}, workload.Identity{Plane: devPlane, Service: "registry"})
	if err != nil {
		return err
	}
	p.registry, err = grpc.NewClient("passthrough:///"+net.JoinHostPort("127.0.0.1", strconv.Itoa(w.ports["plane/registry/api"])), grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	p.writes = registryv1.NewTenantWriteServiceClient(p.registry)
	ca, err := os.ReadFile(filepath.Join(w.home, "web", "ca.pem"))
	if err != nil {
		return err
	}
	web := x509.NewCertPool()
	web.AppendCertsFromPEM(ca)
	p.client = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true,
		// The plane's certificate names the tenants that fleet made, and this one is none of them.
		TLSClientConfig: &tls.Config{RootCAs: web, ServerName: "bench.localhost", MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, p.front)
		},
	}}
	return nil
}

// begin publishes everything, and returns when the gateway routes by it.
func (p *plane) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	if err := p.change(ctx, "/steady"); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		there, err := p.leads(ctx, p.steady())
		if err == nil && there {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the gateway does not route to it: %w", errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (p *plane) steady() string { return "/steady" }

func (p *plane) change(ctx context.Context, path string) error {
	_, err := p.writes.PutServiceSet(ctx, &registryv1.PutServiceSetRequest{TenantId: p.tenant.String(), ServiceSet: &registryv1.ServiceSet{
		CaCertificatesPem: p.roots, Release: "bench",
		Components: []*registryv1.Component{{Name: service, Address: p.address, PathPrefixes: slicesOf("/steady", path)}},
	}})
	return err
}

func slicesOf(steady, path string) []string {
	if path == steady {
		return []string{steady}
	}
	return []string{steady, path}
}

func (p *plane) leads(ctx context.Context, path string) (bool, error) {
	return ask(ctx, p.client, "https://"+slug+".localhost"+path)
}
