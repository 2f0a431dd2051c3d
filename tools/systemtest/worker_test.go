package systemtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// people is a CSV of so many rows: accounts with addresses, each with ten rights on apps.
func people(rows int) string {
	const each = 10
	var b strings.Builder
	b.WriteString("account,email,app,right\n")
	for i := range rows {
		account := i / each
		fmt.Fprintf(&b, "account-%d,account-%d@example.com,app-%d,right-%d\n", account, account, account%97, i%each)
	}
	return b.String()
}

// Row F1, with a real process and a real signal.
func TestWorkerKilledMidRunPublishesTheSame(t *testing.T) {
	full(t)
	owner := globex().invite(t)
	w := globex().workspace(t, owner).GetId()
	const rows = 200_000
	content := people(rows)
	calm, killed := owner.upload(t, w, content), owner.upload(t, w, content)
	began := time.Now()
	undisturbed := owner.discover(t, w, calm.GetId())
	t.Logf("undisturbed, the run took %s", time.Since(began).Round(time.Millisecond))
	if got := undisturbed.GetCounts().GetGrants(); got != rows {
		t.Fatalf("of %d rows, %d grants were published", rows, got)
	}
	run := ask(t, client(owner, w, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: killed.GetId()})
	runs := client(owner, w, discoveryv1connect.NewRunServiceClient)
	worker := globex().id + "/discovery-worker"
	staged, attempt := shared.superuser(t, "postgres", globex().id), 0
	for range 2 {
		within(t, time.Minute, func() error {
			var now int
			err := staged.QueryRow(t.Context(), "SELECT coalesce(max(attempt), 0) FROM discovery.staged_grants WHERE run_id = $1", uuidOf(t, run.GetId())).Scan(&now)
			if err == nil && now <= attempt {
				err = errors.New("nothing is staged yet")
			}
			if err == nil {
				attempt = now
			}
			return err
		})
		before := shared.pids(t)[worker]
		kill(t, before)
		if state := ask(t, runs.GetRun, &discoveryv1.GetRunRequest{RunId: run.GetId()}).GetState(); state != integrationsv1.RunState_RUN_STATE_RUNNING {
			t.Logf("attempt %d was killed when the run was %s already", attempt, state)
		}
		within(t, backWithin, func() error {
			if now := shared.pids(t)[worker]; now == before || now == 0 {
				return fmt.Errorf("the worker is not back")
			}
			return nil
		})
	}
	if done := owner.await(t, w, run.GetId()); done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
		t.Fatalf("the run ended as %s: %s", done.GetState(), done.GetError())
	}
	t.Logf("killed twice, the run took %s", time.Since(run.GetCreatedAt().AsTime()).Round(time.Millisecond))
	samePublished(t, globex(), calm.GetId(), killed.GetId())
	t.Attr("row", "F1 2")
}

// published are the rows that an integration published, told by what they mean and not by ids, which name the integration too.
var published = map[string]string{
	"resources": `SELECT type, external_id, display_name, attributes, account, scope FROM discovery.resources WHERE integration_id = $1 AND until IS NULL`,
	"entitlements": `SELECT r.type, r.external_id, e.name, e.purpose, e.description, e.scope FROM discovery.entitlements e
		JOIN discovery.resources r ON r.workspace_id = e.workspace_id AND r.integration_id = e.integration_id AND r.id = e.resource_id AND r.until IS NULL
		WHERE e.integration_id = $1 AND e.until IS NULL`,
	"grants": `SELECT p.type, p.external_id, r.type AS on_type, r.external_id AS on_id, e.name, g.reason, g.grantable, g.not_inherited, g.scope FROM discovery.grants g
		JOIN discovery.resources p ON p.workspace_id = g.workspace_id AND p.integration_id = g.integration_id AND p.id = g.principal_id AND p.until IS NULL
		JOIN discovery.entitlements e ON e.workspace_id = g.workspace_id AND e.integration_id = g.integration_id AND e.id = g.entitlement_id AND e.until IS NULL
		JOIN discovery.resources r ON r.workspace_id = e.workspace_id AND r.integration_id = e.integration_id AND r.id = e.resource_id AND r.until IS NULL
		WHERE g.integration_id = $1 AND g.until IS NULL`,
}

// samePublished compares what two integrations published, row for row.
func samePublished(t *testing.T, x *tenant, one, other string) {
	t.Helper()
	conn := x.plane.superuser(t, "postgres", x.id)
	if _, err := conn.Exec(t.Context(), "ANALYZE discovery.resources, discovery.entitlements, discovery.grants"); err != nil {
		t.Fatal(err)
	}
	for what, rows := range published {
		in := func(p string) string { return strings.ReplaceAll(rows, "$1", p) }
		var n, differ int64
		err := conn.QueryRow(t.Context(), fmt.Sprintf(`WITH a AS (%s), b AS (%s)
			SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM ((TABLE a EXCEPT ALL TABLE b) UNION ALL (TABLE b EXCEPT ALL TABLE a)) d)`, in("$1"), in("$2")),
			uuidOf(t, one), uuidOf(t, other)).Scan(&n, &differ)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d %s compared", n, what)
		if n == 0 || differ > 0 {
			t.Errorf("of %d %s, %d differ", n, what, differ)
		}
	}
}

