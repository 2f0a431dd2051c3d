package registry_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/release"
	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
	"a3os.app/services/registry"
)

// harness is a plane's control side: a database, the plane's authority, and registry processes.
type harness struct {
	t        *testing.T
	plane    string
	db       *pgtest.Database
	role     string
	root     workload.Authority
	issuer   workload.Authority
	dir      string
	key      ed25519.PrivateKey
	verifier *snapshot.Verifier
	// releaseKeys are those that registries trust, and releaseSigner holds the private half of one.
	releaseKeys   string
	releaseSigner *release.Signer
	markKeys      string
	licenceKey    string // private
	licenceKeys   string
	// settings are more A3_* variables of the registry.
	settings []string
	// addresses is how many were given to sets.
	addresses int
	// marks signs the marks of databases.
	marks *binding.Signer
}

func newHarness(t *testing.T) *harness { return newPlane(t, "dev") }

// newPlane is a harness of a plane by name.
func newPlane(t *testing.T, plane string) *harness {
	t.Helper()
	h := &harness{t: t, plane: plane, db: pgtest.New(t), dir: t.TempDir()}
	h.role = h.db.Role(t, "registry")
	if err := pg.Migrate(t.Context(), h.db.URL, pg.Roles{"role_registry": h.db.RoleName(h.role)}, registry.Schema()); err != nil {
		t.Fatal(err)
	}
	h.mark()
	h.root, h.issuer = authority(t, workload.TrustDomain{Plane: plane})
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.key = private
	if h.verifier, err = snapshot.NewVerifier(plane, public); err != nil {
		t.Fatal(err)
	}
	h.releaseSigner, h.releaseKeys = releaseKey(t, plane)
	return h
}

