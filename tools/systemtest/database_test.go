package systemtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.jetify.com/typeid"

	"a3os.app/libs/fault"
)

// at is a connection string with another database.
func at(t testing.TB, role, database string) string {
	t.Helper()
	u, err := url.Parse(role)
	if err != nil {
		t.Fatal("a connection string is not one") // it would repeat the password
	}
	u.Path = "/" + database
	return u.String()
}

// Row O40, of the database and of the queue in it. The third wall: with every password that globex has.
func TestRolesOfOneTenantGetIntoNoOtherDatabase(t *testing.T) {
	t.Parallel()
	cases := 0
	for role, own := range globex().databases(t) {
		for _, database := range []string{acme().id, "registry", "postgres", "template1"} {
			cases++
			conn, err := pgx.Connect(t.Context(), at(t, own, database))
			if err == nil {
				_ = conn.Close(t.Context())
				t.Errorf("globex's %s got into database %s", role, database)
			} else if e := denied(err); e != nil {
				t.Errorf("globex's %s at database %s: %v", role, database, e)
			}
		}
		conn := dial(t, own)
		if seen := column(t, conn, `SELECT query FROM pg_stat_activity WHERE datname = $1 AND query NOT IN ('', '<insufficient privilege>')`, acme().id); len(seen) > 0 {
			t.Errorf("globex's %s sees what acme's services ask: %q", role, seen)
		}
		for _, forbid := range []string{"SET ROLE " + quoted(acme().id+"_owner"), "SET SESSION AUTHORIZATION " + quoted(acme().id+"_iam"),
			"GRANT " + quoted(acme().id+"_iam") + " TO " + quoted(globex().id+"_iam"), "ALTER ROLE " + quoted(acme().id+"_iam") + " PASSWORD 'x'",
			"DROP DATABASE " + quoted(acme().id)} {
			cases++
			if _, err := conn.Exec(t.Context(), forbid); err == nil || denied(err) != nil {
				t.Errorf("globex's %s: %s: %v", role, forbid, err)
			}
		}
	}
}

// The server believes nobody without their password, whichever role it is and whichever way they come.
func TestServerAsksEveryRoleForItsPassword(t *testing.T) {
	t.Parallel()
	for _, x := range []*tenant{acme(), globex()} {
		for role, own := range x.databases(t) {
			u, err := url.Parse(own)
			if err != nil {
				t.Fatal("a connection string is not one")
			}
			for how, user := range map[string]*url.Userinfo{"no password": url.User(u.User.Username()), "a wrong password": url.UserPassword(u.User.Username(), "guessed"),
				"an empty one": url.UserPassword(u.User.Username(), ""), "its own name": url.UserPassword(u.User.Username(), u.User.Username())} {
				tried := *u
				tried.User = user
				conn, err := pgx.Connect(t.Context(), tried.String())
				if err == nil {
					_ = conn.Close(t.Context())
					t.Errorf("%s of %s got in with %s", role, x.slug, how)
				} else if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Code != "28P01" && pe.Code != "28000" {
					t.Errorf("%s of %s with %s: %v, want a refusal of the password", role, x.slug, how, err)
				}
			}
		}
	}
	for _, server := range []string{"postgres", "sample-postgres"} {
		admin := shared.superuser(t, server, "postgres")
		// Passwords rest as SCRAM verifiers, and no line of pg_hba.conf lets anybody in by less.
		for _, rule := range column(t, admin, "SELECT concat_ws(' ', type, database::text, user_name::text, auth_method) FROM pg_hba_file_rules WHERE auth_method IS DISTINCT FROM 'scram-sha-256' OR error IS NOT NULL") {
			t.Errorf("%s: pg_hba.conf says %s", server, rule)
		}
		if n := column(t, admin, "SELECT count(*)::text FROM pg_hba_file_rules"); n[0] == "0" {
			t.Errorf("%s: pg_hba.conf isn't read any more", server)
		}
		for _, role := range column(t, admin, "SELECT rolname::text FROM pg_authid WHERE rolcanlogin AND (rolpassword NOT LIKE 'SCRAM-SHA-256$%')") {
			t.Errorf("%s: the password of %s is no SCRAM verifier", server, role)
		}
		for _, name := range column(t, admin, "SELECT name || '=' || setting FROM pg_settings WHERE name = 'password_encryption' AND setting <> 'scram-sha-256' OR name = 'listen_addresses' AND setting <> '127.0.0.1'") {
			t.Errorf("%s: %s", server, name)
		}
	}
}

