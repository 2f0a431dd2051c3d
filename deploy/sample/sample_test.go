package sample_test

import (
	"context"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/sample"
	"a3os.app/libs/pgserver"
	"a3os.app/libs/pgtest"
)

// onEachVersion runs a test on a private server of each version, for the sample's roles belong to the whole server.
func onEachVersion(t *testing.T, test func(t *testing.T, server *pgserver.Server)) {
	for name, major := range map[string]int{"PostgreSQL 15": 15, "PostgreSQL 17": 17} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, pgtest.Server(t, major))
		})
	}
}

func TestSampleAnswersItsQuestions(t *testing.T) {
	t.Parallel()
	onEachVersion(t, func(t *testing.T, server *pgserver.Server) {
		apply(t, server)
		for _, q := range sample.Questions() {
			conn := connect(t, serverURL(t, server, q.Database))
			var reaches bool
			row := conn.QueryRow(t.Context(), `SELECT has_table_privilege($1, $2, $3) AND has_schema_privilege($1, split_part($2, '.', 1), 'USAGE')
				AND has_database_privilege($1, current_database(), 'CONNECT') AND rolcanlogin FROM pg_roles WHERE rolname = $1`, q.Principal, q.Object, q.Privilege)
			if err := row.Scan(&reaches); err != nil || !reaches {
				t.Errorf("%s: PostgreSQL says %t (%v)", q.Text, reaches, err)
			}
			checkPath(t, conn, q.Path)
		}
		for _, path := range takeovers() {
			checkPath(t, connect(t, serverURL(t, server, "northwind")), path)
		}
		checkTakeover(t, server)
	})
}

// takeovers are the ways from a role to superuser, each a chain of memberships: one ends in a superuser's role that its members
// may SET ROLE to, one in pg_execute_server_program, which runs any program as the server's own user. On PostgreSQL 15 helpdesk
// has a shorter one besides: CREATEROLE lets it grant itself dba.
func takeovers() [][]string {
	return [][]string{
		{"viktor_hale", "dba", "cluster_owner"},
		{"karl_jensen", "helpdesk", "eng_oncall", "job_hosts", "pg_execute_server_program"},
	}
}

// checkTakeover does what a member of helpdesk could do, up to the file that only the server's own user can read.
func checkTakeover(t *testing.T, server *pgserver.Server) {
	t.Helper()
	conn := connect(t, serverURL(t, server, "northwind"))
	_, err := conn.PgConn().Exec(t.Context(), `SET SESSION AUTHORIZATION karl_jensen; CREATE TEMPORARY TABLE told (line text);
		COPY told FROM PROGRAM 'cat PG_VERSION'; RESET SESSION AUTHORIZATION;
		SET SESSION AUTHORIZATION viktor_hale; SET ROLE dba; SET ROLE cluster_owner; ALTER ROLE viktor_hale CONNECTION LIMIT 3`).ReadAll()
	if err != nil {
		t.Errorf("a way to superuser does not work: %v", err)
	}
}

func checkPath(t *testing.T, conn *pgx.Conn, path []string) {
	t.Helper()
	for i := range len(path) - 1 {
		var member bool
		row := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_auth_members WHERE member = to_regrole($1) AND roleid = to_regrole($2))", path[i], path[i+1])
		if err := row.Scan(&member); err != nil || !member {
			t.Errorf("%s is not a member of %s (%v)", path[i], path[i+1], err)
		}
	}
}

func TestApplyingAgainChangesNothing(t *testing.T) {
	t.Parallel()
	onEachVersion(t, func(t *testing.T, server *pgserver.Server) {
		begun := time.Now()
		apply(t, server)
		t.Logf("applied in %v", time.Since(begun))
		before := fingerprint(t, server)
		apply(t, server)
		if after := fingerprint(t, server); after != before {
			t.Errorf("the second Apply changed the catalogues from %s to %s", before, after)
		}
	})
}

