// Package accesstest is the conformance suite of access.Edges: whatever holds the edges, a map or rows in PostgreSQL, passes it and
// thereby gives the graph's answers.
package accesstest

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// NewEdges makes edges of an integration that hold exactly these records.
type NewEdges func(t *testing.T, integration id.Integration, records []*discoveryv1.Record) access.Edges

// TestEdges runs the suite: every question that Edges answers, and a company's graph asked through access.Graph.
func TestEdges(t *testing.T, newEdges NewEdges) {
	t.Helper()
	integration := id.NewIntegration()
	company := company()
	edges := newEdges(t, integration, company)
	reference := NewMemory(integration, company...)
	t.Run("AnswersEachEdgeOnce", func(t *testing.T) { testBatches(t, edges, reference, company) })
	t.Run("UnknownIDsAreLeftOut", func(t *testing.T) { testUnknown(t, edges) })
	t.Run("NothingAskedNothingAnswered", func(t *testing.T) { testNothing(t, edges) })
	t.Run("GraphAnswersAsInMemory", func(t *testing.T) { testGraph(t, edges, reference, company) })
	t.Run("CancelledContextIsAnError", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := access.NewGraph(edges).Holds(ctx, []id.Resource{reference.Resource("user", "ann")}); err == nil {
			t.Error("Holds with a cancelled context: no error")
		}
	})
}

// testBatches asks for everything at once, each key twice.
func testBatches(t *testing.T, edges, reference access.Edges, records []*discoveryv1.Record) {
	resources, entitlements := keys(reference, records)
	twiceResources, twiceEntitlements := slices.Concat(resources, resources), slices.Concat(entitlements, entitlements)
	same(t, "GrantsFrom", edges.GrantsFrom, reference.GrantsFrom, twiceResources)
	same(t, "GrantsTo", edges.GrantsTo, reference.GrantsTo, twiceEntitlements)
	same(t, "ExpansionsFrom", edges.ExpansionsFrom, reference.ExpansionsFrom, twiceEntitlements)
	same(t, "ExpansionsTo", edges.ExpansionsTo, reference.ExpansionsTo, twiceEntitlements)
	same(t, "Entitlements", edges.Entitlements, reference.Entitlements, twiceEntitlements)
	same(t, "EntitlementsOn", edges.EntitlementsOn, reference.EntitlementsOn, twiceResources)
	for _, r := range resources {
		same(t, "GrantsFrom one", edges.GrantsFrom, reference.GrantsFrom, []id.Resource{r})
		same(t, "EntitlementsOn one", edges.EntitlementsOn, reference.EntitlementsOn, []id.Resource{r})
	}
	for _, e := range entitlements {
		same(t, "GrantsTo one", edges.GrantsTo, reference.GrantsTo, []id.Entitlement{e})
		same(t, "ExpansionsTo one", edges.ExpansionsTo, reference.ExpansionsTo, []id.Entitlement{e})
	}
}

func testUnknown(t *testing.T, edges access.Edges) {
	r, e := []id.Resource{access.ResourceID(id.NewIntegration(), "user", "nobody")}, []id.Entitlement{access.EntitlementID(
		access.ResourceID(id.NewIntegration(), "app", "none"), "nothing")}
	none(t, "GrantsFrom", edges.GrantsFrom, r)
	none(t, "EntitlementsOn", edges.EntitlementsOn, r)
	none(t, "GrantsTo", edges.GrantsTo, e)
	none(t, "ExpansionsFrom", edges.ExpansionsFrom, e)
	none(t, "ExpansionsTo", edges.ExpansionsTo, e)
	none(t, "Entitlements", edges.Entitlements, e)
}

func testNothing(t *testing.T, edges access.Edges) {
	none(t, "GrantsFrom", edges.GrantsFrom, nil)
	none(t, "EntitlementsOn", edges.EntitlementsOn, nil)
	none(t, "GrantsTo", edges.GrantsTo, nil)
	none(t, "ExpansionsFrom", edges.ExpansionsFrom, nil)
	none(t, "ExpansionsTo", edges.ExpansionsTo, nil)
	none(t, "Entitlements", edges.Entitlements, nil)
}

func testGraph(t *testing.T, edges, reference access.Edges, records []*discoveryv1.Record) {
	resources, entitlements := keys(reference, records)
	got, want := access.NewGraph(edges), access.NewGraph(reference)
	gotHolds, err := got.Holds(t.Context(), resources)
	check(t, "Holds", err)
	wantHolds, err := want.Holds(t.Context(), resources)
	check(t, "Holds in memory", err)
	compare(t, "Holds", gotHolds, wantHolds)
	gotHolders, err := got.Holders(t.Context(), entitlements)
	check(t, "Holders", err)
	wantHolders, err := want.Holders(t.Context(), entitlements)
	check(t, "Holders in memory", err)
	compare(t, "Holders", gotHolders, wantHolders)
	if len(gotHolds) == 0 || len(gotHolds) != len(gotHolders) {
		t.Errorf("Holds answered %d holdings and Holders %d, want as many and more than none", len(gotHolds), len(gotHolders))
	}
	for _, r := range resources {
		compare(t, "Paths", collect(t, got, r, entitlements), collect(t, want, r, entitlements))
	}
}

func collect(t *testing.T, g *access.Graph, principal id.Resource, entitlements []id.Entitlement) []access.Path {
	t.Helper()
	var out []access.Path
	for p, err := range g.Paths(t.Context(), principal, entitlements) {
		check(t, "Paths", err)
		out = append(out, p)
	}
	return out
}

// keys are the ids of all resources and entitlements that the records name.
func keys(edges access.Edges, records []*discoveryv1.Record) ([]id.Resource, []id.Entitlement) {
	m, ok := edges.(*Memory)
	if !ok {
		return nil, nil
	}
	var resources []id.Resource
	var entitlements []id.Entitlement
	for _, r := range records {
		if x := r.GetResource(); x != nil {
			resources = append(resources, m.Resource(x.GetType(), x.GetExternalId()))
		}
		if x := r.GetEntitlement(); x != nil {
			entitlements = append(entitlements, m.Entitlement(x.GetResource().GetType(), x.GetResource().GetExternalId(), x.GetName()))
		}
	}
	return resources, entitlements
}

// same compares two answers, whatever their order.
func same[K, V any](t *testing.T, what string, got, want func(context.Context, []K) ([]V, error), asked []K) {
	t.Helper()
	g, err := got(t.Context(), asked)
	check(t, what, err)
	w, err := want(t.Context(), asked)
	check(t, what+" in memory", err)
	if len(g) != len(w) {
		t.Errorf("%s answered %d edges, want %d", what, len(g), len(w))
	}
	for _, v := range w {
		if !slices.ContainsFunc(g, func(x V) bool { return cmp.Equal(x, v, byValue()) }) {
			t.Errorf("%s did not answer %+v", what, v)
		}
	}
}

func none[K, V any](t *testing.T, what string, ask func(context.Context, []K) ([]V, error), asked []K) {
	t.Helper()
	got, err := ask(t.Context(), asked)
	check(t, what, err)
	if len(got) != 0 {
		t.Errorf("%s answered %d edges, want none", what, len(got))
	}
}

func compare(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, byValue()); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

func check(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// byValue compares ids, whose fields are not exported, as values. Records say nothing of times, so edges in memory have none.
func byValue() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(access.Instant, access.Instant) bool { return true }),
		cmp.Comparer(func(a, b id.Resource) bool { return a == b }),
		cmp.Comparer(func(a, b id.Entitlement) bool { return a == b }),
		cmp.Comparer(func(a, b id.Grant) bool { return a == b }),
	}
}
