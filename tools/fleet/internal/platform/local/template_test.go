package local_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// everyKind is a migration that grants whatever kind of thing a copy carries over.
const everyKind = `
	CREATE TABLE tiny.numbered (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, own text NOT NULL UNIQUE, secret text);
	ALTER TABLE tiny.numbered ENABLE ROW LEVEL SECURITY; ALTER TABLE tiny.numbered FORCE ROW LEVEL SECURITY;
	CREATE POLICY mine ON tiny.numbered FOR SELECT TO ROLE USING (own = current_user);
	CREATE POLICY everybodys ON tiny.numbered FOR DELETE TO PUBLIC USING (false);
	GRANT SELECT (id, own), UPDATE (own) ON tiny.numbered TO ROLE; GRANT USAGE ON SEQUENCE tiny.numbered_id_seq TO ROLE;
	GRANT DELETE ON tiny.numbered TO ROLE WITH GRANT OPTION;
	CREATE TYPE tiny.mood AS ENUM ('well', 'ill'); REVOKE ALL ON TYPE tiny.mood FROM PUBLIC; GRANT USAGE ON TYPE tiny.mood TO ROLE;
	CREATE FUNCTION tiny.twice(n integer) RETURNS integer LANGUAGE sql SECURITY DEFINER SET search_path = '' RETURN 2 * n;
	REVOKE ALL ON FUNCTION tiny.twice FROM PUBLIC; GRANT EXECUTE ON FUNCTION tiny.twice TO ROLE;
	CREATE VIEW tiny.seen AS SELECT id FROM tiny.numbered; GRANT SELECT ON tiny.seen TO ROLE`

// schema is all that a set's database holds, whose it is and who may what, in words that name no tenant, one a line and sorted: the order of
// what is granted is that in which it was.
func schema(t *testing.T, p *local.Platform, s platform.Set) []string {
	t.Helper()
	url, err := p.Postgres.URL(s.Name())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(p.Postgres.Binaries().Dir, "pg_dump"), "--schema-only", "--dbname", url).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.ReplaceAll(string(out), s.Name(), "TENANT"), "\n")
	// Newer programs put a word of chance around what they write.
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "restrict ") })
	slices.Sort(lines)
	return lines
}

func newSet(t *testing.T, p *local.Platform) platform.Set {
	t.Helper()
	s := platform.Set{Blueprint: tiny(t), Tenant: id.NewTenant(), Slug: "acme"}
	if _, err := p.Identity(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func does(t *testing.T, want bool, do func() (bool, error)) {
	t.Helper()
	if did, err := do(); err != nil || did != want {
		t.Fatalf("it answers that it changed something: %v, want %v (%v)", did, want, err)
	}
}

// Whatever a release's migrations make, a database that was copied has it for the tenant's own roles as one that was migrated has, and
// for nobody else; nothing is left to migrate. What a copy would lose is migrated as ever.
func TestCopiedDatabaseIsAsIfMigrated(t *testing.T) {
	p := machine(t)
	for name, c := range map[string]struct {
		sql    string
		copied bool
	}{
		"nothing else": {"SELECT 1", true}, "every kind of thing": {everyKind, true},
		"what is granted ahead": {"ALTER DEFAULT PRIVILEGES IN SCHEMA tiny GRANT SELECT ON TABLES TO ROLE; CREATE TABLE tiny.later ()", false},
	} {
		r := built(t, p, more+c.sql)
		migrated := newSet(t, p)
		does(t, true, func() (bool, error) { return p.Database(t.Context(), migrated) })
		does(t, true, func() (bool, error) { return p.Migrate(t.Context(), migrated, r) })
		want := schema(t, p, migrated)
		for _, spare := range []bool{false, false, true} {
			s := newSet(t, p)
			if spare {
				does(t, c.copied, func() (bool, error) { return p.KeepSpare(t.Context(), s.Blueprint) })
				does(t, false, func() (bool, error) { return p.KeepSpare(t.Context(), s.Blueprint) })
			}
			does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), s, r) })
			does(t, !c.copied, func() (bool, error) { return p.Migrate(t.Context(), s, r) })
			does(t, false, func() (bool, error) { return p.MigratedDatabase(t.Context(), s, r) })
			if got := schema(t, p, s); !slices.Equal(got, want) {
				t.Errorf("%s: a copy has %q, and not what was migrated: %q", name, missing(got, want), missing(want, got))
			}
			does(t, true, func() (bool, error) { return p.Mark(t.Context(), s) })
		}
		admin := superuser(t, p, "postgres")
		var left []string
		if err := admin.QueryRow(t.Context(), `SELECT array(SELECT d.datname || ': ' || r.rolname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid JOIN pg_roles r ON r.oid = s.refobjid
			WHERE starts_with(r.rolname, 'template_a3_') AND NOT starts_with(d.datname, 'template_a3_'))`).Scan(&left); err != nil || len(left) > 0 {
			t.Errorf("%s: of the template's roles tenants' databases know %q (%v)", name, left, err)
		}
	}
}