// Promise 7 and row F29: what a run could not see it does not take for gone, and a run that sees everything does.
func TestPartialRunMarksNothingAsGone(t *testing.T) {
	full(t)
	t.Parallel()
	const secret = "systemtest-password"
	server := shared.superuser(t, "sample-postgres", "postgres")
	tag := strings.ReplaceAll(name("shop"), "-", "_")
	reader, clerk := tag+"_reader", tag+"_clerk"
	run := func(conn *pgx.Conn, statements ...string) {
		t.Helper()
		for _, sql := range statements {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	logins.RLock()
	t.Cleanup(logins.RUnlock) // after the shop is gone
	hidden.Lock()
	t.Cleanup(hidden.Unlock) // as well
	run(server, "CREATE ROLE "+reader+" LOGIN PASSWORD '"+secret+"'", "CREATE ROLE "+clerk+" LOGIN", "CREATE DATABASE "+tag,
		"REVOKE CONNECT ON DATABASE "+tag+" FROM PUBLIC", "GRANT CONNECT ON DATABASE "+tag+" TO "+reader)
	t.Cleanup(func() { dropShop(t, tag, reader, clerk) })
	shop := shared.superuser(t, "sample-postgres", tag)
	run(shop, "CREATE TABLE public.orders (id int)", "CREATE TABLE public.returns (id int)", "GRANT SELECT ON public.orders, public.returns TO "+clerk)
	if err := shop.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	owner := acme().invite(t)
	w := acme().workspace(t, owner).GetId()
	made := ask(t, client(owner, w, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration, &integrationsv1.CreateIntegrationRequest{
		Name: tag, Secret: secret, Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{Postgres: &integrationsv1.PostgresSettings{
			Host: "127.0.0.1", Port: portOf(t, shared.sampleAddress(t)), User: reader, Database: tag, SslMode: "disable"}}}})
	access := client(owner, w, discoveryv1connect.NewAccessServiceClient)
	holds := func(table string) bool {
		for _, h := range holders(t, access, tag+".public."+table, "SELECT") {
			if h == clerk {
				return true
			}
		}
		return false
	}
	first := owner.discoverAnyhow(t, w, made.GetId())
	if !holds("orders") || !holds("returns") {
		t.Fatalf("the first run, %s, found too little: %v", first.GetState(), first.GetGaps())
	}

	// Now the database can't be read, and something in it changes meanwhile.
	shop = shared.superuser(t, "sample-postgres", tag)
	run(shop, "REVOKE SELECT ON public.returns FROM "+clerk)
	run(server, "REVOKE CONNECT ON DATABASE "+tag+" FROM "+reader, "GRANT CONNECT ON DATABASE northwind TO "+reader)
	update := ask(t, client(owner, w, integrationsv1connect.NewIntegrationWriteServiceClient).UpdateIntegration, &integrationsv1.UpdateIntegrationRequest{
		IntegrationId: made.GetId(), Version: current(t, owner, w, made.GetId()).GetVersion(), Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{
			Postgres: &integrationsv1.PostgresSettings{Host: "127.0.0.1", Port: portOf(t, shared.sampleAddress(t)), User: reader, Database: "northwind", SslMode: "disable"}}}})
	second := owner.discoverAnyhow(t, w, update.GetId())
	if second.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || !strings.Contains(fmt.Sprint(second.GetGaps()), tag) {
		t.Errorf("a database that can't be read makes the run %s, with the gaps %v", second.GetState(), second.GetGaps())
	}
	if !holds("orders") || !holds("returns") {
		t.Error("what the run could not see was marked as gone")
	}
	if c := completeness(t, access, tag+".public.orders"); c.GetComplete() || !strings.Contains(c.String(), tag) {
		t.Errorf("the answer doesn't say that the database was not read: %v", c)
	}

	run(server, "GRANT CONNECT ON DATABASE "+tag+" TO "+reader)
	owner.discoverAnyhow(t, w, update.GetId())
	if !holds("orders") || holds("returns") {
		t.Error("a run that could see everything didn't notice what is gone")
	}
	t.Attr("row", "F29 2")
}

// dropShop removes what the test made on the sample server.
func dropShop(t *testing.T, database string, roles ...string) {
	t.Helper()
	statements := []string{"DROP DATABASE " + database + " WITH (FORCE)"}
	for _, r := range roles {
		statements = append(statements, "REVOKE ALL ON DATABASE northwind FROM "+r, "DROP ROLE "+r)
	}
	clearSample(t, statements...)
}

// clearSample clears away what a test made on the sample server of the shared plane.
func clearSample(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(background(t), shared.superuserURL(t, "sample-postgres", "postgres"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(background(t))
	for _, sql := range statements {
		if _, err := conn.Exec(background(t), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func current(t *testing.T, who *person, workspace, integration string) *integrationsv1.Integration {
	t.Helper()
	return ask(t, client(who, workspace, integrationsv1connect.NewIntegrationServiceClient).GetIntegration, &integrationsv1.GetIntegrationRequest{IntegrationId: integration})
}

func completeness(t *testing.T, access discoveryv1connect.AccessServiceClient, resource string) *discoveryv1.Completeness {
	t.Helper()
	return ask(t, access.ListHolders, &discoveryv1.ListHoldersRequest{Resource: resource}).GetCompleteness()
}
