package audit_test

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/licencetest"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"
	"a3os.app/libs/tlog"
	"a3os.app/libs/workload"

	"a3os.app/services/audit"
	"a3os.app/services/audit/internal/audittest"
)

// authority is a root and what it issues with.
type authority struct {
	workload.Authority
	roots string
}

func newAuthority(t *testing.T, domain workload.TrustDomain) authority {
	t.Helper()
	root, err := workload.NewRoot(domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority{Authority: issuer, roots: write(t, "roots.pem", root.CertificatePEM())}
}

// keypair is the directory of a service's key and certificate.
func (a authority) keypair(t *testing.T, who workload.Identity) string {
	t.Helper()
	pair, err := a.IssueKeypair(who, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pair.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (a authority) source(t *testing.T, who workload.Identity) *workload.Source {
	t.Helper()
	src, err := workload.OpenSource(a.keypair(t, who), who)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// place is a set's surroundings: its tenant's and its plane's authority, and its database.
type place struct {
	db     *audittest.Database
	plane  authority
	tenant authority
	trust  workload.Trust
	cfg    audit.Config
}

func newPlace(t *testing.T) *place {
	t.Helper()
	tid := id.NewTenant()
	p := &place{db: audittest.New(t), plane: newAuthority(t, workload.TrustDomain{Plane: "dev"}),
		tenant: newAuthority(t, workload.TrustDomain{Plane: "dev", Tenant: tid})}
	secret, _, err := tlog.NewKey(tlog.Origin("dev", tid))
	if err != nil {
		t.Fatal(err)
	}
	p.trust = workload.Trust{Plane: "dev", Tenant: tid, TenantRoots: roots(t, p.tenant, workload.TrustDomain{Plane: "dev", Tenant: tid}),
		PlaneRoots: roots(t, p.plane, workload.TrustDomain{Plane: "dev"})}
	bindingtest.Mark(t, p.db.Database.URL, tid, "")
	p.cfg = audit.Config{
		Set: set.Config{Plane: "dev", Tenant: tid, Release: "1.2.3", Listen: freeAddress(t), Certificates: p.tenant.keypair(t, p.identity(tid, "audit")),
			MarkKeys: bindingtest.Keys(t), LicenceKeys: licencetest.Keys(), TenantRoots: p.tenant.roots, PlaneRoots: p.plane.roots, Issuer: "https://acme.localhost:7443", LogLevel: "error",
			Peers: map[string]string{"iam": freeAddress(t)}},
		DatabaseURL: config.NewSecret(p.db.URL["role_audit"]), LogKey: config.NewSecret(secret),
	}
	return p
}

func (p *place) identity(tenant id.Tenant, service string) workload.Identity {
	return workload.Identity{Plane: "dev", Tenant: tenant, Service: service}
}

func TestAuditServesSealsAndReports(t *testing.T) {
	p := newPlace(t)
	registry := &registry{reports: make(chan *registryv1.ReportRequest, 100)}
	p.cfg.Registry = registry.serve(t, p)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- audit.Run(ctx, p.cfg) }()
	defer stop()

	event := audittest.Event("iam.user.invited", "usr_x")
	audittest.Put(t, p.db.As(t, "role_iam"), event)
	report := registry.withCheckpoint(t, done)
	v, err := tlog.NewVerifier(report.GetCheckpointVerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	p.db.Whole(t, v, report.GetCheckpoint(), map[string]bool{event.GetId(): true})
	said := make(map[string]registryv1.Health)
	for _, c := range report.GetComponents() {
		said[c.GetName()] = c.GetHealth()
	}
	if said["audit"] != registryv1.Health_HEALTH_SERVING || said["iam"] != registryv1.Health_HEALTH_UNREACHABLE {
		t.Errorf("components are reported as %v", said)
	}

	transport, err := workload.NewTransport(workload.TransportConfig{Source: p.tenant.source(t, p.identity(p.cfg.Set.Tenant, "discovery")), Anchors: p.trust,
		Resolver: workload.Addresses{p.identity(p.cfg.Set.Tenant, "audit"): p.cfg.Set.Listen}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := rpc.ToWorkload(transport, p.identity(p.cfg.Set.Tenant, "audit"), auditv1connect.NewLogServiceClient)
	if err != nil {
		t.Fatal(err)
	}
	// A sibling is not a reader of the log: who reads is a person or a service account with a token.
	_, err = client.GetCheckpoint(t.Context(), connect.NewRequest(&auditv1.GetCheckpointRequest{}))
	if kind := fault.KindOf(fault.FromRPC(err)); kind != fault.PermissionDenied && kind != fault.Unauthenticated {
		t.Errorf("a sibling without a token: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestKeyOfAnotherLogIsRefused(t *testing.T) {
	p := newPlace(t)
	secret, _, err := tlog.NewKey(tlog.Origin("dev", id.NewTenant()))
	if err != nil {
		t.Fatal(err)
	}
	p.cfg.LogKey = config.NewSecret(secret)
	if err := audit.Run(t.Context(), p.cfg); err == nil || !strings.Contains(err.Error(), "A3_LOG_KEY") || strings.Contains(err.Error(), secret) {
		t.Errorf("err is %v", err)
	}
}

// registry is the control plane as far as reports go, behind its real mutual TLS.
type registry struct {
	registryv1.UnimplementedReportServiceServer
	reports chan *registryv1.ReportRequest
}

func (r *registry) Report(_ context.Context, req *registryv1.ReportRequest) (*registryv1.ReportResponse, error) {
	select {
	case r.reports <- req:
	default:
	}
	return &registryv1.ReportResponse{NextReportSeconds: 1}, nil
}

// withCheckpoint waits for the first report that carries a checkpoint, as long as the service runs.
func (r *registry) withCheckpoint(t *testing.T, done <-chan error) *registryv1.ReportRequest {
	t.Helper()
	for {
		select {
		case req := <-r.reports:
			if req.GetCheckpoint() != "" {
				return req
			}
		case err := <-done:
			t.Fatalf("the service ended: %v", err)
		}
	}
}

func (r *registry) serve(t *testing.T, p *place) string {
	t.Helper()
	creds, err := workload.GRPCServerCredentials(p.plane.source(t, workload.Identity{Plane: "dev", Service: "registry"}), p.trust)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(creds))
	registryv1.RegisterReportServiceServer(srv, r)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

func roots(t *testing.T, a authority, domain workload.TrustDomain) *x509.CertPool {
	t.Helper()
	raw, err := os.ReadFile(a.roots)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := workload.ParseRoots(domain, raw)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// freeAddress is an address on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
