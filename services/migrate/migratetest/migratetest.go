// Package migratetest makes a tenant's database as `accessos migrate` leaves it: its own database on a real PostgreSQL, an owner who is
// no superuser, the roles of the set with names as in production, every schema and the queue. Only tests use it.
package migratetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/licence/licencetest"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	"a3os.app/services/migrate"
)

// Roles are the roles of a set, by the names that configuration gives them; migrations call them `role_` and the name.
func Roles() []string {
	return []string{"iam", "iam_tenant", "integrations", "integrations_tenant", "discovery", "discovery_tenant", "worker", "audit"}
}

// Tenant is a tenant's database.
type Tenant struct {
	// ID is whose it is.
	ID id.Tenant
	// Database is the database; its own URL is the superuser's.
	*pgtest.Database

	urls map[string]string
}

// New makes a tenant's database, dropped with its roles when the test ends.
func New(t testing.TB) *Tenant {
	t.Helper()
	tenant := &Tenant{ID: id.NewTenant(), Database: pgtest.New(t), urls: map[string]string{}}
	// Names end after 63 bytes, and pgtest adds some: the head of the id will do.
	name := func(role string) string { return tenant.ID.String()[:20] + "_" + role }
	tenant.urls["owner"] = tenant.Role(t, name("owner"), "NOSUPERUSER NOCREATEROLE NOCREATEDB")
	real := map[string]string{}
	for _, role := range Roles() {
		tenant.urls[role] = tenant.Role(t, name(role), "NOINHERIT")
		real[role] = tenant.RoleName(tenant.urls[role])
	}
	quoted := pgx.Identifier{tenant.Name}.Sanitize()
	tenant.Exec(t, fmt.Sprintf(`REVOKE ALL ON DATABASE %[1]s FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
		ALTER DATABASE %[1]s OWNER TO %[2]s; GRANT CONNECT ON DATABASE %[1]s TO %[3]s`,
		quoted, pgx.Identifier{tenant.RoleName(tenant.urls["owner"])}.Sanitize(), tenant.list(real)))
	cfg := migrate.Config{OwnerDatabaseURL: config.NewSecret(tenant.urls["owner"]), Schemas: "set", Roles: real}
	if err := migrate.Run(t.Context(), cfg); err != nil {
		t.Fatalf("migrate the tenant's database: %v", err)
	}
	bindingtest.Mark(t, tenant.URL, tenant.ID, "queue")
	licencetest.Install(t, tenant.URL, licencetest.Whole(tenant.ID, 1))
	return tenant
}

// list is all roles, quoted, for a GRANT.
func (d *Tenant) list(real map[string]string) string {
	names := make([]string, 0, len(real))
	for _, r := range real {
		names = append(names, pgx.Identifier{r}.Sanitize())
	}
	return strings.Join(names, ", ")
}

// RoleURL is the connection string of a role: one of Roles, or `owner`.
func (d *Tenant) RoleURL(t testing.TB, role string) string {
	t.Helper()
	url, known := d.urls[role]
	if !known {
		t.Fatalf("there is no role %q: it is owner or one of %v", role, Roles())
	}
	return url
}

// Real is the name that a role has on the server.
func (d *Tenant) Real(t testing.TB, role string) string {
	t.Helper()
	return d.RoleName(d.RoleURL(t, role))
}

// Open is a pool of a role, as its service opens it, closed when the test ends.
func (d *Tenant) Open(t testing.TB, role string) *pg.DB {
	t.Helper()
	db, err := pg.Open(t.Context(), pg.Config{URL: d.RoleURL(t, role), Service: strings.TrimSuffix(role, "_tenant"), Owner: bindingtest.Owner(t, d.ID)})
	if err != nil {
		t.Fatalf("open a pool as %s: %v", role, err)
	}
	t.Cleanup(db.Close)
	return db
}

// Licence is the tenant's licence as a service reads it through a role's pool: one with everything, unless a test installs a later one.
func (d *Tenant) Licence(t testing.TB, db *pg.DB) *held.Licence {
	t.Helper()
	return held.New(db, licencetest.Verifier(t), d.ID, nil)
}
