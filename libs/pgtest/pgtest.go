// Package pgtest gives tests a real PostgreSQL: a database of the test's own, roles of its own, and where a test restarts
// or kills the server, a server of its own. Databases are empty, throwaway and on one server: the one that A3_TEST_PG
// names (a superuser's URL; `make test` starts one through with-postgres), else one that this test process starts for
// itself and that ends with it, however it ends. Tests may run in parallel. The package relies on libs/pgserver for
// servers, and leaves schemas to the test.
package pgtest

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Database is a throwaway database.
type Database struct {
	Name string
	// URL logs in to this database as the server's superuser, who owns it.
	URL string

	server string // URL of the superuser to the server's own database

	mu    sync.Mutex
	roles []string
}

// New makes an empty database, dropped with its roles when the test ends.
func New(t testing.TB) *Database {
	t.Helper()
	return create(t, sharedServer(t), "template0")
}

// Template makes a database that build fills once in this test and that Clone copies: for many tests over one schema, for
// a copy costs far less than running its migrations again.
func Template(t testing.TB, build func(*Database)) *Database {
	t.Helper()
	d := New(t)
	build(d)
	return d
}

// Clone makes a database with the schema and the rows of d, which nobody may be connected to meanwhile: close pools first.
// The roles are d's, so d must outlive its clones.
func (d *Database) Clone(t testing.TB) *Database {
	t.Helper()
	c := create(t, d.server, d.Name)
	if len(d.roles) > 0 {
		c.Exec(t, "GRANT CONNECT ON DATABASE "+quote(c.Name)+" TO "+strings.Join(d.roles, ", "))
	}
	return c
}

func create(t testing.TB, server, template string) *Database {
	t.Helper()
	name := "test_" + suffix()
	d := &Database{Name: name, URL: withDatabase(t, server, name), server: server}
	execAt(t.Context(), t, server, "CREATE DATABASE "+quote(name)+" TEMPLATE "+quote(template)+" ENCODING 'UTF8' ALLOW_CONNECTIONS false")
	t.Cleanup(func() { d.drop(t) })
	// Closed to the roles of other tests before anybody can connect, as a tenant's database is to other tenants'.
	execAt(t.Context(), t, server, "REVOKE CONNECT ON DATABASE "+quote(name)+" FROM PUBLIC; ALTER DATABASE "+quote(name)+" ALLOW_CONNECTIONS true")
	return d
}

// drop removes the database first, so that its roles own nothing and hold nothing any more.
func (d *Database) drop(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	execAt(ctx, t, d.server, "DROP DATABASE IF EXISTS "+quote(d.Name)+" WITH (FORCE)")
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.roles) > 0 {
		execAt(ctx, t, d.server, "DROP ROLE IF EXISTS "+strings.Join(d.roles, ", "))
	}
}

// Role creates a login role and returns the URL of this database as that role, which authenticates by SCRAM. Roles belong
// to the whole server, so the role's name is the given one with a random suffix: see RoleName. Attributes are those of
// CREATE ROLE (`NOINHERIT`, `CREATEROLE`, `IN ROLE …`). It is dropped with the database.
func (d *Database) Role(t testing.TB, name string, attrs ...string) string {
	t.Helper()
	role, password := name+"_"+suffix(), rand.Text()
	execAt(t.Context(), t, d.URL, "CREATE ROLE "+quote(role)+" LOGIN PASSWORD '"+password+"' "+strings.Join(attrs, " ")+
		"; GRANT CONNECT ON DATABASE "+quote(d.Name)+" TO "+quote(role))
	d.DropAfter(role)
	u := parse(t, d.URL)
	u.User = url.UserPassword(role, password)
	return u.String()
}

// Group creates a role that can't log in and returns its name, the given one with a random suffix. It is dropped with the
// database.
func (d *Database) Group(t testing.TB, name string, attrs ...string) string {
	t.Helper()
	role := name + "_" + suffix()
	execAt(t.Context(), t, d.URL, "CREATE ROLE "+quote(role)+" NOLOGIN "+strings.Join(attrs, " "))
	d.DropAfter(role)
	return role
}

// RoleName is the name of the role that a URL logs in as.
func (d *Database) RoleName(roleURL string) string {
	u, err := url.Parse(roleURL)
	if err != nil {
		return ""
	}
	return u.User.Username()
}

// DropAfter names roles that the test itself creates, by their whole names, so that they are dropped with the database.
func (d *Database) DropAfter(roles ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, role := range roles {
		d.roles = append(d.roles, quote(role))
	}
}

// Exec runs SQL as the superuser. Several statements in one string are fine where there are no arguments.
func (d *Database) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	execAt(t.Context(), t, d.URL, sql, args...)
}

// Pool is a pool of the superuser's connections, closed when the test ends.
func (d *Database) Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return d.PoolAs(t, d.URL)
}

// PoolAs is a pool of the connections of a URL that Role returned, closed when the test ends.
func (d *Database) PoolAs(t testing.TB, roleURL string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), roleURL)
	if err != nil {
		t.Fatalf("open a pool: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func execAt(ctx context.Context, t testing.TB, at, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		t.Fatalf("connect to the test's PostgreSQL: %v", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if len(args) == 0 { // the simple protocol takes several statements
		_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	} else {
		_, err = conn.Exec(ctx, sql, args...)
	}
	if err != nil {
		t.Fatalf("%v\nin: %s", err, sql)
	}
}

func withDatabase(t testing.TB, serverURL, database string) string {
	t.Helper()
	u := parse(t, serverURL)
	u.Path = "/" + database
	return u.String()
}

func parse(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatalf("read the URL of the test's PostgreSQL: %v", err)
	}
	return u
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }

// suffix is 13 characters of base 32: enough that names never meet on one server.
func suffix() string { return strings.ToLower(rand.Text()[:13]) }
