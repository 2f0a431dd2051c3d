package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/release"
)

// kinds of operations, and the steps of each, as fleet names them.
var (
	provision = registryv1.OperationKind_OPERATION_KIND_PROVISION
	upgrade   = registryv1.OperationKind_OPERATION_KIND_UPGRADE
	suspend   = registryv1.OperationKind_OPERATION_KIND_SUSPEND
	downgrade = registryv1.OperationKind_OPERATION_KIND_DOWNGRADE
	resume    = registryv1.OperationKind_OPERATION_KIND_RESUME
	offboard  = registryv1.OperationKind_OPERATION_KIND_OFFBOARD

	stepsOf = map[registryv1.OperationKind][]string{
		provision: {"fetch", "identity", "database", "migrate", "mark", "start", "publish", "answer"},
		upgrade:   {"fetch", "migrate", "start", "confirm"},
		downgrade: {"fetch", "start", "confirm"},
		suspend:   {"unpublish", "stop"},
		resume:    {"identity", "database", "start", "publish", "answer"},
		offboard:  {"unpublish", "stop", "export", "wait", "shred", "delete", "remains"},
	}
)

// plan has fleet plan a change of one tenant, by slug, and answers its hash. to is the release that it leads to; empty for none.
func (p *plane) plan(t *testing.T, kind registryv1.OperationKind, slug, to string) string {
	t.Helper()
	args := []string{"plan", strings.ToLower(strings.TrimPrefix(kind.String(), "OPERATION_KIND_")), "--tenant", slug, "--reason", "a test of operations"}
	if to != "" {
		args = append(args, "--release", to)
	}
	var made struct{ Plan struct{ Hash string } }
	if err := p.json(t.Context(), &made, args...); err != nil {
		t.Fatal(err)
	}
	return made.Plan.Hash
}

// apply carries a plan out and fails the test where that fails.
func (p *plane) apply(t *testing.T, hash string) {
	t.Helper()
	if s, err := p.command(t.Context(), "fleet", "apply", hash); err != nil || s.code != 0 {
		t.Fatalf("apply: %v %s", err, s)
	}
}

// releaseOf is what a directory's accessos is called, which nobody released.
func releaseOf(t *testing.T, bin string) string {
	t.Helper()
	code, err := os.ReadFile(filepath.Join(bin, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	return release.Name{Version: release.Development, Digest: release.Digest(code)}.String()
}

// fleetWithFailpoints builds fleet with them, beside the programs under test. What follows accessos' own bytes has it be another
// release, that runs the same.
func fleetWithFailpoints(t *testing.T, follows string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoint", "-o", filepath.Join(dir, "fleet"), "./tools/fleet")
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "GOWORK=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build fleet with failpoints: %v: %s", err, out)
	}
	code, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	const executable = 0o755
	if err := os.WriteFile(filepath.Join(dir, "accessos"), append(code, follows...), executable); err != nil {
		t.Fatal(err)
	}
	return dir
}

