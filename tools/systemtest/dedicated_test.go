package systemtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/pgserver"
)

// A tenant of tier dedicated has a PostgreSQL server to itself, with a process, a user, a port and data of its own, for as long as it is
// there: it is made with the tenant, keeps others out, is kept to its share of memory, is backed up, stops and starts with the set, comes back when it is killed, is put
// back to a backup, and is gone with the tenant. Neighbours share the plane's.
func TestDedicatedTenantHasADatabaseServerToItself(t *testing.T) {
	full(t)
	const slug = "recluse"
	if s := shared.fleet(t, "tenant", "create", slug, "--tier", "dedicated"); s.code != 0 {
		t.Fatalf("create: %s", s)
	}
	x := &tenant{slug: slug, id: shared.idOf(t, slug)}
	unit, server := x.id+"/postgres", "postgres-"+x.id
	admin := shared.admitAdmin(t, slug)
	shared.a3(t, admin, "workspace", "create", "elsewhere")
	ownServerIsApart(t, x)
	sameSchema(t, x, acme())
	isolationHolds(t, "acme", slug)
	crowdsItsServer(t, x)
	outgrowsItsServer(t, x, "acme")
	if s := shared.fleet(t, "tenant", "create", slug, "--tier", "database"); s.code == 0 || !strings.Contains(s.err, "another isolation tier") {
		t.Errorf("another tier for who is there: %s", s)
	}
	if s := shared.fleet(t, "tenant", "show", slug); s.code != 0 || !strings.Contains(s.out, "dedicated") {
		t.Errorf("its tier is not shown: %s", s)
	}

	// It is killed, and comes back like any other process of the set.
	before := shared.pids(t)[unit]
	kill(t, before)
	shared.serves(t, unit, before)
	if got := shared.hostAnswers(t, slug); got != http.StatusOK {
		t.Errorf("after its server was killed its host answers %d", got)
	}

	// Suspended, it does not run; a backup wakes it and lets it rest again.
	shared.apply(t, shared.plan(t, suspend, slug, ""))
	if pid := shared.pids(t)[unit]; pid != 0 {
		t.Errorf("the server of a suspended tenant runs as process %d", pid)
	}
	// Nor is it tried, of which the proof of the others says so.
	if s := shared.fleet(t, "isolation", "verify", "--tenant", "acme,"+slug, "--out", t.TempDir()); s.code == 0 || !strings.Contains(s.err, slug+": its set doesn't run") {
		t.Errorf("a suspended tenant is tried: %s", s)
	}
	if s := shared.fleet(t, "isolation", "verify", "--tenant", "acme", "--out", t.TempDir()); s.code != 0 || !strings.Contains(s.out, "Not shown: "+slug+" was not tried") ||
		!strings.Contains(s.out, "globex was not tried, nor others at it: it was not named") {
		t.Errorf("the proof of others says nothing of who was not tried: %s", s)
	}
	made := shared.backUp(t, slug)
	if made.Verified == "" || made.Rows == 0 {
		t.Errorf("the backup was not restored for trial: %+v", made)
	}
	if pid := shared.pids(t)[unit]; pid != 0 {
		t.Errorf("after a backup the server of a suspended tenant runs on as process %d", pid)
	}
	shared.apply(t, shared.plan(t, resume, slug, ""))
	shared.a3(t, admin, "workspace", "create", "after-the-backup")

	if s := shared.fleet(t, "restore", "--from", made.Dir, "--to", slug, "--replace", "--reason", "a test of restores"); s.code != 0 {
		t.Fatalf("restore: %s", s)
	}
	conn := shared.superuser(t, server, x.id)
	var names []string
	rows, err := conn.Query(t.Context(), "SELECT name FROM iam.workspaces ORDER BY 1")
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if list := strings.Join(names, " "); err != nil || !strings.Contains(list, "elsewhere") || strings.Contains(list, "after-the-backup") {
		t.Errorf("after the restore its workspaces are %q (%v)", list, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}

	dir, err := pgserver.DirFor(filepath.Join(shared.home, server), "")
	if err != nil {
		t.Fatal(err)
	}
	shared.apply(t, shared.plan(t, offboard, slug, ""))
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data of its server are still in %s (%v)", dir, err)
	}
	if pid, there := shared.pids(t)[unit]; there {
		t.Errorf("its server is still kept, as process %d", pid)
	}
}

// sameSchema holds a database that was migrated, on a server of its own, against one that was copied from the release's template: there is
// the same in both, and each belongs to, and is granted to, the tenant's own roles.
func sameSchema(t *testing.T, migrated, copied *tenant) {
	t.Helper()
	binaries, err := pgserver.Find(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	of := func(x *tenant, server string) string {
		out, err := exec.CommandContext(t.Context(), filepath.Join(binaries.Dir, "pg_dump"), "--schema-only", "--dbname", shared.superuserURL(t, server, x.id)).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.ReplaceAll(string(out), x.id, "TENANT"), "\n")
		// Each has a signature of its own, and a newer program puts a word of chance around what it writes.
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "— ") || strings.Contains(l, "restrict ") })
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	want, got := of(migrated, "postgres-"+migrated.id), of(copied, "postgres")
	if strings.Count(want, "CREATE TABLE") < 30 || strings.Count(want, "CREATE POLICY") < 20 {
		t.Errorf("a dump has few tables or policies: it is not what it was:\n%s", want)
	}
	if got != want {
		t.Errorf("a copied database has not what a migrated one has (- migrated, + copied):\n%s", difference(want, got))
	}
}

