package runs_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
)

// BenchmarkIngestToPublished compares a run, from the worker's messages through staging and seal to published, with a bare COPY of the
// same rows into tables of the same shape: same columns, same indexes, no row-level security and nothing else. The two take turns, each
// into tables that hold as much as the other's. A3_BENCH_GRANTS is how many grants (default 200,000). `ratio` is rows per second over rows per second:
// the median of the turns.
func BenchmarkIngestToPublished(b *testing.B) {
	n := grantsToIngest(b)
	e := discoverytest.New(b)
	e.Exec(b, `CREATE SCHEMA bare;
		CREATE TABLE bare.resources (LIKE discovery.resources INCLUDING ALL);
		CREATE TABLE bare.entitlements (LIKE discovery.entitlements INCLUDING ALL);
		CREATE TABLE bare.grants (LIKE discovery.grants INCLUDING ALL)`)
	records := manyGrants(n)
	var ratios, runRates, copyRates []float64
	for b.Loop() {
		w, i := id.NewWorkspace(), id.NewIntegration()
		run := e.Start(b, w, i)
		began := time.Now()
		e.Read(b, run.GetId(), discoverytest.Slice{Records: records, Completed: []string{"test"}})
		e.Publish(b, w, run.GetId())
		took := time.Since(began)
		if got := e.Get(b, w, run.GetId()); got.GetGrantsAdded() != int64(n) {
			b.Fatalf("%d grants were published, want %d", got.GetGrantsAdded(), n)
		}
		b.StopTimer()
		rows := bareRows(w, i, records)
		b.StartTimer()
		began = time.Now()
		bareCopy(b, e, rows)
		bare := time.Since(began)
		runRates, copyRates = append(runRates, float64(n)/took.Seconds()), append(copyRates, float64(n)/bare.Seconds())
		ratios = append(ratios, bare.Seconds()/took.Seconds())
	}
	b.ReportMetric(median(runRates), "grants/s")
	b.ReportMetric(median(copyRates), "bare-grants/s")
	b.ReportMetric(median(ratios), "ratio")
}

func grantsToIngest(b *testing.B) int {
	b.Helper()
	text := os.Getenv("A3_BENCH_GRANTS")
	if text == "" {
		return 200_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("A3_BENCH_GRANTS is %q: it is a number of grants", text)
	}
	return n
}

// manyGrants are n grants, each account's of its own entitlements among those of many tables, and what they name.
func manyGrants(n int) []*discoveryv1.Record {
	const perAccount, tables = 50, 2000
	out := make([]*discoveryv1.Record, 0, n+n/perAccount+2*tables+1)
	on := make([]*discoveryv1.EntitlementRef, tables)
	for t := range tables {
		table := Ref("table", fmt.Sprintf("app.public.t%05d", t))
		on[t] = On(table, "SELECT")
		out = append(out, Resource(table, false), Entitlement(on[t], Permission))
	}
	var user *discoveryv1.ResourceRef
	for g := range n {
		if g%perAccount == 0 {
			user = Ref("user", fmt.Sprintf("user%07d", g/perAccount))
			out = append(out, Resource(user, true))
		}
		r := Grant(user, on[(g*37+g/perAccount)%tables], false)
		r.GetGrant().Reason = "GRANT by postgres"
		out = append(out, r)
	}
	return out
}

// bare are rows as they are published, by table.
type bare struct {
	table   string
	columns []string
	rows    [][]any
}

func bareRows(w id.Workspace, i id.Integration, records []*discoveryv1.Record) []bare {
	now, run := time.Now(), id.NewRun()
	resources := bare{table: "resources", columns: []string{"workspace_id", "integration_id", "id", "type", "external_id", "display_name", "attributes", "account", "scope", "since", "since_run"}}
	entitlements := bare{table: "entitlements", columns: []string{"workspace_id", "integration_id", "id", "resource_id", "name", "purpose", "description", "scope", "since", "since_run"}}
	grants := bare{table: "grants", columns: []string{"workspace_id", "integration_id", "id", "principal_id", "entitlement_id", "reason", "grantable", "not_inherited", "scope", "since", "since_run"}}
	resource := func(r *discoveryv1.ResourceRef) id.Resource {
		return access.ResourceID(i, r.GetType(), r.GetExternalId())
	}
	for _, r := range records {
		switch k := r.GetKind().(type) {
		case *discoveryv1.Record_Resource:
			x := k.Resource
			resources.rows = append(resources.rows, []any{w, i, access.ResourceID(i, x.GetType(), x.GetExternalId()), x.GetType(), x.GetExternalId(), x.GetDisplayName(), []byte("{}"), x.GetAccount(), r.GetScope(), now, run})
		case *discoveryv1.Record_Entitlement:
			on := resource(k.Entitlement.GetResource())
			entitlements.rows = append(entitlements.rows, []any{w, i, access.EntitlementID(on, k.Entitlement.GetName()), on, k.Entitlement.GetName(), int16(k.Entitlement.GetPurpose()), "", r.GetScope(), now, run})
		case *discoveryv1.Record_Grant:
			p, e := resource(k.Grant.GetPrincipal()), access.EntitlementID(resource(k.Grant.GetEntitlement().GetResource()), k.Grant.GetEntitlement().GetName())
			grants.rows = append(grants.rows, []any{w, i, access.GrantID(p, e), p, e, k.Grant.GetReason(), false, false, r.GetScope(), now, run})
		}
	}
	return []bare{resources, entitlements, grants}
}

func bareCopy(b *testing.B, e *discoverytest.Env, tables []bare) {
	b.Helper()
	for _, t := range tables {
		if _, err := e.Super.CopyFrom(b.Context(), pgx.Identifier{"bare", t.table}, t.columns, pgx.CopyFromRows(t.rows)); err != nil {
			b.Fatal(err)
		}
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
