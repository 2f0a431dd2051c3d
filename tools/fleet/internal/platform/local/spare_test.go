package local_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"a3os.app/tools/fleet/internal/platform/local"
)

// spares are the names of spares, and of the roles of spares.
func spares(t *testing.T, p *local.Platform) (databases, roles []string) {
	t.Helper()
	if err := superuser(t, p, "postgres").QueryRow(t.Context(), `SELECT array(SELECT datname::text FROM pg_database WHERE starts_with(datname, 'spare_a3_')),
		array(SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'spare_a3_'))`).Scan(&databases, &roles); err != nil {
		t.Fatal(err)
	}
	return databases, roles
}

// withSpare is a machine with a tenant of a release, and a spare.
func withSpare(t *testing.T) (p *local.Platform, name string) {
	t.Helper()
	p = machine(t)
	s := newSet(t, p)
	// Before there is a template there is nothing to keep.
	does(t, false, func() (bool, error) { return p.KeepSpare(t.Context(), s.Blueprint) })
	does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), s, built(t, p, "")) })
	does(t, true, func() (bool, error) { return p.KeepSpare(t.Context(), s.Blueprint) })
	databases, _ := spares(t, p)
	if len(databases) != 1 {
		t.Fatalf("the spares are %q", databases)
	}
	return p, databases[0]
}

// Nobody gets into a spare, and nobody logs in as its roles, nor is anything in it anybody else's. Whoever takes it leaves no trace of what
// it was.
func TestSpareIsClosedUntilItIsATenants(t *testing.T) {
	p, spare := withSpare(t)
	admin := superuser(t, p, "postgres")
	var open, logins int
	if err := admin.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE datallowconn OR pg_get_userbyid(datdba) <> datname || '_owner'
			OR EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE a.grantee <> datdba)),
			(SELECT count(*) FROM pg_authid WHERE starts_with(rolname, $1 || '_') AND (rolcanlogin OR rolpassword IS NOT NULL OR rolinherit OR rolsuper OR rolcreatedb OR rolcreaterole
				OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = pg_authid.oid OR m.roleid = pg_authid.oid)))
		FROM pg_database WHERE datname = $1`, spare).Scan(&open, &logins); err != nil || open != 0 || logins != 0 {
		t.Errorf("it is open (%d), or %d of its roles log in or have what no role of theirs needs (%v)", open, logins, err)
	}
	s := newSet(t, p)
	var before, after uint32
	if err := admin.QueryRow(t.Context(), "SELECT oid FROM pg_database WHERE datname = $1", spare).Scan(&before); err != nil {
		t.Fatal(err)
	}
	does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), s, built(t, p, "")) })
	if err := admin.QueryRow(t.Context(), "SELECT oid FROM pg_database WHERE datname = $1", s.Name()).Scan(&after); err != nil || after != before {
		t.Errorf("the tenant's database is %d and the spare was %d (%v)", after, before, err)
	}
	if databases, roles := spares(t, p); len(databases) > 0 || len(roles) > 0 {
		t.Errorf("of the spare that was taken are left %q, %q", databases, roles)
	}
	does(t, false, func() (bool, error) { return p.MigratedDatabase(t.Context(), s, built(t, p, "")) })
	does(t, false, func() (bool, error) { return p.Database(t.Context(), s) })
	does(t, true, func() (bool, error) { return p.Mark(t.Context(), s) })
}

// One that was cut off while it was made is never taken, and is removed with its roles, as are one of another release and roles that were left
// alone.
func TestSpareThatIsNotWholeIsMadeAnew(t *testing.T) {
	p, spare := withSpare(t)
	for _, c := range []struct{ name, spoil, release string }{
		{name: "not whole", spoil: "COMMENT ON DATABASE SPARE IS NULL"},
		{name: "roles alone", spoil: "DROP DATABASE SPARE"},
		{name: "of another template", spoil: "COMMENT ON DATABASE SPARE IS 'a3 spare, whole, of template_a3_0123456789abcdef'"},
		{name: "of another release", release: "newer"},
	} {
		if c.spoil != "" {
			if _, err := superuser(t, p, "postgres").Exec(t.Context(), strings.ReplaceAll(c.spoil, "SPARE", spare)); err != nil {
				t.Fatal(err)
			}
		}
		s := newSet(t, p)
		does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), s, built(t, p, c.release)) })
		if _, roles := spares(t, p); len(roles) == 0 {
			t.Errorf("%s: it was taken", c.name)
		}
		does(t, true, func() (bool, error) { return p.KeepSpare(t.Context(), s.Blueprint) })
		databases, roles := spares(t, p)
		if len(databases) != 1 || databases[0] == spare || slices.ContainsFunc(roles, func(r string) bool { return !strings.HasPrefix(r, databases[0]) }) {
			t.Fatalf("%s: the spares are %q now, with the roles %q", c.name, databases, roles)
		}
		spare = databases[0]
	}
}

// One that is being taken, or made, is nobody else's: a tenant that comes at that moment gets its database as without one.
func TestSpareIsOneTenants(t *testing.T) {
	p, _ := withSpare(t)
	r := built(t, p, "")
	var all sync.WaitGroup
	for range 4 {
		s := newSet(t, p)
		all.Go(func() {
			if did, err := p.MigratedDatabase(t.Context(), s, r); err != nil || !did {
				t.Errorf("it answers %v, %v", did, err)
			}
			if _, err := p.Mark(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := p.KeepSpare(t.Context(), s.Blueprint); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	maker := superuser(t, p, "postgres")
	if _, err := p.KeepSpare(t.Context(), newSet(t, p).Blueprint); err != nil {
		t.Fatal(err)
	}
	if _, err := maker.Exec(t.Context(), "SELECT pg_advisory_lock(1630760821)"); err != nil {
		t.Fatal(err)
	}
	does(t, true, func() (bool, error) { return p.MigratedDatabase(t.Context(), newSet(t, p), r) })
	if databases, _ := spares(t, p); len(databases) != 1 {
		t.Errorf("while somebody else is at the spares they became %q", databases)
	}
	_ = maker.Close(context.WithoutCancel(t.Context()))
}
