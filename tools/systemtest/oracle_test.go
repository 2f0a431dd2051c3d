package systemtest

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/sample"
	"a3os.app/libs/pgserver"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// superuser connects to one of the plane's own servers, `postgres` or `sample-postgres`, as nobody but the machine's owner can.
func (p *plane) superuser(t testing.TB, server, database string) *pgx.Conn {
	t.Helper()
	return dial(t, p.superuserURL(t, server, database))
}

func (p *plane) superuserURL(t testing.TB, server, database string) string {
	t.Helper()
	at := "127.0.0.1"
	if onDocker() {
		// The registry's database is in a server that no tenant's is in.
		member := [2]string{"plane", "postgres"}
		switch {
		case server == "sample-postgres":
			member = [2]string{"sample", "sample"}
		case server == "postgres" && database != "registry":
			server, member = "databases", [2]string{"databases", "databases"}
		}
		at = p.host(t, member[0], member[1])
	}
	dir, err := pgserver.DirFor(filepath.Join(p.home, server), "")
	if err != nil {
		t.Fatal(err)
	}
	password, err := os.ReadFile(filepath.Join(dir, "superuser.password"))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	// Line 4 is the port (storage/pidfile.h).
	const portLine = 3
	port := strings.TrimSpace(strings.Split(string(lock), "\n")[portLine])
	u := url.URL{Scheme: "postgres", User: url.UserPassword(pgserver.Superuser, string(password)), Host: net.JoinHostPort(at, port), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// sampleAddress is where the sample company's server listens.
func (p *plane) sampleAddress(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(p.superuserURL(t, "sample-postgres", "postgres"))
	if err != nil {
		t.Fatal("a connection string is not one")
	}
	return u.Host
}

func portOf(t testing.TB, addr string) uint32 {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// background goes on when the test has ended, for what is cleared away then.
func background(t testing.TB) context.Context { return context.WithoutCancel(t.Context()) }

func dial(t testing.TB, at string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(background(t)) })
	return conn
}

// column reads one column of text.
func column(t testing.TB, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// operations is the workspace that `plane up` discovered systems in.
func (x *tenant) operations(t testing.TB) string {
	t.Helper()
	for _, w := range ask(t, client(x.admin(t), "", iamv1connect.NewWorkspaceServiceClient).ListWorkspaces, &iamv1.ListWorkspacesRequest{}).GetWorkspaces() {
		if w.GetName() == "operations" {
			return w.GetId()
		}
	}
	t.Fatalf("%s has no workspace operations", x.slug)
	return ""
}

// The whole way: connector, queue, staging, publication, graph, API. For every table of the sample company, and every privilege, those
// who are said to have it at once are exactly those of whom PostgreSQL says so.
func TestAnswersAgreeWithPostgreSQL(t *testing.T) {
	full(t)
	t.Parallel()
	logins.Lock()
	defer logins.Unlock()
	access := client(acme().admin(t), acme().operations(t), discoveryv1connect.NewAccessServiceClient)
	compared := 0
	for _, database := range []string{"northwind", "analytics", "telemetry"} {
		conn := shared.superuser(t, "sample-postgres", database)
		for _, table := range column(t, conn, `SELECT schemaname || '.' || tablename FROM pg_tables
			WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`) {
			for _, privilege := range []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"} {
				compared++
				want := column(t, conn, `SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND has_table_privilege(oid, $1::regclass, $2) ORDER BY 1`, table, privilege)
				got := holders(t, access, database+"."+table, privilege)
				if !slices.Equal(got, want) {
					t.Errorf("%s on %s.%s: PostgreSQL says %q, the answer is %q", privilege, database, table, want, got)
				}
			}
		}
	}
	const atLeast = 50
	if compared < atLeast {
		t.Errorf("only %d answers were compared", compared)
	}
}

// holders are the accounts that have a privilege without acting as somebody else first, sorted. Superusers have all of them.
func holders(t testing.TB, access discoveryv1connect.AccessServiceClient, resource, privilege string) []string {
	t.Helper()
	var out []string
	for token := ""; ; {
		page := ask(t, access.ListHolders, &discoveryv1.ListHoldersRequest{Resource: resource, Entitlement: privilege, PageToken: token})
		for _, h := range page.GetHolders() {
			for _, e := range h.GetEntitlements() {
				if e.GetEntitlement() == privilege && !e.GetAssumption() {
					out = append(out, h.GetAccount().GetExternalId())
				}
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			slices.Sort(out)
			return out
		}
	}
}

func TestPathsAreMembershipsThatPostgreSQLHas(t *testing.T) {
	full(t)
	t.Parallel()
	access := client(acme().admin(t), acme().operations(t), discoveryv1connect.NewAccessServiceClient)
	conn := shared.superuser(t, "sample-postgres", "northwind")
	for _, q := range sample.Questions() {
		answer := ask(t, access.ExplainAccess, &discoveryv1.ExplainAccessRequest{Principal: q.Principal, Resource: q.Database + "." + q.Object, Entitlement: q.Privilege})
		if len(answer.GetPaths()) == 0 {
			t.Errorf("%s: there is no path", q.Text)
			continue
		}
		if got := names(answer.GetPaths()[0]); !slices.Equal(got, q.Path) {
			t.Errorf("%s: the shortest path is %q, and should be %q", q.Text, got, q.Path)
		}
		length := 0
		for _, path := range answer.GetPaths() {
			if len(path.GetSteps()) < length {
				t.Errorf("%s: the paths are not shortest first", q.Text)
			}
			length = len(path.GetSteps())
			roles := names(path)
			for i := range len(roles) - 1 {
				var member bool
				err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_auth_members WHERE member = $1::regrole AND roleid = $2::regrole)`, roles[i], roles[i+1]).Scan(&member)
				if err != nil || !member {
					t.Errorf("%s: PostgreSQL knows of no membership of %s in %s, %v", q.Text, roles[i], roles[i+1], err)
				}
			}
		}
		// This machine may be read in part only, by an ordinary user; the server is read whole.
		known := false
		for _, source := range answer.GetCompleteness().GetSources() {
			known = known || source.GetIntegrationName() == "northwind-postgres" && source.GetState() == integrationsv1.RunState_RUN_STATE_COMPLETE && source.GetPublishedAt() != nil
		}
		if !known || answer.GetCompleteness().GetOldestPublishedAt() == nil {
			t.Errorf("%s: the answer doesn't say how complete and how old it is: %v", q.Text, answer.GetCompleteness())
		}
	}
}

// names are the roles on a path, one after another.
func names(p *discoveryv1.Path) []string {
	var out []string
	for _, s := range p.GetSteps() {
		if who := s.GetPrincipal(); who.GetType() == "role" && !slices.Contains(out, who.GetExternalId()) {
			out = append(out, who.GetExternalId())
		}
	}
	return out
}
