package systemtest

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A backup of one tenant is restored to another that was made to be its copy, beside it and under that one's own id, keys and log, and to no other tenant.
// People, workspaces, what was discovered and the audit log are there; credentials and schedules aren't, for nobody gave them to this tenant. Killed in
// the middle it is run again. The tenant that was copied goes on as if nothing had been.
func TestBackupIsRestoredToATenantThatWasMadeItsCopy(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.a3(t, "acme-admin", "user", "invite", "before@acme.example")
	p.remembersLog(t)
	of := p.superuser(t, "postgres", p.tenants["acme"].id)
	const asks = "SELECT count(*)::text FROM integrations.integrations WHERE has_secret OR next_due_at IS NOT NULL"
	if n := column(t, of, asks); n[0] == "0" {
		t.Fatal("acme has no system with a credential: nothing would be seen")
	}
	// A program that acme lets in, which is an admin of its, with a key of its own.
	key := filepath.Join(t.TempDir(), "program.pem")
	var program struct{ ID string }
	if err := json.Unmarshal([]byte(p.a3(t, "acme-admin", "-o", "json", "service-account", "create", "program", "--key-out", key, "--tenant-role", "admin")), &program); err != nil {
		t.Fatal(err)
	}
	enters := func(slug string) said {
		return p.tryA3(t, "program-at-"+slug, "login", "--url", strings.Replace(p.tenants["acme"].url, "acme", slug, 1), "--ca-cert", filepath.Join(p.home, "web", "ca.pem"),
			"--dial", p.address(), "--service-account", program.ID, "--key", key)
	}
	if s := enters("acme"); s.code != 0 {
		t.Fatalf("the program doesn't sign in at acme: %s", s)
	}
	made, others := p.backUp(t, "acme"), p.backUp(t, "globex", "--no-verify")
	p.a3(t, "acme-admin", "user", "invite", "after@acme.example")

	var planned struct{ Plan struct{ Hash string } }
	must := func(into any, args ...string) {
		if err := p.json(t.Context(), into, args...); err != nil {
			t.Fatal(err)
		}
	}
	must(&planned, "plan", "provision", "--tenant", "monday", "--copy-of", "acme", "--reason", "what did acme have before the mishap?")
	if page := p.ok(t, "plan", "show", planned.Plan.Hash); !strings.Contains(page, "copy of") || !strings.Contains(page, p.tenants["acme"].id) {
		t.Errorf("who approves the plan doesn't read whose copy the tenant is to be:\n%s", page)
	}
	p.apply(t, planned.Plan.Hash)
	var monday struct{ Tenant struct{ ID, CopyOf string } }
	must(&monday, "tenant", "show", "monday")
	if monday.Tenant.CopyOf != p.tenants["acme"].id {
		t.Errorf("the registry has monday as a copy of %q", monday.Tenant.CopyOf)
	}
	restore := func(from, to string, more ...string) said {
		return p.fleet(t, append([]string{"restore", "--from", from, "--to", to, "--reason", "look at what there was on Monday"}, more...)...)
	}
	for to, from := range map[string]string{"monday": others.Name, "globex": made.Name, "plane": made.Name} {
		if s := restore(from, to, "--replace"); s.code == 0 || !strings.Contains(s.err, "the backup is refused") {
			t.Errorf("%s takes the backup of somebody that it is no copy of: %s", to, s)
		}
	}
	if s := restore(made.Name, "monday"); s.code == 0 || !strings.Contains(s.err, "--replace") {
		t.Errorf("a set that runs is given up without being asked: %s", s)
	}

	p.killRestore(t, made, "monday", monday.Tenant.ID)
	if s := restore(made.Name, "monday", "--replace"); s.code != 0 || !strings.Contains(s.out, "a copy of acme") {
		t.Fatalf("a copy whose restore was killed is restored again: %s", s)
	}
	s := p.fleet(t, "tenant", "recover-admin", "monday", "--admin", "admin@acme.example", "--reason", "sign in to the copy of acme")
	_, code, ok := strings.Cut(s.err, "--setup-code ")
	if !ok {
		t.Fatalf("recover-admin: %s", s)
	}
	p.a3(t, "monday-admin", "login", "--url", strings.Replace(p.tenants["acme"].url, "acme", "monday", 1), "--ca-cert", filepath.Join(p.home, "web", "ca.pem"),
		"--dial", p.address(), "--setup-code", strings.Fields(code)[0])
	if users := p.a3(t, "monday-admin", "user", "list"); !strings.Contains(users, "before@acme.example") || strings.Contains(users, "after@acme.example") {
		t.Errorf("the copy has the people\n%s", users)
	}
	if verified := p.a3(t, "monday-admin", "audit", "verify"); !strings.Contains(verified, "whole: ") || !strings.Contains(verified, monday.Tenant.ID) {
		t.Errorf("the copy's log: %s", verified)
	}
	for action, word := range map[string]string{"iam.user.invited": "iam.user.invited", "iam.set.restored": "Copy of acme"} {
		if events := p.a3(t, "monday-admin", "audit", "list", "--action", action); !strings.Contains(events, word) {
			t.Errorf("the copy's log has no %q under %s: %s", word, action, events)
		}
	}
	if s := enters("monday"); s.code == 0 {
		t.Errorf("a program of acme's signs in at the copy with its key: %s", s)
	}
	if programs := p.a3(t, "monday-admin", "service-account", "list"); !strings.Contains(programs, "program") {
		t.Errorf("the copy doesn't show which programs there were: %s", programs)
	}
	// Who is whom, and in which workspace, is the same at both: what keeps a token of one from the other is who issued it.
	tokens := map[string]string{"acme": strings.TrimSpace(p.a3(t, "acme-admin", "token")), "monday": strings.TrimSpace(p.a3(t, "monday-admin", "token"))}
	for of, token := range tokens {
		for _, at := range []string{"acme", "monday"} {
			want := http.StatusUnauthorized
			if of == at {
				want = http.StatusOK
			}
			for _, method := range []string{"iam.v1.IdentityService/GetSelf", "iam.v1.UserService/ListUsers", "audit.v1.AuditService/ListEvents"} {
				if got := p.asks(t, at, method, token); got != want {
					t.Errorf("a token of %s's is answered with %d at %s by %s, want %d", of, got, at, method, want)
				}
			}
		}
	}
	copied := p.superuser(t, "postgres", monday.Tenant.ID)
	if n := column(t, copied, asks); n[0] != "0" {
		t.Errorf("%s systems of the copy have a credential, or a schedule", n[0])
	}
	// What the copy's roles may do is what those of its model may, login for login.
	const may = `SELECT replace(concat_ws(' ', r.rolname, c.oid::regclass, p.p), $1, '') FROM pg_roles r, pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p(p)
		WHERE r.rolname LIKE $1 || '%' AND c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ('iam', 'audit', 'integrations', 'discovery', 'queue')
		AND has_table_privilege(r.oid, c.oid, p.p) ORDER BY 1`
	model, got := column(t, of, may, p.tenants["acme"].id), column(t, copied, may, monday.Tenant.ID)
	if len(model) == 0 || !slices.Equal(model, got) {
		t.Errorf("the copy's roles may\n%q\nand those of its model\n%q", got, model)
	}
	// Its next backup is one of its own.
	if again := p.backUp(t, "monday"); again.Verified == "" {
		t.Errorf("a backup of the copy: %+v", again)
	}
	if verified := p.a3(t, "acme-admin", "audit", "verify"); !strings.Contains(verified, "whole: ") {
		t.Errorf("the log of the tenant that was copied: %s", verified)
	}
	if n := column(t, of, asks); n[0] == "0" {
		t.Error("the tenant that was copied lost its credentials")
	}
	var leaves struct{ Plan struct{ Hash string } }
	must(&leaves, "plan", "offboard", "--tenant", "acme", "--reason", "would it take its copy along?")
	if page := p.ok(t, "plan", "show", leaves.Plan.Hash); !strings.Contains(page, "monday is a copy of it") {
		t.Errorf("who approves that acme leaves doesn't read that a copy stays:\n%s", page)
	}
	if shown := p.ok(t, "tenant", "show", "acme"); !strings.Contains(shown, "monday is a copy of it") {
		t.Errorf("acme is shown without its copy:\n%s", shown)
	}
	if s := p.fleet(t, "isolation", "verify"); s.code != 0 {
		t.Errorf("isolation of a plane with a copy: %s", s)
	}
}

// asks is what a method of a tenant's answers to a token.
func (p *plane) asks(t *testing.T, slug, method, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.urlOf(slug)+"/a3os."+method, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	return p.statusOf(t, req)
}