// mark marks the database as the plane's own, as its provisioner does.
func (h *harness) mark() {
	h.t.Helper()
	private, public, err := binding.NewKey(h.plane)
	if err != nil {
		h.t.Fatal(err)
	}
	h.markKeys = public
	if h.licenceKey, h.licenceKeys, err = licence.NewKey(h.plane); err != nil {
		h.t.Fatal(err)
	}
	signer, err := binding.NewSigner(h.plane, private)
	if err != nil {
		h.t.Fatal(err)
	}
	h.marks = signer
	var name string
	if err := h.db.Pool(h.t).QueryRow(h.t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		h.t.Fatal(err)
	}
	text, err := signer.Sign(binding.Mark{Kind: binding.Database, Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	h.db.Exec(h.t, "COMMENT ON DATABASE "+pgx.Identifier{name}.Sanitize()+" IS '"+text+"'")
}

func authority(t *testing.T, d workload.TrustDomain) (root, issuer workload.Authority) {
	t.Helper()
	root, err := workload.NewRoot(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issuer, err = root.NewIntermediate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root, issuer
}

// source is a workload's certificate from an issuer.
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

// given are the addresses that freeAddress answered, as two sets at one are refused.
var given sync.Map

// freeAddress is above the ports that planes take for their services, and below those that the system hands out by itself, to calls of
// other tests among others.
func freeAddress(t *testing.T) string {
	t.Helper()
	const first, count = 30_100, 2_600
	for {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(count)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, again := given.LoadOrStore(addr, true); !again {
			return addr
		}
	}
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a registry and answers its address and how to stop it.
func (h *harness) start() (addr string, stop func()) {
	h.t.Helper()
	addr = freeAddress(h.t)
	_, dir := source(h.t, h.issuer, workload.Identity{Plane: h.plane, Service: "registry"})
	key, err := snapshot.FormatPrivateKey(h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	cfg, err := config.Load[registry.Config]("registry", append([]string{
		"A3_PLANE=" + h.plane, "A3_LISTEN=" + addr, "A3_CERT_DIR=" + dir, "A3_DATABASE_URL=" + h.role,
		"A3_PLANE_ROOTS=" + write(h.t, filepath.Join(h.t.TempDir(), "roots.pem"), h.root.CertificatePEM()),
		"A3_SNAPSHOT_KEY_FILE=" + write(h.t, filepath.Join(h.t.TempDir(), "key.pem"), []byte(key)),
		"A3_SET_NETWORKS=127.0.0.0/8", "A3_MARK_KEYS=" + h.markKeys, "A3_LICENCE_KEYS=" + h.licenceKeys, "A3_LOG_LEVEL=warn",
		"A3_RELEASE_KEYS=" + h.releaseKeys,
	}, h.settings...))
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx, cfg) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("the registry ended with %v", err)
		}
	}
	h.t.Cleanup(stop)
	// Whoever else took the address meanwhile would be waited for as if it were the registry.
	for {
		select {
		case err := <-done:
			stopped = true
			h.t.Fatalf("the registry did not start: %v", err)
		case <-time.After(time.Millisecond):
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return addr, stop
		}
	}
}

// dial connects as a workload, trusting the plane's root.
func (h *harness) dial(addr string, who *workload.Source) *grpc.ClientConn {
	h.t.Helper()
	roots, err := workload.ParseRoots(workload.TrustDomain{Plane: h.plane}, h.root.CertificatePEM())
	if err != nil {
		h.t.Fatal(err)
	}
	anchors := workload.AnchorsFunc(func(workload.TrustDomain) (*x509.CertPool, error) { return roots, nil })
	creds, err := workload.GRPCClientCredentials(who, anchors, workload.Identity{Plane: h.plane, Service: "registry"})
	if err != nil {
		h.t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(snapshot.MaxBytes+1<<20), grpc.WaitForReady(true)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

// as connects as a service of the plane.
func (h *harness) as(addr, service string) *grpc.ClientConn {
	h.t.Helper()
	s, _ := source(h.t, h.issuer, workload.Identity{Plane: h.plane, Service: service})
	return h.dial(addr, s)
}

// tenant is a tenant with an authority of its own.
type tenant struct {
	id           id.Tenant
	root, issuer workload.Authority
	set          *registryv1.ServiceSet
}

// create makes a tenant, puts its set and activates it.
func (h *harness) create(conn *grpc.ClientConn, slug string) tenant {
	h.t.Helper()
	w := registryv1.NewTenantWriteServiceClient(conn)
	res, err := w.CreateTenant(h.t.Context(), createRequest(slug))
	if err != nil {
		h.t.Fatal(err)
	}
	x := tenant{id: parse(h.t, res.GetTenant().GetId())}
	x.root, x.issuer = authority(h.t, workload.TrustDomain{Plane: h.plane, Tenant: x.id})
	x.set = &registryv1.ServiceSet{
		CaCertificatesPem: string(x.root.CertificatePEM()), Release: older, Reporter: "audit",
		Components: []*registryv1.Component{
			{Name: "iam", Address: h.address(), PathPrefixes: []string{"/a3os.iam.v1.", "/oauth2/"}},
			{Name: "audit", Address: h.address(), PathPrefixes: []string{"/a3os.audit.v1."}},
		},
	}
	h.put(w, x)
	h.setState(w, x, registryv1.TenantState_TENANT_STATE_ACTIVE)
	return x
}

func (h *harness) domain(tenant id.Tenant) workload.TrustDomain {
	return workload.TrustDomain{Plane: h.plane, Tenant: tenant}
}

// address is one where no other set is; nobody listens there.
func (h *harness) address() string {
	h.addresses++
	return fmt.Sprintf("127.0.0.1:%d", 1024+h.addresses)
}

func createRequest(slug string) *registryv1.CreateTenantRequest {
	return &registryv1.CreateTenantRequest{Slug: slug, DisplayName: slug, Region: "local",
		IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
}

func (h *harness) put(w registryv1.TenantWriteServiceClient, x tenant) {
	h.t.Helper()
	if _, err := w.PutServiceSet(h.t.Context(), &registryv1.PutServiceSetRequest{TenantId: x.id.String(), ServiceSet: x.set}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) setState(w registryv1.TenantWriteServiceClient, x tenant, s registryv1.TenantState) {
	h.t.Helper()
	if _, err := w.SetTenantState(h.t.Context(), &registryv1.SetTenantStateRequest{TenantId: x.id.String(), State: s}); err != nil {
		h.t.Fatal(err)
	}
}

func parse(t *testing.T, s string) id.Tenant {
	t.Helper()
	v, err := id.ParseTenant(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// watch is a gateway's stream of verified snapshots.
type watch struct {
	t      *testing.T
	h      *harness
	stream grpc.ServerStreamingClient[registryv1.WatchSnapshotResponse]
	have   int64
}

func (h *harness) watch(conn *grpc.ClientConn) *watch {
	h.t.Helper()
	stream, err := registryv1.NewSnapshotServiceClient(conn).WatchSnapshot(h.t.Context(), &registryv1.WatchSnapshotRequest{})
	if err != nil {
		h.t.Fatal(err)
	}
	return &watch{t: h.t, h: h, stream: stream}
}

// until receives until a snapshot's slugs are those wanted.
func (w *watch) until(slugs ...string) *registryv1.Snapshot {
	w.t.Helper()
	for {
		res, err := w.stream.Recv()
		if err != nil {
			w.t.Fatalf("waiting for routes %v: %v", slugs, err)
		}
		s, err := w.h.verifier.Verify(res.GetSnapshot(), w.have)
		if err != nil {
			w.t.Fatal(err)
		}
		if w.have != 0 && s.GetVersion() <= w.have {
			w.t.Fatalf("version %d came after %d", s.GetVersion(), w.have)
		}
		w.have = s.GetVersion()
		if len(s.GetRoutes()) != len(slugs) {
			continue
		}
		same := true
		for i, r := range s.GetRoutes() {
			same = same && r.GetSlug() == slugs[i]
		}
		if same {
			return s
		}
	}
}

func wantKind(t *testing.T, err error, kind fault.Kind, what string) {
	t.Helper()
	if err == nil || fault.KindOf(fault.FromRPC(err)) != kind {
		t.Errorf("%s: got %v, want %s", what, err, kind)
	}
}

// refusedAtTheDoor waits until a connection is refused in its handshake.
func refusedAtTheDoor(t *testing.T, conn *grpc.ClientConn, what string) {
	t.Helper()
	conn.Connect()
	for s := conn.GetState(); s != connectivity.TransientFailure; s = conn.GetState() {
		if s == connectivity.Ready {
			// TLS 1.3 clients are ready before the server has looked at their certificate: the first call tells.
			_, err := registryv1.NewReportServiceClient(conn).Report(t.Context(), &registryv1.ReportRequest{}, grpc.WaitForReady(false))
			if err == nil {
				t.Errorf("%s got in", what)
			}
			return
		}
		if !conn.WaitForStateChange(t.Context(), s) {
			t.Fatal("the test ended while connecting")
		}
	}
}