// Every role has its bounds, and those that only a superuser may lift it can't.
func TestEveryRoleIsBounded(t *testing.T) {
	t.Parallel()
	for _, x := range []*tenant{acme(), globex()} {
		for role, own := range x.databases(t) {
			conn := dial(t, own)
			if limit := column(t, conn, "SELECT rolconnlimit::text FROM pg_roles WHERE rolname = current_user")[0]; limit == "-1" || len(limit) > 2 {
				t.Errorf("%s of %s: %s connections", role, x.slug, limit)
			}
			for _, setting := range []string{"lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "temp_file_limit", "statement_timeout"} {
				if got := column(t, conn, "SELECT current_setting('"+setting+"')")[0]; (got == "0" || got == "-1") && (role != "owner" || setting != "statement_timeout") {
					t.Errorf("%s of %s has no bound on %s", role, x.slug, setting)
				}
			}
			for setting, want := range map[string]string{"search_path": "pg_catalog", "log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0", "log_lock_waits": "on"} {
				if got := column(t, conn, "SELECT current_setting('"+setting+"')")[0]; got != want {
					t.Errorf("%s of %s: %s is %q, want %q", role, x.slug, setting, got, want)
				}
			}
			forbidden(t, role, conn, "SET temp_file_limit = -1", "SET log_lock_waits = off", "SET log_parameter_max_length = -1", "SET session_replication_role = replica",
				"ALTER ROLE CURRENT_USER CONNECTION LIMIT -1")
		}
	}
}

