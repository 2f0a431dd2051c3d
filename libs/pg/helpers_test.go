package pg_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
)

// base is a database of a tenant: the schema a3, one workspace table of ours, and the roles that they name.
type base struct {
	*pgtest.Database
	roles pg.Roles
	// iam and integrations are the login roles of two services.
	iam, integrations string
}

func newBase(t *testing.T) base {
	t.Helper()
	b := base{Database: pgtest.New(t), roles: pg.Roles{}}
	bindingtest.Database(t, b.URL)
	b.iam, b.integrations = b.Role(t, "iam"), b.Role(t, "integrations")
	for _, word := range []string{"role_iam_tenant", "role_integrations_tenant", "role_discovery", "role_discovery_tenant", "role_audit"} {
		b.roles[word] = b.Group(t, word)
	}
	b.roles["role_iam"], b.roles["role_integrations"] = b.RoleName(b.iam), b.RoleName(b.integrations)
	return b
}

// things is a schema with a workspace table, made as the services make theirs.
var things = pg.Migration{Schema: "app", Files: fstest.MapFS{"00001_things.sql": {Data: []byte(`-- +goose Up
CREATE TABLE app.things (
    workspace_id uuid   NOT NULL,
    id           bigint NOT NULL,
    count        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (workspace_id, id)
);
ALTER TABLE app.things ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.things FORCE ROW LEVEL SECURITY;
CREATE POLICY workspace ON app.things TO role_iam USING (workspace_id = (SELECT a3.current_workspace()))
    WITH CHECK (workspace_id = (SELECT a3.current_workspace()));
CREATE TABLE app.counters (id bigint PRIMARY KEY, count bigint NOT NULL DEFAULT 0);
INSERT INTO app.counters (id) VALUES (1), (2);
GRANT USAGE ON SCHEMA app TO role_iam;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.things, app.counters TO role_iam;
`)}}}

func newThings(t *testing.T) base {
	t.Helper()
	b := newBase(t)
	if err := pg.Migrate(t.Context(), b.URL, b.roles, pg.Base(), things); err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, url string, most int32) *pg.DB {
	t.Helper()
	db, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: most, Service: "pgtest", Owner: bindingtest.Somebody(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func in(ctx context.Context, w id.Workspace) context.Context {
	return as(ctx, scope.Principal(id.NewUser().String()), w)
}

func as(ctx context.Context, p scope.Principal, w id.Workspace) context.Context {
	return scopetest.With(ctx, scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: w, Principal: p})
}

func inTx(sql string, args ...any) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}
}

// count runs a query that answers one number.
func count(into *int64, sql string, args ...any) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error { return tx.QueryRow(ctx, sql, args...).Scan(into) }
}

// eventually waits until a condition holds, and fails the test where it doesn't within a bound.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// safe says that an error repeats no canary.
func safe(err error) bool { return !strings.Contains(err.Error(), "c4nary") }