// world is all that there is of a tenant, with its id and its slug by their roles, so that two tenants can be compared.
func (p *plane) world(t *testing.T, slug, id string) string {
	t.Helper()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	st, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range st.Processes {
		if strings.Contains(u.Name, id) {
			add("process %s %s", u.Name, u.State)
		}
	}
	names := func(db *pgx.Conn, what, sql string, args ...any) {
		rows, err := db.Query(t.Context(), sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range found {
			add("%s %s", what, n)
		}
	}
	admin := p.superuser(t, "postgres", "postgres")
	names(admin, "role", "SELECT rolname || ' ' || rolconnlimit FROM pg_roles WHERE starts_with(rolname, $1)", id)
	names(admin, "database", "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", id)
	var exists bool
	if err := admin.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", id).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	if exists {
		db := p.superuser(t, "postgres", id)
		names(db, "table", "SELECT schemaname || '.' || tablename || ' ' || tableowner FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
		names(db, "mark", "SELECT (shobj_description(oid, 'pg_database') IS NOT NULL)::text FROM pg_database WHERE datname = current_database()")
	}
	for _, dir := range p.dirs() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			// What comes and goes meanwhile is nobody's state.
			if err != nil || !strings.Contains(path, id) || d.IsDir() && d.Name() == "state" || strings.Contains(path, "/log/") || strings.Contains(path, "/operations/") {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			rel, err := filepath.Rel(dir, path)
			info, statErr := d.Info()
			if statErr == nil && filepath.IsLocal(rel) && !strings.Contains(rel, "/objects/") {
				add("file %s %s", rel, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	conn := p.operator(t)
	res, err := registryv1.NewTenantServiceClient(conn).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: id})
	if err != nil {
		t.Fatal(err)
	}
	add("registry %s %s", res.GetStatus().GetTenant().GetState(), res.GetStatus().GetServiceSet().GetRelease())
	for _, c := range res.GetStatus().GetServiceSet().GetComponents() {
		add("registry component %s %s", c.GetName(), c.GetPathPrefixes())
	}
	ops, err := registryv1.NewOperationServiceClient(conn).ListOperations(t.Context(), &registryv1.ListOperationsRequest{TenantId: id})
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range ops.GetOperations() {
		line := fmt.Sprintf("operation %s %s", op.GetKind(), op.GetState())
		for _, s := range op.GetSteps() {
			line += " " + s.GetName() + " " + s.GetState().String()
		}
		add("%s", line)
	}
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	if err != nil {
		t.Fatal(err)
	}
	var remembered struct {
		Ports, Accounts, Subnets, Hosts map[string]any
		Runs, Migrated                  map[string]string
	}
	if err := json.Unmarshal(text, &remembered); err != nil {
		t.Fatal(err)
	}
	for name := range remembered.Ports {
		if strings.HasPrefix(name, id) {
			add("port %s", name)
		}
	}
	for name := range remembered.Accounts {
		if strings.HasPrefix(name, id) {
			add("account %s", name)
		}
	}
	for what, names := range map[string]map[string]any{"network": remembered.Subnets, "member": remembered.Hosts} {
		for name := range names {
			if strings.HasPrefix(name, id) {
				add("%s %s", what, name)
			}
		}
	}
	add("runs %s, migrated %s", remembered.Runs[id], remembered.Migrated[id])
	slices.Sort(out)
	all := strings.ReplaceAll(strings.Join(slices.Compact(out), "\n"), id, "ID")
	return strings.ReplaceAll(strings.ReplaceAll(all, strings.ReplaceAll(id, "_", "-"), "ID"), slug, "SLUG")
}

// idOf is the id of a tenant by its slug, also of one that left.
func (p *plane) idOf(t *testing.T, slug string) string {
	t.Helper()
	res, err := registryv1.NewTenantServiceClient(p.operator(t)).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: slug})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetStatus().GetTenant().GetId()
}

// hostAnswers is what the gateway answers for a tenant's host.
func (p *plane) hostAnswers(t *testing.T, slug string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.urlOf(slug)+"/.well-known/openid-configuration", nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.statusOf(t, req)
}

func (p *plane) urlOf(slug string) string {
	return fmt.Sprintf("https://%s.localhost:%d", slug, p.port)
}

// statusOf is what the gateway answers to a request.
func (p *plane) statusOf(t *testing.T, req *http.Request) int {
	t.Helper()
	x := acme()
	if p != shared {
		// Whoever is signed in at any of the plane's tenants reaches its gateway.
		for _, x = range p.tenants {
			break
		}
	}
	res, err := x.client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if set := res.Cookies(); len(set) > 0 {
		t.Errorf("%s sets the cookies %v", req.URL, set)
	}
	return res.StatusCode
}