// ownServerIsApart looks at the server from outside: nobody else is on it, and as nobody else it runs.
func ownServerIsApart(t *testing.T, x *tenant) {
	t.Helper()
	server := "postgres-" + x.id
	var databases string
	own := shared.superuser(t, server, "postgres")
	if err := own.QueryRow(t.Context(), "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate").Scan(&databases); err != nil || databases != "postgres "+x.id {
		t.Errorf("its server has the databases %q (%v)", databases, err)
	}
	var there bool
	if err := shared.superuser(t, "postgres", "postgres").QueryRow(t.Context(),
		"SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) OR EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname, $1))", x.id).Scan(&there); err != nil || there {
		t.Errorf("the shared server knows of it: %v (%v)", there, err)
	}
	pids := shared.pids(t)
	if pids[x.id+"/postgres"] == 0 {
		t.Fatalf("its server is none of the plane's processes: %v", pids)
	}
	if os.Geteuid() != 0 {
		return
	}
	user := func(pid int) uint32 {
		info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid //nolint:forcetypeassert // Linux says so of every file
	}
	mine := user(pids[x.id+"/postgres"])
	for name, pid := range pids {
		if name != x.id+"/postgres" && pid != 0 && user(pid) == mine {
			t.Errorf("its server runs as the user %d, as %s does", mine, name)
		}
	}
}

// isolationHolds proves some tenants apart.
func isolationHolds(t *testing.T, slugs ...string) {
	t.Helper()
	s, err := shared.command(t.Context(), "fleet", "-o", "json", "isolation", "verify", "--tenant", strings.Join(slugs, ","), "--out", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var r isolationReport
	if err := json.Unmarshal([]byte(s.out), &r); err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	servers := 0
	for _, x := range r.Results {
		if x.Outcome != "refused" {
			t.Errorf("%s: %s at %s: %s: %s (%s)", x.Outcome, x.From, x.At, x.Attempt, x.Answer, x.Control)
		}
		if strings.Contains(x.At, "own server") {
			servers++
		}
	}
	if s.code != 0 || servers == 0 {
		t.Errorf("the proof exits with %d and tried the own server %d times", s.code, servers)
	}
}

// ownServerOutlives takes a tenant with a server of its own through what happens to sets: it drifts and is repaired, which stops and starts
// the server with the rest; it is upgraded, which leaves the server alone; and its machine starts anew.
func (p *plane) ownServerOutlives(t *testing.T, x *tenant) {
	t.Helper()
	server := x.id + "/postgres"
	writes := registryv1.NewTenantWriteServiceClient(p.operator(t))
	for _, c := range []struct {
		state registryv1.TenantState
		runs  bool
	}{{registryv1.TenantState_TENANT_STATE_SUSPENDED, false}, {registryv1.TenantState_TENANT_STATE_ACTIVE, true}} {
		if _, err := writes.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: x.id, State: c.state}); err != nil {
			t.Fatal(err)
		}
		p.ok(t, "repair", "--tenant", x.slug)
		if pid := p.pids(t)[server]; (pid != 0) != c.runs {
			t.Errorf("repaired, for it is %s, its server runs as process %d", c.state, pid)
		}
	}

	program, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "accessos")
	if err := os.WriteFile(file, otherDigest(program), 0o755); err != nil {
		t.Fatal(err)
	}
	p.ok(t, "release", "register", "--version", "9.0.0", "--artefact", "accessos="+file)
	before := p.pids(t)
	p.apply(t, p.plan(t, upgrade, x.slug, "9.0.0"))
	if now := p.pids(t); now[server] != before[server] || now[x.id+"/iam"] == before[x.id+"/iam"] {
		t.Errorf("upgraded, its server was process %d and is %d, its iam was %d and is %d", before[server], now[server], before[x.id+"/iam"], now[x.id+"/iam"])
	}

	kill(t, p.keeper(t, "watcher"), p.keeper(t, "supervisor"))
	within(t, backWithin, func() error {
		if left := p.running(); len(left) > 0 {
			return fmt.Errorf("with nobody to keep them still run %s", strings.Join(left, "; "))
		}
		return nil
	})
	p.ok(t, "plane", "up")
	if pid := p.pids(t)[server]; pid == 0 || pid == before[server] {
		t.Errorf("after its machine started anew its server runs as process %d", pid)
	}
	if got := p.hostAnswers(t, x.slug); got != http.StatusOK {
		t.Errorf("after its machine started anew its host answers %d", got)
	}
}
