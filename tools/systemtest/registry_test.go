package systemtest

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	gstatus "google.golang.org/grpc/status"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// registryAddress is where the plane's registry listens, as a set is told.
func (p *plane) registryAddress(t *testing.T) string {
	t.Helper()
	return p.environment(t, acme().id+"/audit")["A3_REGISTRY"]
}

// registry connects to the registry with a certificate from a directory.
func (p *plane) registry(t *testing.T, certificates string, who workload.Identity) *grpc.ClientConn {
	t.Helper()
	source, err := workload.OpenSource(certificates, who)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := os.ReadFile(filepath.Join(p.home, "pki", "roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := workload.ParseRoots(workload.TrustDomain{Plane: "dev"}, roots)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := workload.GRPCClientCredentials(source, workload.Trust{Plane: "dev", PlaneRoots: pool}, workload.Identity{Plane: "dev", Service: "registry"})
	if err != nil {
		t.Fatal(err)
	}
	return grpcTo(t, p.registryAddress(t), creds)
}

// operator connects to the plane's registry as the one who runs the plane.
func (p *plane) operator(t *testing.T) *grpc.ClientConn {
	t.Helper()
	return p.registry(t, filepath.Join(p.home, "pki", "operator"), workload.Identity{Plane: "dev", Service: "operator"})
}

func grpcTo(t *testing.T, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// registryCalls are one of each of the registry's methods, about a tenant.
func registryCalls(tenant string) map[string]func(ctx context.Context, conn *grpc.ClientConn) error {
	return map[string]func(ctx context.Context, conn *grpc.ClientConn) error{
		"WatchSnapshot": func(ctx context.Context, conn *grpc.ClientConn) error {
			stream, err := registryv1.NewSnapshotServiceClient(conn).WatchSnapshot(ctx, &registryv1.WatchSnapshotRequest{})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
		"GetTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := registryv1.NewTenantServiceClient(conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: tenant})
			return err
		},
		"ListTenants": func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := registryv1.NewTenantServiceClient(conn).ListTenants(ctx, &registryv1.ListTenantsRequest{})
			return err
		},
		"CreateTenant": func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := registryv1.NewTenantWriteServiceClient(conn).CreateTenant(ctx, &registryv1.CreateTenantRequest{
				Slug: name("evil"), DisplayName: "evil", Region: "local", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE})
			return err
		},
		"SetTenantState": func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := registryv1.NewTenantWriteServiceClient(conn).SetTenantState(ctx, &registryv1.SetTenantStateRequest{TenantId: tenant, State: registryv1.TenantState_TENANT_STATE_SUSPENDED})
			return err
		},
		"PutServiceSet": func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := registryv1.NewTenantWriteServiceClient(conn).PutServiceSet(ctx, &registryv1.PutServiceSetRequest{TenantId: tenant, ServiceSet: &registryv1.ServiceSet{}})
			return err
		},
	}
}

// Row C45.
func TestRegistryIsClosedToTenants(t *testing.T) {
	t.Parallel()
	token := acme().admin(t).token(t, "")
	for call, do := range registryCalls(acme().id) {
		for service := range globex().addresses {
			conn := shared.registry(t, globex().file("components", service, "certificate"), globex().identity(t, service))
			if err := do(t.Context(), conn); gstatus.Code(err) != codes.PermissionDenied {
				t.Errorf("globex's %s at %s: %v", service, call, err)
			}
		}
		// With a token in the place of a certificate, or with nothing, nobody gets as far as a method.
		nobody := grpcTo(t, shared.registryAddress(t), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}))
		for _, authorization := range []string{"", "Bearer " + token} {
			if err := do(metadata.AppendToOutgoingContext(t.Context(), "authorization", authorization), nobody); gstatus.Code(err) != codes.Unavailable && gstatus.Code(err) != codes.Unauthenticated {
				t.Errorf("a caller without a certificate at %s: %v", call, err)
			}
		}
	}
	// The gateway's certificate routes and the registry's own certificate serves; neither is an operator.
	gateway := shared.registry(t, filepath.Join(shared.home, "plane", "components", "gateway", "certificate"), workload.Identity{Plane: "dev", Service: "gateway"})
	for call, do := range registryCalls(acme().id) {
		if err := do(t.Context(), gateway); call != "WatchSnapshot" && gstatus.Code(err) != codes.PermissionDenied {
			t.Errorf("the gateway at %s: %v", call, err)
		}
	}
}

