package systemtest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/workload"
)

// with is the plane, worked on as a named operator, or with other settings.
func (p *plane) with(environ ...string) *plane {
	return &plane{home: p.home, port: p.port, domain: p.domain, tenants: p.tenants, environ: append(append([]string{}, p.environ...), environ...)}
}

// must runs fleet and answers what it printed.
func (p *plane) must(t *testing.T, args ...string) string {
	t.Helper()
	s := p.fleet(t, args...)
	if s.code != 0 {
		t.Fatalf("fleet %s: %s", strings.Join(args, " "), s)
	}
	return s.out
}

// refused fails unless fleet refuses, with these words.
func (p *plane) refused(t *testing.T, words string, args ...string) {
	t.Helper()
	if s := p.fleet(t, args...); s.code == 0 || !strings.Contains(s.err, words) {
		t.Errorf("fleet %s: want a refusal that says %q: %s", strings.Join(args, " "), words, s)
	}
}

// A plane prod beside one for development, on one machine, with a tenant of the same slug: a tenant of prod comes by a plan that a second
// operator approved, with a database server to itself; and nothing of dev means anything there, each thing tried at the door that takes it:
// the operator's certificate, a plan by its hash and by its text, a release, a licence, a user's token, a snapshot on the gateway's disk.
// Rows C47 and F52.
func TestNothingOfDevMeansAnythingInProd(t *testing.T) {
	full(t)
	t.Parallel()
	p := prodPlane(t)
	ben := newOwnOperator(t, "ben")
	ben.added(p)
	hash := prodsTenantIsPlannedAndApproved(t, p, ben)
	if err := p.learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.admitAdmin(t, "globex")
	if got := p.hostAnswers(t, "globex"); got != http.StatusOK {
		t.Errorf("prod's tenant answers %d", got)
	}
	cases := 0
	try := func(what string, refused bool, said any) {
		t.Helper()
		if cases++; !refused {
			t.Errorf("%s: %v", what, said)
		}
	}

	devs := shared.plan(t, suspend, "globex", "")
	s := p.fleet(t, "apply", devs)
	try("the hash of dev's plan, applied in prod", s.code != 0 && strings.Contains(s.err, "plan"), s)
	s = shared.fleet(t, "apply", hash)
	try("the hash of prod's plan, applied in dev", s.code != 0 && strings.Contains(s.err, "plan"), s)

	operator := workload.Identity{Plane: "prod", Service: "operator"}
	if _, err := workload.OpenSource(filepath.Join(shared.home, "pki", "operator"), operator); err == nil {
		t.Error("dev's certificate passes for one of prod's operator")
	}
	ours := p.registryOf(t, "prod", filepath.Join(p.home, "pki", "operator"), operator)
	_, err := registryv1.NewPlanWriteServiceClient(ours).PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: planOf(t, shared, devs)})
	try("the text of dev's plan, at prod's registry", err != nil && strings.Contains(grpcstatus.Convert(err).Message(), "planes are sealed"), err)
	_, err = registryv1.NewTenantServiceClient(ours).ListTenants(t.Context(), &registryv1.ListTenantsRequest{})
	if err != nil {
		t.Errorf("prod's own operator at prod's registry: %v", err)
	}
	theirs := p.registryOf(t, "prod", filepath.Join(shared.home, "pki", "operator"), workload.Identity{Plane: "dev", Service: "operator"})
	_, err = registryv1.NewTenantServiceClient(theirs).ListTenants(t.Context(), &registryv1.ListTenantsRequest{})
	try("dev's operator at prod's registry", err != nil && grpcstatus.Code(err) == codes.Unavailable, err)

	file := filepath.Join(t.TempDir(), "release")
	shared.must(t, "release", "build", "--version", "7.7.7", "--artefact", "accessos="+filepath.Join(programs, "accessos"), "--out", file)
	s = p.fleet(t, "release", "register", "--release", file, "--artefact", "accessos="+filepath.Join(programs, "accessos"))
	try("a release that dev signed", s.code != 0 && strings.Contains(s.err, "sign"), s)

	l := &licensee{tenant: &tenant{plane: p, slug: "globex", id: p.tenants["globex"].id}, t: t}
	s = l.install(l.signed("dev", read(t, filepath.Join(shared.home, "plane", "keys", "licences.secret")), nil))
	try("a licence that dev signed, for prod's tenant", s.code != 0 && strings.Contains(s.err, "sign"), s)

	token := strings.TrimSpace(shared.a3(t, "globex-admin", "token"))
	if got := shared.selfAnswers(t, "globex", token); got != http.StatusOK {
		t.Fatalf("the token at home is answered %d", got)
	}
	got := p.selfAnswers(t, "globex", token)
	try("a token of dev's globex at prod's globex", got == http.StatusUnauthorized, got)
	cases += snapshotOfDevIsNothing(t, p)
	t.Attr("row", "F52 3")
	t.Attr("row", "C47 1")
	t.Logf("%d things of dev meant nothing in prod", cases)
}