// Row F33: fleet is killed, and the process that carries a tenant's steps out, in every step; another tenant's operations lose the registry
// in every step, another's the database's server. With A3_LONG=1, on local, that is of each kind of operation, fleet at every point that the source
// passes in it; else in a tenant's first operation and in its last, at some, and in those between a tenant of a small product is
// disturbed at all (TestFleetKilledAnywhereEndsAsIfNever). Each time it is taken up, by itself or by hand, and goes on to
// the next point. What there is in the end is what there is of a tenant that nobody disturbed.
func TestOperationsKilledAtEveryStepEndAsIfNever(t *testing.T) {
	full(t)
	bin, newer := fleetWithFailpoints(t, ""), fleetWithFailpoints(t, "newer")
	built, next := releaseOf(t, bin), releaseOf(t, newer)
	kills := 0
	subjects := subjects()
	for _, o := range []struct {
		kind registryv1.OperationKind
		bin  string
		to   string
	}{{provision, bin, built}, {suspend, bin, ""}, {resume, bin, ""}, {upgrade, newer, next}, {downgrade, bin, built}, {offboard, bin, ""}} {
		at := *shared
		at.programs = o.bin
		at.apply(t, at.plan(t, o.kind, "calm", o.to))
		want := at.world(t, "calm", at.idOf(t, "calm"))
		at.answersAfter(t, o.kind, "calm")
		for slug, disturb := range subjects {
			kills += disturb(t, &at, o.kind, at.plan(t, o.kind, slug, o.to))
			if got := at.world(t, slug, at.idOf(t, slug)); want != got {
				t.Fatalf("%s: what there is of %s differs from what there is of a tenant that was not disturbed:\n%s", o.kind, slug, difference(want, got))
			}
			at.answersAfter(t, o.kind, slug)
		}
	}
	t.Attr("row", fmt.Sprintf("F33 %d", kills))
}

// A tenant that one command makes, which is killed wherever it may leave the registry with a word of it that nobody else knows, is made by the same
// command, at once and once.
func TestTenantIsMadeByACommandThatIsKilled(t *testing.T) {
	full(t)
	const slug = "put-and-killed"
	p := *shared
	p.programs = fleetWithFailpoints(t, "")
	for _, point := range []string{"fleet.own.put", "fleet.own.leased", "fleet.own.before-step", "fleet.own.before-done", "fleet.own.before-finish", "fleet.own.finished"} {
		killed := p
		killed.environ = append(slices.Clone(p.environ), "A3_FAILPOINT="+point+" kill")
		if s := killed.fleet(t, "tenant", "create", slug); s.code != -1 && !strings.Contains(s.err, "signal: killed") {
			t.Fatalf("to be killed at %s it ended with: %s", point, s)
		}
	}
	if s := p.fleet(t, "tenant", "create", slug); s.code != 0 {
		t.Fatal(s)
	}
	if got := p.hostAnswers(t, slug); got != http.StatusOK {
		t.Errorf("the host of the tenant answers %d", got)
	}
	if said := p.must(t, "operation", "list", "--tenant", slug); strings.Count(said, "opr_") != 1 || !strings.Contains(said, "succeeded") {
		t.Errorf("the operations of the tenant are:\n%s", said)
	}
}

// disturbance carries a plan out while it is disturbed, and answers how often it was.
type disturbance func(t *testing.T, p *plane, kind registryv1.OperationKind, hash string) (kills int)

// subjects are the tenants that are disturbed, by slug.
func subjects() map[string]disturbance {
	hurried := func(t *testing.T, p *plane, kind registryv1.OperationKind, hash string) int {
		return p.killedThrough(t, kind, hash, everywhere())
	}
	without := func(strike func(passage) string) disturbance {
		return func(t *testing.T, p *plane, kind registryv1.OperationKind, hash string) int {
			return p.struck(t, kind, hash, strike)
		}
	}
	if !everywhere() {
		return map[string]disturbance{"hurried": hurried, "without-both": without(some)}
	}
	return map[string]disturbance{"hurried": hurried, "without-registry": without(each("plane/registry")), "without-postgres": without(each("plane/postgres"))}
}

