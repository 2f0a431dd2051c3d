package registry_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/usage"
	"a3os.app/libs/workload"
)

// keptOf is what the registry keeps of a tenant that left, by table, in the words by which the runbook and the operation that ends it name it.
var keptOf = map[string]string{
	"tenants": "names, labels and account", "slugs": "names, labels and account", "licences": "its licences",
	"witnessed_logs": "the checkpoints of its log", "checkpoints": "the checkpoints of its log",
	"backups": "when backups of it were made and restored", "restores": "when backups of it were made and restored", "planned_restores": "when backups of it were made and restored",
	"operations": "of who did", "rollout_tenants": "of who did", "rollout_events": "of who did",
}

// goneOf is what goes with the tenant.
var goneOf = []string{"service_sets", "components", "set_reports", "component_reports", "report_points", "licence_reports", "usage_reports"}

func TestWhatTheRegistryKeepsOfATenantThatLeftIsWhatIsSaid(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	operator := h.as(addr, "operator")
	acme, globex := h.create(operator, "acme"), h.create(operator, "globex")
	db := h.db.Pool(t)
	for _, x := range []tenant{acme, globex} {
		if _, err := putLicence(t, operator, signed(t, h.plane, h.licenceKey, h.licenceOf(x.id, 1))); err != nil {
			t.Fatal(err)
		}
		s, _ := source(t, x.issuer, workload.Identity{Plane: h.plane, Tenant: x.id, Service: "audit"})
		log, now := newPairLog(t, x), time.Now().Truncate(time.Second)
		note, err := usage.Sign(usage.Report{Plane: h.plane, Tenant: x.id, Serial: 1, Since: now.Add(-time.Hour), Until: now, Counts: map[string]int64{"seats": 3}}, log.signer)
		if err != nil {
			t.Fatal(err)
		}
		req := log.request(t, "a")
		req.Components = []*registryv1.ComponentReport{{Name: "iam", Health: registryv1.Health_HEALTH_SERVING, StartedAt: timestamppb.New(now)}}
		req.Licence, req.Usage = &registryv1.LicenceReport{Serial: 1, State: registryv1.LicenceState_LICENCE_STATE_VALID}, &registryv1.UsageReport{Note: note, VerifierKey: log.signer.Verifier().String()}
		if _, err := registryv1.NewReportServiceClient(h.dial(addr, s)).Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		// What the release before wrote.
		if _, err := db.Exec(t.Context(), "INSERT INTO registry.component_reports (tenant_id, name, health, release, reported_at) VALUES ($1, 'iam', 'serving', '1.0.0', now())", x.id); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.Query(t.Context(), "SELECT table_name::text FROM information_schema.columns WHERE table_schema = 'registry' AND column_name = 'tenant_id' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < len(goneOf) {
		t.Fatalf("the tables are %q: %v", tables, err)
	}
	has := func(table string, x tenant) (n int) {
		t.Helper()
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM registry."+table+" WHERE tenant_id = $1", x.id).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, table := range goneOf {
		if has(table, acme) == 0 {
			t.Errorf("%s has nothing of acme, and shows nothing here", table)
		}
	}
	w := registryv1.NewTenantWriteServiceClient(operator)
	h.setState(w, acme, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	h.setState(w, acme, registryv1.TenantState_TENANT_STATE_OFFBOARDED)
	for _, table := range tables {
		switch _, kept := keptOf[table]; {
		case kept:
		case !slices.Contains(goneOf, table):
			t.Errorf("nobody says whether %s is kept of a tenant that left", table)
		case has(table, acme) > 0:
			t.Errorf("%s still has something of acme", table)
		case has(table, globex) == 0:
			t.Errorf("%s has nothing of globex any more", table)
		}
	}
	for _, file := range []string{"../../docs/operations.md", "../../tools/fleet/internal/platform/local/remains.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for table, words := range keptOf {
			if !strings.Contains(string(text), words) {
				t.Errorf("%s does not name what is kept in %s: %q", file, table, words)
			}
		}
	}
}