func prodPlane(t *testing.T) *plane {
	t.Helper()
	p := planeIn(t, walkable(t), "A3_PLANE=prod", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if s := p.fleet(t, "plane", "up"); s.code != 0 || !strings.Contains(s.out+s.err, "fleet plan provision") {
		t.Fatalf("up, and what comes next: %s", s)
	}
	p.with("A3_PLANE=dev").refused(t, "planes are sealed", "plane", "up")
	p.refused(t, "fleet plan provision", "tenant", "create", "globex")
	return p
}

// prodsTenantIsPlannedAndApproved makes globex in prod, which ben approves, and answers the plan's hash.
func prodsTenantIsPlannedAndApproved(t *testing.T, p *plane, ben *ownOperator) (hash string) {
	t.Helper()
	p.must(t, "release", "register", "--version", "1.0.0", "--artefact", "accessos="+filepath.Join(programs, "accessos"))
	p.refused(t, "accept the tier database by name", "plan", "provision", "--tenant", "globex", "--release", "1.0.0", "--reason", "a test of sealed planes", "--tier", "database")
	hash = p.plan(t, provision, "globex", "1.0.0")
	if said := p.must(t, "plan", "show", hash); !strings.Contains(said, "tier dedicated") {
		t.Errorf("the plan names no tier dedicated: %s", said)
	}
	p.refused(t, "approve", "apply", hash)
	reason := []string{"--reason", "read it, and it is what was asked for"}
	if s := p.fleet(t, append([]string{"approve", hash}, reason...)...); s.code == 0 {
		t.Errorf("its author approved it: %s", s)
	}
	p.refused(t, "approve", "apply", hash)
	ben.must(append([]string{"approve", hash}, reason...)...)
	p.must(t, "apply", hash)
	return hash
}

// snapshotOfDevIsNothing has the gateway of prod begin with dev's snapshot on its disk.
func snapshotOfDevIsNothing(t *testing.T, p *plane) (cases int) {
	t.Helper()
	mine, theirs := p.kept(t, "gateway", "A3_SNAPSHOT"), shared.kept(t, "gateway", "A3_SNAPSHOT")
	text, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	// Written into the file that there is: it keeps its owner.
	if err := os.WriteFile(mine, text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := p.pids(t)["plane/gateway"]
	kill(t, before)
	p.serves(t, "plane/gateway", before)
	if got := p.hostAnswers(t, "acme"); got != http.StatusNotFound {
		t.Errorf("prod's gateway answers %d for a host that only dev has", got)
	}
	if got := p.hostAnswers(t, "globex"); got != http.StatusOK {
		t.Errorf("prod's gateway answers %d for its own tenant", got)
	}
	if log := p.logOf(t, "plane/gateway"); !strings.Contains(log, "snapshot_refused") {
		t.Error("nothing is said of the snapshot that was refused")
	}
	return 1
}

// planOf is what a stored plan of dev says.
func planOf(t *testing.T, p *plane, hash string) *registryv1.Plan {
	t.Helper()
	res, err := registryv1.NewPlanServiceClient(p.operator(t)).GetPlan(t.Context(), &registryv1.GetPlanRequest{Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	out := &registryv1.Plan{}
	if err := proto.Unmarshal(res.GetPlan().GetDocument(), out); err != nil {
		t.Fatal(err)
	}
	return out
}
