package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgserver"
	"a3os.app/libs/pgtest"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/dump"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// managed is a server as RDS has it: its first user makes databases and roles, owns the server's own databases, and is no superuser ("Understanding
// the rds_superuser role", Amazon RDS User Guide).
type managed struct {
	local  *local.Platform
	server *pgserver.Server
}

const firstUser, firstPassword = "a3", "first"

func manage(t *testing.T, p *local.Platform, server *pgserver.Server) managed {
	t.Helper()
	m := managed{p, server}
	for _, sql := range []string{
		"CREATE ROLE rds_superuser NOLOGIN IN ROLE pg_monitor, pg_signal_backend",
		"CREATE ROLE " + firstUser + " LOGIN NOSUPERUSER INHERIT CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '" + firstPassword + "' IN ROLE rds_superuser",
		"ALTER DATABASE postgres OWNER TO " + firstUser, "ALTER DATABASE template1 OWNER TO " + firstUser,
	} {
		m.run(t, "postgres", sql)
	}
	return m
}

// run has the server's real superuser do something, as nobody can at RDS.
func (m managed) run(t *testing.T, database, sql string) (first string) {
	t.Helper()
	url, err := m.server.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if rows := results[len(results)-1].Rows; len(rows) > 0 {
		first = string(rows[0][0])
	}
	return first
}

func (m managed) URL(database string) (string, error) {
	return m.URLAs(firstUser, firstPassword, database), nil
}

func (m managed) URLAs(role, password, database string) string {
	return m.server.URLAs(role, password, database)
}

func (m managed) Address() string { return fmt.Sprintf("127.0.0.1:%d", m.server.Port()) }

// places has every set's database on it.
type places struct{ managed }

func (p places) Databases(platform.Set) (local.Databases, error) { return p.managed, nil }

func (p places) Serve(context.Context, platform.Set) (bool, error) { return false, nil }

func (p places) Migrate(ctx context.Context, s platform.Set, r platform.Release) (bool, error) {
	return p.local.Migrate(ctx, s, r)
}

func (p places) OneOff(context.Context, platform.Set, platform.Release, blueprint.OneOff, blueprint.Facts) (string, error) {
	return "", nil
}

func (p places) Address(platform.Set, string, string) (string, error) { return "127.0.0.1:1", nil }

func (p places) Zone() string                     { return "" }
func (p places) Stores(platform.Set) local.Stores { return nil }
func (p places) CertificateLife() time.Duration   { return 90 * 24 * time.Hour }
func (p places) Installed() pgserver.Binaries     { return p.server.Binaries() }

// secured is a migration that has a table with rows which neither its owner nor the set's role sees all of.
const secured = "CREATE TABLE IF NOT EXISTS tiny.secured (note text); ALTER TABLE tiny.secured ENABLE ROW LEVEL SECURITY; ALTER TABLE tiny.secured FORCE ROW LEVEL SECURITY; " +
	"DROP POLICY IF EXISTS own ON tiny.secured; CREATE POLICY own ON tiny.secured TO ROLE USING (note = 'mine'); GRANT SELECT ON tiny.secured TO ROLE"