// What a set may do at the registry, report on itself, it can't do for another: not even with the other's checkpoint in hand.
func TestReportIsOfTheCallersOwnSet(t *testing.T) {
	t.Parallel()
	checkpoint := func(x *tenant) *auditv1.GetCheckpointResponse {
		return ask(t, client(x.admin(t), "", auditv1connect.NewLogServiceClient).GetCheckpoint, &auditv1.GetCheckpointRequest{})
	}
	theirs, own := checkpoint(acme()), checkpoint(globex())
	conn := shared.registry(t, globex().file("components", "audit", "certificate"), globex().identity(t, "audit"))
	for what, req := range map[string]*registryv1.ReportRequest{
		"its log and its key":       {Checkpoint: theirs.GetCheckpoint(), CheckpointVerifierKey: theirs.GetVerifierKey()},
		"its log with globex's key": {Checkpoint: theirs.GetCheckpoint(), CheckpointVerifierKey: own.GetVerifierKey()},
		"globex's log with its key": {Checkpoint: own.GetCheckpoint(), CheckpointVerifierKey: theirs.GetVerifierKey()},
	} {
		if _, err := registryv1.NewReportServiceClient(conn).Report(t.Context(), req); err == nil {
			t.Errorf("globex's audit handed in, of acme, %s", what)
		}
	}
	status, err := registryv1.NewTenantServiceClient(shared.operator(t)).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: acme().id})
	if err != nil {
		t.Fatal(err)
	}
	if held := status.GetStatus().GetCheckpoint(); held != "" && !strings.HasPrefix(held, strings.SplitN(theirs.GetCheckpoint(), "\n", 2)[0]) {
		t.Errorf("the registry holds for acme a checkpoint of another log: %s", held)
	}
}

// paper is a tenant that the registry knows and nobody serves.
type paper struct {
	id, slug string
	write    registryv1.TenantWriteServiceClient
}

func (p *plane) paperTenant(t *testing.T) *paper {
	t.Helper()
	out := &paper{slug: name("paper"), write: registryv1.NewTenantWriteServiceClient(p.operator(t))}
	made, err := out.write.CreateTenant(t.Context(), &registryv1.CreateTenantRequest{Slug: out.slug, DisplayName: out.slug, Region: "local",
		IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE})
	if err != nil {
		t.Fatal(err)
	}
	out.id = made.GetTenant().GetId()
	return out
}

// set is one component at an address, under an authority of the tenant's own.
func (p *paper) set(t *testing.T, addr string) *registryv1.ServiceSet {
	t.Helper()
	tenant, err := id.ParseTenant(p.id)
	if err != nil {
		t.Fatal(err)
	}
	root, err := workload.NewRoot(workload.TrustDomain{Plane: "dev", Tenant: tenant}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &registryv1.ServiceSet{CaCertificatesPem: string(root.CertificatePEM()), Components: []*registryv1.Component{{Name: "iam", Address: addr, PathPrefixes: []string{"/"}}}}
}

func (p *paper) put(t *testing.T, set *registryv1.ServiceSet) error {
	t.Helper()
	_, err := p.write.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: p.id, ServiceSet: set})
	return err
}

func (p *paper) mustPut(t *testing.T, set *registryv1.ServiceSet) {
	t.Helper()
	if err := p.put(t, set); err != nil {
		t.Fatal(err)
	}
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

// Row H21.
func TestRouteToWhereNoSetMayBeIsRefused(t *testing.T) {
	t.Parallel()
	made := shared.paperTenant(t)
	for what, addr := range map[string]string{
		"the cloud's metadata": "169.254.169.254:80", "a service of acme's": acme().addresses["iam"], "the registry": shared.registryAddress(t),
		"the gateway": shared.address(), "a foreign host": "example.com:443", "every address": "0.0.0.0:443", "the sample server": shared.sampleAddress(t),
	} {
		if err := made.put(t, made.set(t, addr)); gstatus.Code(err) != codes.InvalidArgument && gstatus.Code(err) != codes.FailedPrecondition && gstatus.Code(err) != codes.AlreadyExists {
			t.Errorf("a route to %s, %s: %v", what, addr, err)
		}
	}
	// Somebody else's authority would make somebody else's services its own.
	set := made.set(t, freeAddress(t))
	other, err := os.ReadFile(acme().file("pki", "roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	set.CaCertificatesPem = string(other)
	if err := made.put(t, set); err == nil {
		t.Error("a set under acme's authority was taken")
	}
	made.mustPut(t, made.set(t, freeAddress(t)))
}