func missing(of, in []string) (out []string) {
	for _, l := range of {
		if !slices.Contains(in, l) {
			out = append(out, l)
		}
	}
	return out
}

func superuser(t *testing.T, p *local.Platform, database string) *pgx.Conn {
	t.Helper()
	url, err := p.Postgres.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// Nobody gets into a template, and nobody logs in as what stands in it for tenants' roles; one alone is kept.
func TestTemplateIsClosedToEverybody(t *testing.T) {
	p := machine(t)
	s := newSet(t, p)
	for _, text := range []string{"", "newer"} {
		if _, err := p.MigratedDatabase(t.Context(), s, built(t, p, text)); err != nil {
			t.Fatal(err)
		}
		s = newSet(t, p)
	}
	var templates, open, logins int
	if err := superuser(t, p, "postgres").QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE datallowconn OR pg_get_userbyid(datdba) <> 'postgres'
			OR EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE a.grantee <> datdba)),
			(SELECT count(*) FROM pg_authid WHERE starts_with(rolname, 'template_a3_') AND (rolcanlogin OR rolpassword IS NOT NULL OR rolinherit OR rolsuper OR rolcreatedb OR rolcreaterole
				OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = pg_authid.oid OR m.roleid = pg_authid.oid)))
		FROM pg_database WHERE starts_with(datname, 'template_a3_')`).Scan(&templates, &open, &logins); err != nil || templates != 1 || open != 0 || logins != 0 {
		t.Errorf("there are %d templates, %d of them open, and %d roles that log in or have what no role of theirs needs (%v)", templates, open, logins, err)
	}
}

// Whatever was cut off in the middle is made anew: a template that is not whole, and a copy that is nobody's yet.
func TestTemplateOrCopyThatWasCutOffIsMadeAnew(t *testing.T) {
	p := machine(t)
	r, first := built(t, p, ""), newSet(t, p)
	does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), first, r) })
	admin := superuser(t, p, "postgres")
	var template string
	if err := admin.QueryRow(t.Context(), "SELECT datname FROM pg_database WHERE starts_with(datname, 'template_a3_')").Scan(&template); err != nil {
		t.Fatal(err)
	}
	second := newSet(t, p)
	for _, sql := range []string{"COMMENT ON DATABASE " + template + " IS NULL", "CREATE DATABASE " + second.Name() + " TEMPLATE " + template + " ALLOW_CONNECTIONS false"} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), second, r) })
	if want, got := schema(t, p, first), schema(t, p, second); !slices.Equal(got, want) {
		t.Errorf("what was cut off ends as %q, want %q", got, want)
	}
	// Where its tenant's own data could be in it nothing is thrown away.
	does(t, true, func() (bool, error) { return p.Mark(t.Context(), second) })
	if _, err := admin.Exec(t.Context(), "ALTER DATABASE "+second.Name()+" OWNER TO postgres"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.MigratedDatabase(t.Context(), second, r); err == nil || !strings.Contains(err.Error(), "somebody else's") {
		t.Errorf("a database with a mark that is not its owner's: %v", err)
	}
}

// Tenants come several at once, the first of a release among them.
func TestCopiesAreMadeAtOnce(t *testing.T) {
	p := machine(t)
	r := built(t, p, "")
	var all sync.WaitGroup
	for range 6 {
		s := newSet(t, p)
		all.Go(func() {
			if did, err := p.MigratedDatabase(t.Context(), s, r); err != nil || !did {
				t.Errorf("it answers %v, %v", did, err)
			}
		})
	}
	all.Wait()
}
