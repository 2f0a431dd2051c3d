package systemtest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	gstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	authzv1 "a3os.app/proto/gen/go/a3os/authz/v1"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// registryAddress is where the plane's registry listens.
func (p *plane) registryAddress(t *testing.T) string {
	t.Helper()
	at := p.environment(t, "plane/registry")["A3_LISTEN"]
	if onDocker() {
		// It listens at its address in each network that it is in; the machine calls it in the plane's own.
		_, port, err := net.SplitHostPort(at)
		if err != nil {
			t.Fatal(err)
		}
		return net.JoinHostPort(p.host(t, "plane", "registry"), port)
	}
	return at
}

// registry connects to the registry of a plane for development with a certificate from a directory.
func (p *plane) registry(t *testing.T, certificates string, who workload.Identity) *grpc.ClientConn {
	t.Helper()
	return p.registryOf(t, "dev", certificates, who)
}

// registryOf connects to the registry of a kind of plane, trusting that one and nobody else, with a certificate from a directory.
func (p *plane) registryOf(t *testing.T, kind, certificates string, who workload.Identity) *grpc.ClientConn {
	t.Helper()
	source, err := workload.OpenSource(certificates, who)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := os.ReadFile(filepath.Join(p.home, "pki", "roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := workload.ParseRoots(workload.TrustDomain{Plane: kind}, roots)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := workload.GRPCClientCredentials(source, workload.Trust{Plane: kind, PlaneRoots: pool}, workload.Identity{Plane: kind, Service: "registry"})
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

// planeMethods are the control plane's, by the descriptors.
func planeMethods(t testing.TB) []rpcMethod {
	t.Helper()
	var out []rpcMethod
	for _, m := range allMethods() {
		if m.rule.GetLevel() == authzv1.Level_LEVEL_PLANE {
			out = append(out, m)
		}
	}
	const atLeast = 7
	if len(out) < atLeast {
		t.Fatalf("only %d methods of the control plane were found", len(out))
	}
	return out
}

// invoke calls a method of the control plane with an empty message, and answers what came first.
func invoke(ctx context.Context, conn *grpc.ClientConn, m rpcMethod) error {
	ctx, cancel := context.WithTimeout(ctx, mostPerCall)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: string(m.Name()), ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}, m.path())
	if err != nil {
		return err
	}
	if err := stream.SendMsg(dynamicpb.NewMessage(m.Input())); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(dynamicpb.NewMessage(m.Output()))
}

// Row C45: every method of the control plane, by every service of a tenant that its rule doesn't name, with a token in the place of a
// certificate, and by the plane's own services that are no operators.
func TestRegistryIsClosedToTenants(t *testing.T) {
	t.Parallel()
	token := acme().admin(t).token(t, "")
	conns := map[string]*grpc.ClientConn{}
	for service := range globex().addresses {
		conns[service] = shared.registry(t, globex().file("components", service, "certificate"), globex().identity(t, service))
	}
	gateway := shared.registry(t, filepath.Join(shared.home, "plane", "components", "gateway", "certificate"), workload.Identity{Plane: "dev", Service: "gateway"})
	nobody := grpcTo(t, shared.registryAddress(t), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}))
	cases := 0
	refused := func(who string, m rpcMethod, err error, codes ...codes.Code) {
		t.Helper()
		if cases++; !slices.Contains(codes, gstatus.Code(err)) {
			t.Errorf("%s at %s, which is for %v: %v", who, m.path(), m.rule.GetWorkloads(), err)
		}
	}
	for _, m := range planeMethods(t) {
		for service, conn := range conns {
			// One service reports for its set; what it may say is looked at below.
			if service != "audit" || !slices.Contains(m.rule.GetWorkloads(), "set") {
				refused("globex's "+service, m, invoke(t.Context(), conn, m), codes.PermissionDenied)
			}
		}
		if !slices.Contains(m.rule.GetWorkloads(), "gateway") {
			refused("the gateway", m, invoke(t.Context(), gateway, m), codes.PermissionDenied)
		}
		// With a token in the place of a certificate, or with nothing, nobody gets as far as a method.
		for _, authorization := range []string{"", "Bearer " + token} {
			err := invoke(metadata.AppendToOutgoingContext(t.Context(), "authorization", authorization), nobody, m)
			refused("a caller without a certificate", m, err, codes.Unavailable, codes.Unauthenticated)
		}
		// Nor does the gateway lead there.
		for _, d := range doors() {
			if d.straight || strings.HasPrefix(d.name, "GET") {
				continue
			}
			cases++
			if a := d.visit(t, acme()).send(t, m, nil, "Authorization", "Bearer "+token); a.code == "" || strings.Contains(a.body, acme().id) {
				t.Errorf("%s, %s through the gateway: %s", d.name, m.path(), a)
			}
		}
	}
	held(t, cases, "C45")
}

// Row C45: what a set may do at the registry, report on itself, it can't do for another: not even with the other's checkpoint in hand.
func TestReportIsOfTheCallersOwnSet(t *testing.T) {
	t.Parallel()
	checkpoint := func(x *tenant) *auditv1.GetCheckpointResponse {
		return ask(t, client(x.admin(t), "", auditv1connect.NewLogServiceClient).GetCheckpoint, &auditv1.GetCheckpointRequest{})
	}
	theirs, own := checkpoint(acme()), checkpoint(globex())
	conn := shared.registry(t, globex().file("components", "audit", "certificate"), globex().identity(t, "audit"))
	reports := map[string]*registryv1.ReportRequest{
		"its log and its key":       {Checkpoint: theirs.GetCheckpoint(), CheckpointVerifierKey: theirs.GetVerifierKey()},
		"its log with globex's key": {Checkpoint: theirs.GetCheckpoint(), CheckpointVerifierKey: own.GetVerifierKey()},
		"globex's log with its key": {Checkpoint: own.GetCheckpoint(), CheckpointVerifierKey: theirs.GetVerifierKey()},
	}
	for what, req := range reports {
		if _, err := registryv1.NewReportServiceClient(conn).Report(t.Context(), req); err == nil {
			t.Errorf("globex's audit handed in, of acme, %s", what)
		}
	}
	status, err := registryv1.NewTenantServiceClient(shared.operator(t)).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: acme().id})
	if err != nil {
		t.Fatal(err)
	}
	if kept := status.GetStatus().GetCheckpoint(); kept != "" && !strings.HasPrefix(kept, strings.SplitN(theirs.GetCheckpoint(), "\n", 2)[0]) {
		t.Errorf("the registry holds for acme a checkpoint of another log: %s", kept)
	}
	held(t, len(reports), "C45")
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

// Row H21.
func TestRouteToWhereNoSetMayBeIsRefused(t *testing.T) {
	t.Parallel()
	made := shared.paperTenant(t)
	routes := map[string]string{
		"the cloud's metadata": "169.254.169.254:80", "a service of acme's": acme().addresses["iam"], "the registry": shared.registryAddress(t),
		"the gateway": shared.address(), "a foreign host": "example.com:443", "every address": "0.0.0.0:443", "the sample server": shared.sampleAddress(t),
	}
	if onDocker() {
		routes["the server that tenants share"] = net.JoinHostPort(shared.host(t, "databases", "databases"), "5432")
	}
	for what, addr := range routes {
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
	held(t, len(routes)+1, "H21")
}
