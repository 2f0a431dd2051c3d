package iam_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
)

const notAllowed = "42501"

func code(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// inWorkspace runs SQL as role_iam in a workspace, rolls back, and answers the rows touched or the SQLSTATE.
func inWorkspace(t *testing.T, e *iamtest.Env, w string, sql string, args ...any) (int64, string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), e.URLs["role_iam"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w != "" {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('a3.workspace_id', $1, true)", w); err != nil {
			t.Fatal(err)
		}
	}
	tag, err := tx.Exec(t.Context(), sql, args...)
	if err != nil {
		return 0, code(err)
	}
	return tag.RowsAffected(), ""
}

func uuid[K id.Kind](i id.ID[K]) string {
	b := i.Bytes()
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func TestWorkspaceRoleSeesItsWorkspaceAlone(t *testing.T) {
	e := iamtest.New(t)
	mine, theirs := e.Workspace(t, "Research", e.Admin), e.Workspace(t, "Sales", e.User(t, "ada@example.com", ""))
	for _, sql := range []string{"SELECT * FROM iam.workspaces", "SELECT * FROM iam.members"} {
		if n, state := inWorkspace(t, e, uuid(mine), sql); n != 1 || state != "" {
			t.Errorf("%s: %d rows, %s", sql, n, state)
		}
		if _, state := inWorkspace(t, e, "", sql); state != notAllowed {
			t.Errorf("%s without a workspace: %q", sql, state)
		}
	}
	for _, sql := range []string{
		"UPDATE iam.members SET role = 'viewer' WHERE workspace_id = $1", "DELETE FROM iam.members WHERE workspace_id = $1",
	} {
		if n, state := inWorkspace(t, e, uuid(mine), sql, theirs); n != 0 || state != "" {
			t.Errorf("%s: %d rows, %s", sql, n, state)
		}
	}
	insert := "INSERT INTO iam.members (workspace_id, user_id, role) VALUES ($1, $2, 'admin')"
	if _, state := inWorkspace(t, e, uuid(mine), insert, theirs, e.Admin); state != notAllowed {
		t.Errorf("insert into another workspace: %q", state)
	}
	revoke := "INSERT INTO iam.revocations (sequence, principal, workspace_id) VALUES (99, 'usr_x', $1)"
	if _, state := inWorkspace(t, e, uuid(mine), revoke, theirs); state != notAllowed {
		t.Errorf("revoke in another workspace: %q", state)
	}
	if _, state := inWorkspace(t, e, uuid(mine), "INSERT INTO iam.revocations (sequence, principal) VALUES (99, 'usr_x')"); state != notAllowed {
		t.Errorf("revoke everywhere: %q", state)
	}
}

func TestWorkspaceRoleHasNoRightToWhatIsTheIssuers(t *testing.T) {
	e := iamtest.New(t)
	w := e.Workspace(t, "Research", e.Admin)
	for _, sql := range []string{
		"SELECT * FROM iam.sessions", "SELECT * FROM iam.refresh_tokens", "SELECT * FROM iam.setup_codes", "SELECT * FROM iam.bootstrap_codes",
		"SELECT * FROM iam.signing_keys", "SELECT * FROM iam.assertions", "SELECT * FROM iam.transfers", "SELECT * FROM iam.revocations",
		"SELECT tenant_role FROM iam.users", "SELECT public_key FROM iam.service_accounts",
		"UPDATE iam.users SET tenant_role = 'admin'", "UPDATE iam.workspaces SET owner_user_id = owner_user_id",
		"INSERT INTO iam.members (workspace_id, user_id, role, transfer_id) VALUES (gen_random_uuid(), gen_random_uuid(), 'viewer', NULL)",
		"CREATE TABLE iam.x ()", "ALTER TABLE iam.members DISABLE ROW LEVEL SECURITY", "SET ROLE " + pgx.Identifier{e.DB.RoleName(e.URLs["role_iam_tenant"])}.Sanitize(),
	} {
		if _, state := inWorkspace(t, e, uuid(w), sql); state != notAllowed {
			t.Errorf("%s: %q, want %s", sql, state, notAllowed)
		}
	}
	for _, role := range []string{"role_integrations", "role_discovery_tenant", "role_audit", "role_worker"} {
		conn, err := pgx.Connect(t.Context(), e.URLs[role])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT FROM iam.users"); code(err) != notAllowed {
			t.Errorf("%s reads iam: %v", role, err)
		}
		_ = conn.Close(t.Context())
	}
}

func TestEveryTableWithAWorkspaceIsBehindForcedRowLevelSecurity(t *testing.T) {
	e := iamtest.New(t)
	rows, err := e.Super.Query(t.Context(), `
		SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'iam' AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
		  AND (c.relname = 'workspaces' OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id'))`)
	if err != nil {
		t.Fatal(err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(open) > 0 {
		t.Errorf("open: %v, %v", open, err)
	}
	// The policies that let role_iam_tenant span workspaces are these and no others.
	rows, err = e.Super.Query(t.Context(), `
		SELECT tablename || '.' || policyname FROM pg_policies WHERE schemaname = 'iam' AND (qual = 'true' OR with_check = 'true') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	spanning, err := pgx.CollectRows(rows, pgx.RowTo[string])
	want := "[members.whole_tenant revocations.whole_tenant transfers.whole_tenant workspaces.whole_tenant]"
	if err != nil || fmt.Sprint(spanning) != want {
		t.Errorf("policies that span workspaces: %v, want %s", spanning, want)
	}
}

func TestDatabaseItselfKeepsOneOwner(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	w := e.Workspace(t, "Research", e.Admin)
	for name, sql := range map[string]string{
		"no owner":                "UPDATE iam.members SET role = 'admin' WHERE workspace_id = $1 AND $2::uuid IS NOT NULL",
		"the owner's row gone":    "DELETE FROM iam.members WHERE workspace_id = $1 AND $2::uuid IS NOT NULL",
		"two owners":              "INSERT INTO iam.members (workspace_id, user_id, role) VALUES ($1, $2, 'owner')",
		"an owner who is none":    "UPDATE iam.workspaces SET owner_user_id = $2 WHERE id = $1",
		"a workspace of nobody":   "UPDATE iam.workspaces SET owner_user_id = NULL WHERE id = $1 AND $2::uuid IS NOT NULL",
		"the owner's user gone":   "DELETE FROM iam.users WHERE id = (SELECT owner_user_id FROM iam.workspaces WHERE id = $1) AND $2::uuid IS NOT NULL",
		"a workspace with no one": "INSERT INTO iam.workspaces (id, name, owner_user_id) SELECT gen_random_uuid(), 'x' || $1::uuid, $2",
	} {
		if _, err := e.Super.Exec(t.Context(), sql, w, ada); err == nil {
			t.Errorf("%s: the superuser got away with it", name)
		}
	}
}