// The bound on connections holds, and is the role's own: a sibling's still get in. The tenant is the spare one, whose role nobody else needs
// meanwhile: while all of its connections are taken a service that has to make one is refused, and so is whoever tries the role's password.
func TestBoundOnARolesConnectionsHolds(t *testing.T) {
	t.Parallel()
	own := borrow(t).roles(t)
	var held []*pgx.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close(context.WithoutCancel(t.Context()))
		}
	}()
	const more = 12
	var refusal error
	for range more {
		conn, err := pgx.Connect(t.Context(), own["integrations_tenant"])
		if err != nil {
			refusal = err
			break
		}
		held = append(held, conn)
	}
	if pe, ok := errors.AsType[*pgconn.PgError](refusal); !ok || pe.Code != "53300" {
		t.Errorf("%d sessions of one role: %v, want too many connections", len(held), refusal)
	}
	_ = dial(t, own["integrations"])
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// Row D34.
func TestRoleOfAServiceCanDoItsWorkAndNothingElse(t *testing.T) {
	t.Parallel()
	tried := 0
	for role, own := range acme().roles(t) {
		conn := dial(t, own)
		schema := strings.TrimSuffix(role, "_tenant")
		if role == "worker" {
			schema = "queue"
		}
		tried += forbidden(t, role, conn,
			"CREATE TABLE public.mine (a int)", "CREATE TABLE "+schema+".mine (a int)", "CREATE TEMP TABLE mine (a int)", "CREATE SCHEMA mine",
			"CREATE FUNCTION "+schema+".f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE EXTENSION dblink", "CREATE ROLE mine",
			"ALTER ROLE CURRENT_USER BYPASSRLS", "ALTER ROLE CURRENT_USER SUPERUSER", "ALTER DATABASE "+quoted(acme().id)+" SET row_security = off",
			"SET ROLE "+quoted(acme().id+"_owner"), "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SET ROLE pg_read_all_data",
			"COPY (SELECT 1) TO PROGRAM 'cat'", "COPY (SELECT 1) TO '/tmp/a3-out'", "SELECT pg_read_file('/etc/passwd')", "SELECT pg_ls_dir('/')",
			"SELECT lo_import('/etc/passwd')", "SELECT pg_reload_conf()", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
			"SELECT rolpassword FROM pg_authid", "LOAD 'plpgsql'",
		)
		// These don't run in a transaction.
		for _, sql := range []string{"CREATE DATABASE mine", "ALTER SYSTEM SET log_statement = 'all'"} {
			tried++
			if _, err := conn.Exec(t.Context(), sql); denied(err) != nil {
				t.Errorf("%s: %s: %v", role, sql, err)
			}
		}
		for _, table := range column(t, conn, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
			WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`) {
			tried += forbidden(t, role, conn, "ALTER TABLE "+table+" DISABLE ROW LEVEL SECURITY", "DROP TABLE "+table)
			if owner, _, _ := strings.Cut(table, "."); slices.Contains([]string{"iam", "integrations", "discovery"}, owner) && owner != schema {
				tried += forbidden(t, role, conn, "SELECT FROM "+table, "INSERT INTO "+table+" SELECT", "DELETE FROM "+table)
			}
		}
	}
	t.Attr("row", fmt.Sprint("D34 ", tried))
}

// Row D38. A lock in the way is a query that would run for minutes, to whoever asks: calls end when their callers' time is up, more of
// them than the pool has connections, nothing of them is left running, the rest of the set doesn't notice, and afterwards it is as before.
func TestQueryThatWouldRunForMinutesEndsWithItsCall(t *testing.T) {
	full(t)
	owner := globex().invite(t)
	list := methodNamed(t, "/a3os.integrations.v1.IntegrationService/ListIntegrations")
	token := owner.token(t, globex().workspace(t, owner).GetId())
	lock, watch := shared.superuser(t, "postgres", globex().id), shared.superuser(t, "postgres", globex().id)
	tx, err := lock.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE integrations.integrations IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	const patience, calls = 500 * time.Millisecond, 24
	// Far below the ten seconds that the role itself waits for a lock.
	const bound = 8 * time.Second
	var all []*visitor
	for len(all) < calls {
		for _, d := range doors() {
			if !strings.HasPrefix(d.name, "GET") {
				v := d.visit(t, globex())
				v.patience = patience
				all = append(all, v)
			}
		}
	}
	n := crowd(all, func(v *visitor) {
		if a := v.send(t, list, nil, "Authorization", "Bearer "+token); refusal(a, fault.DeadlineExceeded, fault.ResourceExhausted, fault.Unavailable) != nil {
			t.Errorf("%s: it is answered %s", v.name, a)
		}
	})
	// Other tables answer meanwhile.
	if a := through(t, globex()).bearer(token).call(t, methodNamed(t, "/a3os.discovery.v1.RunService/ListRuns"), nil); a.code != "" {
		t.Errorf("discovery, whose tables nobody locked, answers %s", a)
	}
	within(t, bound, func() error {
		left := column(t, watch, "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%ListIntegrations%'")
		if len(left) > 0 {
			return fmt.Errorf("still running: %q", left)
		}
		return nil
	})
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		v.patience = mostPerCall
		if a := v.send(t, list, nil, "Authorization", "Bearer "+token); a.code != "" {
			t.Errorf("%s: afterwards it is answered %s", v.name, a)
		}
	}
	held(t, n, "D38")
}

// Row-level security: no workspace is an error and not an empty answer, and another workspace's rows aren't there.
func TestRoleSeesOneWorkspaceOrNone(t *testing.T) {
	t.Parallel()
	a, b := newOffice(t, acme()), newOffice(t, acme())
	for role, table := range map[string]string{"integrations": "integrations.integrations", "discovery": "discovery.runs", "iam": "iam.members"} {
		conn := dial(t, acme().databases(t)[role])
		if rows, err := conn.Query(t.Context(), "SELECT FROM "+table); err == nil {
			rows.Close()
			if rows.Err() == nil {
				t.Errorf("%s reads %s without a workspace", role, table)
			}
		}
		seen := map[string][]string{}
		for _, o := range []*office{a, b} {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "SELECT set_config('a3.workspace_id', $1, true)", uuidOf(t, o.workspace.GetId())); err != nil {
				t.Fatal(err)
			}
			rows, err := tx.Query(t.Context(), "SELECT DISTINCT workspace_id::text FROM "+table)
			if err != nil {
				t.Fatal(err)
			}
			if seen[o.workspace.GetId()], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				t.Fatal(err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for workspace, rows := range seen {
			if len(rows) != 1 || rows[0] != uuidOf(t, workspace) {
				t.Errorf("%s in workspace %s sees rows of %q in %s", role, workspace, rows, table)
			}
		}
	}
}

// uuidOf is how PostgreSQL writes an id.
func uuidOf(t testing.TB, text string) string {
	t.Helper()
	parsed, err := typeid.FromString(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.UUID()
}