// everywhere says whether operations are disturbed wherever they can be, which takes minutes, and on docker half an hour.
func everywhere() bool { return os.Getenv("A3_LONG") != "" && !onDocker() }

// answersAfter holds what a tenant's host answers against what it is to answer after a kind of operation.
func (p *plane) answersAfter(t *testing.T, kind registryv1.OperationKind, slug string) {
	t.Helper()
	want := http.StatusOK
	if kind == suspend || kind == offboard {
		want = http.StatusNotFound
	}
	if got := p.hostAnswers(t, slug); got != want {
		t.Errorf("%s: the host of %s answers %d, want %d", kind, slug, got, want)
	}
}

// Points that fleet passes in a step, by who does the step: fleet itself, the process that carries a tenant's steps out, or that process
// with fleet's power.
var (
	pointsOwn     = []string{"fleet.own.before-step", "fleet.own.before-done", "fleet.own.after-step"}
	pointsCarried = []string{"fleet.carry.before-step", "fleet.carry.step-begun", "fleet.carry.before-done", "fleet.carry.after-step"}
	pointsAsked   = []string{"fleet.carry.before-step", "fleet.carry.step-begun", "fleet.own.before-power", "fleet.own.after-power", "fleet.carry.before-done", "fleet.carry.after-step"}
	pointsEnd     = []string{"fleet.own.before-finish", "fleet.own.finished"}
	asked         = []string{"fetch", "mark", "confirm", "export", "wait", "delete", "remains"}
)

// passage is a point that fleet passes in a step of an operation; at its end in none.
type passage struct{ step, point string }

// passages are those of a kind of operation from a step on, in order.
func passages(kind registryv1.OperationKind, from int) (out []passage) {
	steps := stepsOf[kind]
	identity := slices.Index(steps, "identity")
	for i, step := range steps {
		points := pointsCarried
		switch {
		case i < from:
			continue
		case i <= identity, identity >= 0 && step == "database":
			points = pointsOwn
		case slices.Contains(asked, step):
			points = pointsAsked
		}
		for _, point := range points {
			out = append(out, passage{step, point})
		}
	}
	for _, point := range pointsEnd {
		out = append(out, passage{"", point})
	}
	return out
}

// killedThrough applies a plan, and is killed at each point of each step, or else at some, one after the other, until there is none left. The
// last point of a step lies behind it, so that the next run is at the next step.
func (p *plane) killedThrough(t *testing.T, kind registryv1.OperationKind, hash string, everyPoint bool) (kills int) {
	t.Helper()
	again := *p
	kill := func(point string) {
		again.environ = append(slices.Clone(p.environ), "A3_FAILPOINT="+point+" kill")
		s, err := again.command(t.Context(), "fleet", "apply", hash)
		if err != nil {
			t.Fatal(err)
		}
		if s.code != -1 && !strings.Contains(s.err, "signal: killed") {
			t.Fatalf("%s: to be killed at %s it ended with: %s", kind, point, s)
		}
		kills++
	}
	// Its lease was taken and nothing done: whoever is next need not wait for its end, or would fail.
	kill("fleet.own.leased")
	for _, at := range passages(kind, 0) {
		// The deed done and not on record, and on record and not gone on from; the rest takes minutes.
		telling := strings.HasSuffix(at.point, ".before-done") || strings.HasSuffix(at.point, ".after-step")
		if everyPoint || at.step == "" || (kind == provision || kind == offboard) && telling {
			kill(at.point)
		}
	}
	p.apply(t, hash)
	return kills
}

// difference is the lines that one has and the other has not.
func difference(a, b string) string {
	var out []string
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, l := range x {
		if !slices.Contains(y, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range y {
		if !slices.Contains(x, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}