// All that fleet does with databases it does where the server's first user is no superuser: it makes one, of which nobody else's roles see anything,
// backs it up with every row that row-level security keeps from its owner, tries the backup out, exports it, restores it, and removes it.
func TestFirstUserOfAServerNeedBeNoSuperuser(t *testing.T) {
	k := &kept{p: machine(t), set: platform.Set{Blueprint: tiny(t), Tenant: id.NewTenant(), Slug: "acme"}}
	k.p.Settings.BackupDir = filepath.Join(k.p.Settings.Home, "backups")
	k.set.Blueprint.Keys["backup"] = blueprint.Key{Kind: blueprint.KeyBackup}
	k.set.Blueprint.Backup = &blueprint.Backup{Key: "backup", PutBack: "UPDATE tiny.notes SET note = note"}
	m := manage(t, k.p, k.p.Postgres.Server)
	k.p.Places, k.r = places{m}, built(t, k.p, more+secured)
	m.made(t, k.set, k.r)
	name := k.set.Name()
	m.run(t, name, "INSERT INTO tiny.secured VALUES ('mine'), ('theirs'), ('nobody''s'); INSERT INTO tiny.notes VALUES ('a note')")
	b, key := k.backUp(t)
	if i := slices.IndexFunc(b.Manifest.Tables, func(t backup.Table) bool { return t.Name == "tiny.secured" }); i < 0 || b.Manifest.Tables[i].Rows != 3 {
		t.Errorf("the backup has %+v", b.Manifest.Tables)
	}
	if r, err := k.p.Rehearse(t.Context(), k.set, k.r, b); err != nil || r.Rows < 4 {
		t.Fatalf("trying the backup out: %+v, %v", r, err)
	}
	dir := filepath.Join(t.TempDir(), "export")
	if _, err := k.p.Export(t.Context(), k.set, dir); err != nil {
		t.Fatal(err)
	}
	if sql, err := os.ReadFile(filepath.Join(dir, "database.sql")); err != nil || !strings.Contains(string(sql), "\ntheirs\n") {
		t.Errorf("of what row-level security keeps from the owner the export has nothing: %v", err)
	}
	if can := m.run(t, "postgres", "SELECT rolcanlogin OR rolbypassrls FROM pg_authid WHERE rolname = '"+name+"_reader'"); can != "f" {
		t.Errorf("the reader was not taken back: %q", can)
	}
	m.run(t, name, "DELETE FROM tiny.secured")
	for range 2 {
		if err := k.p.Restore(t.Context(), k.set, k.r, k.r, b, key, local.Restoring{Backup: b.Manifest.Name, Dir: b.Dir, Began: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if rows := m.run(t, name, "SELECT count(*) FROM tiny.secured"); rows != "3" {
			t.Errorf("restored, it has %s of 3 rows", rows)
		}
	}
	if err := k.p.Restored(t.Context(), k.set); err != nil {
		t.Fatal(err)
	}
	m.removed(t, k.set)
}

// The same on the version that RDS serves, but for what needs that version's own pg_dump.
func TestFirstUserNeedBeNoSuperuserOnTheVersionOfRDS(t *testing.T) {
	const major = 17
	p := machine(t)
	m := manage(t, p, pgtest.Server(t, major))
	p.Places = places{m}
	set, another, r := platform.Set{Blueprint: tiny(t), Tenant: id.NewTenant(), Slug: "acme"}, platform.Set{Blueprint: tiny(t), Tenant: id.NewTenant(), Slug: "globex"}, built(t, p, more+secured)
	m.made(t, set, r)
	m.made(t, another, r)
	m.run(t, set.Name(), "INSERT INTO tiny.secured VALUES ('mine'), ('theirs')")
	for range 2 {
		if read := m.read(t, set); read != 2 {
			t.Errorf("the reader sees %d of 2 rows", read)
		}
	}
	owner, err := os.ReadFile(p.Files(set).URL("owner"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Begin(t.Context(), config.NewSecret(strings.TrimSpace(string(owner)))); err == nil || !strings.Contains(err.Error(), "tiny.secured") {
		t.Errorf("the owner, whom rows are kept from, would copy what it sees: %v", err)
	}
	// A table that came since.
	m.run(t, set.Name(), "SET ROLE "+set.Name()+"_owner; CREATE TABLE tiny.later (note text); ALTER TABLE tiny.later ENABLE ROW LEVEL SECURITY; INSERT INTO tiny.later VALUES ('x')")
	if read := m.read(t, set); read != 3 {
		t.Errorf("with a table that came since the reader sees %d of 3 rows", read)
	}
	if reach := m.run(t, another.Name(), "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE starts_with(rolname, '"+set.Name()+"') AND has_database_privilege(rolname, current_database(), 'CONNECT')"); reach != "" {
		t.Errorf("another's database can be reached by %s", reach)
	}
	m.removed(t, set)
	m.removed(t, another)
}

// made makes a set's database; a second time nothing is left to do. Its roles can do nothing but what is theirs.
func (m managed) made(t *testing.T, s platform.Set, r platform.Release) {
	t.Helper()
	if _, err := m.local.Identity(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for _, first := range []bool{true, false} {
		does(t, first, func() (bool, error) { return m.local.Database(t.Context(), s) })
		does(t, first, func() (bool, error) { return m.local.Migrate(t.Context(), s, r) })
		does(t, first, func() (bool, error) { return m.local.Mark(t.Context(), s) })
	}
	text, err := os.ReadFile(m.local.Files(s).URL("writer"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := m.local.MarkKeys()
	if err != nil {
		t.Fatal(err)
	}
	owner, err := binding.NewOwner(keys, m.local.State.Plane, s.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	db, err := pg.Open(t.Context(), pg.Config{URL: strings.TrimSpace(string(text)), Service: "writer", MaxConns: 1, Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Prove(t.Context()); err != nil {
		t.Errorf("a component would not start: %v", err)
	}
}

// read is how many rows a reader sees of tables with row-level security.
func (m managed) read(t *testing.T, s platform.Set) (rows int64) {
	t.Helper()
	url, done, err := m.local.Reader(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := dump.Begin(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := snapshot.Tables(t.Context())
	if err := errors.Join(err, snapshot.Close(t.Context()), done()); err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		if x.Name != "notes" {
			rows += x.Rows
		}
	}
	return rows
}

// removed removes a set's database; nothing of it is left then.
func (m managed) removed(t *testing.T, s platform.Set) {
	t.Helper()
	does(t, true, func() (bool, error) { return m.local.DropDatabase(t.Context(), s) })
	does(t, false, func() (bool, error) { return m.local.DropDatabase(t.Context(), s) })
	if left := m.run(t, "postgres", "SELECT string_agg(n, ' ') FROM (SELECT datname n FROM pg_database UNION SELECT rolname FROM pg_roles) x WHERE starts_with(n, '"+s.Name()+"')"); left != "" {
		t.Errorf("of %s is left %s", s.Name(), left)
	}
}