// fingerprint changes with any transaction that wrote to the shared catalogues or those of northwind.
func fingerprint(t *testing.T, server *pgserver.Server) string {
	t.Helper()
	var print string
	row := connect(t, serverURL(t, server, "northwind")).QueryRow(t.Context(), `SELECT concat_ws(' ', (SELECT max(xmin::text::bigint) FROM pg_authid),
		(SELECT max(xmin::text::bigint) FROM pg_auth_members), (SELECT max(xmin::text::bigint) FROM pg_class), (SELECT max(xmin::text::bigint) FROM pg_database),
		(SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_database))`)
	if err := row.Scan(&print); err != nil {
		t.Fatal(err)
	}
	return print
}

func TestInterruptedApplyIsTakenUp(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, 15)
	roles, err := sample.SQL("roles")
	if err != nil {
		t.Fatal(err)
	}
	// As an Apply leaves it that was killed after CREATE DATABASE.
	super := connect(t, serverURL(t, server, "postgres"))
	for _, sql := range []string{roles + "; COMMENT ON ROLE everyone IS 'part of the sample company Northwind Robotics'", "CREATE DATABASE northwind OWNER cluster_owner"} {
		if _, err := super.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, server)
}

func TestServerWithThingsOfTheSameNamesIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	for _, theirs := range []string{"CREATE ROLE hr_staff", "CREATE DATABASE analytics"} {
		t.Run(theirs, func(t *testing.T) {
			t.Parallel()
			server := pgtest.Server(t, 15)
			if _, err := connect(t, serverURL(t, server, "postgres")).Exec(t.Context(), theirs); err != nil {
				t.Fatal(err)
			}
			if err := sample.Apply(t.Context(), serverURL(t, server, "postgres")); err == nil || !strings.Contains(err.Error(), "to a") {
				t.Errorf("got %v, want a refusal that names another server as the next step", err)
			}
			var schemas int
			row := connect(t, serverURL(t, server, "postgres")).QueryRow(t.Context(), "SELECT count(*) FROM pg_roles WHERE rolname = 'marek_dvorak'")
			if err := row.Scan(&schemas); err != nil || theirs == "CREATE ROLE hr_staff" && schemas != 0 {
				t.Errorf("a refused script left %d roles (%v)", schemas, err)
			}
		})
	}
}

func TestReaderMayConnectEverywhereAndReadNoRow(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, 15)
	apply(t, server)
	url, err := sample.Reader(t.Context(), serverURL(t, server, "postgres"), "it's % a secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, database := range []string{"northwind", "analytics", "telemetry"} {
		conn := connect(t, strings.Replace(url, "/northwind", "/"+database, 1))
		var tables, readable int
		row := conn.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE has_schema_privilege(relnamespace, 'USAGE') AND has_any_column_privilege(oid, 'SELECT')
			AND NOT EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0)) FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace > 16383`)
		if err := row.Scan(&tables, &readable); err != nil {
			t.Fatal(err)
		}
		if tables < 7 || readable != 0 {
			t.Errorf("in %s the reader sees %d tables and reads %d, want at least 7 and none but those of PUBLIC", database, tables, readable)
		}
	}
}

func TestCSVIsWholeAndHasItsHeader(t *testing.T) {
	t.Parallel()
	rows, err := csv.NewReader(strings.NewReader(string(sample.CSV()))).ReadAll() // checks that each row has as many fields as the first
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rows[0], ","); got != "login,name,email,app,role,team,status,remarks" || len(rows) != 41 {
		t.Errorf("%d lines with header %s, want the header and 40 grants", len(rows), got)
	}
	seen := map[string]bool{}
	for i, row := range rows[1:] {
		key := row[0] + "|" + row[3] + "|" + row[4]
		if seen[key] || row[0] == "" || row[3] == "" || row[4] == "" || row[6] != "active" && row[6] != "disabled" {
			t.Errorf("line %d is doubled or lacks something: %v", i+2, row)
		}
		seen[key] = true
	}
}

func apply(t *testing.T, server *pgserver.Server) {
	t.Helper()
	if err := sample.Apply(t.Context(), serverURL(t, server, "postgres")); err != nil {
		t.Fatal(err)
	}
}

func serverURL(t *testing.T, server *pgserver.Server, database string) string {
	t.Helper()
	url, err := server.URL(database)
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}
