package access_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// layers is a graph of depth layers with width roles each, every role a member of all roles of the next: width^depth paths.
func layers(width, depth int) (*accesstest.Memory, id.Resource, id.Entitlement) {
	var records []*discoveryv1.Record
	role := func(layer, n int) *discoveryv1.ResourceRef {
		return accesstest.Ref("role", fmt.Sprintf("r%d_%d", layer, n))
	}
	top := accesstest.On(accesstest.Ref("table", "payments"), "SELECT")
	records = append(records, accesstest.Entitlement(top, accesstest.Permission))
	for layer := range depth {
		for n := range width {
			member := accesstest.On(role(layer, n), "member")
			records = append(records, accesstest.Entitlement(member, accesstest.Membership))
			if layer == 0 {
				records = append(records, accesstest.Grant(accesstest.Ref("user", "ann"), member, false))
			} else {
				for below := range width {
					records = append(records, accesstest.Grant(role(layer-1, below), member, false))
				}
			}
			if layer == depth-1 {
				records = append(records, accesstest.Grant(role(layer, n), top, false))
			}
		}
	}
	m := accesstest.NewMemory(id.NewIntegration(), records...)
	return m, m.Resource("user", "ann"), m.Entitlement("table", "payments", "SELECT")
}

func TestFirstOfExponentiallyManyPathsComeAtOnce(t *testing.T) {
	m, ann, payments := layers(10, 30)
	seen := 0
	for p, err := range access.NewGraph(m).Paths(t.Context(), ann, []id.Entitlement{payments}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Steps) != 31 {
			t.Fatalf("a path of %d steps, the shortest has 31", len(p.Steps))
		}
		if seen++; seen == 100 {
			break
		}
	}
	if seen != 100 {
		t.Errorf("%d paths, want the 100 that were asked for", seen)
	}
}

func TestPathsEndWithTheContext(t *testing.T) {
	m, ann, payments := layers(4, 8)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range access.NewGraph(m).Paths(ctx, ann, []id.Entitlement{payments}) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("the iteration ended with %v, want context.Canceled", last)
	}
}

func TestNoPathForStrangers(t *testing.T) {
	m, _, payments := layers(2, 2)
	for p, err := range access.NewGraph(m).Paths(t.Context(), m.Resource("user", "eve"), []id.Entitlement{payments}) {
		t.Errorf("path %v, error %v, want none", p, err)
	}
}

// counting counts the batches.
type counting struct {
	*accesstest.Memory
	batches int
}

func (c *counting) GrantsFrom(ctx context.Context, p []id.Resource) ([]access.Grant, error) {
	c.batches++
	return c.Memory.GrantsFrom(ctx, p)
}

func (c *counting) GrantsTo(ctx context.Context, e []id.Entitlement) ([]access.Grant, error) {
	c.batches++
	return c.Memory.GrantsTo(ctx, e)
}

func TestWalkCostsAFewQueriesALevel(t *testing.T) {
	const width, depth = 50, 10
	m, ann, payments := layers(width, depth)
	c := &counting{Memory: m}
	held, err := access.NewGraph(c).Holds(t.Context(), []id.Resource{ann})
	if err != nil {
		t.Fatal(err)
	}
	if len(held) != width*depth+1 {
		t.Errorf("%d holdings, want %d", len(held), width*depth+1)
	}
	if c.batches != depth+1 {
		t.Errorf("Holds took %d batches of grants, want one a level: %d", c.batches, depth+1)
	}
	c.batches = 0
	if _, err := access.NewGraph(c).Holders(t.Context(), []id.Entitlement{payments}); err != nil {
		t.Fatal(err)
	}
	if c.batches != depth+1 {
		t.Errorf("Holders took %d batches of grants, want one a level: %d", c.batches, depth+1)
	}
}

// failing fails at one question.
type failing struct{ *accesstest.Memory }

var errGone = errors.New("the database is gone")

func (failing) ExpansionsFrom(context.Context, []id.Entitlement) ([]access.Expansion, error) {
	return nil, errGone
}

func (failing) ExpansionsTo(context.Context, []id.Entitlement) ([]access.Expansion, error) {
	return nil, errGone
}

func TestErrorOfTheEdgesIsTheAnswer(t *testing.T) {
	m, ann, payments := layers(2, 2)
	g := access.NewGraph(failing{m})
	if _, err := g.Holds(t.Context(), []id.Resource{ann}); !errors.Is(err, errGone) {
		t.Errorf("Holds: %v, want %v", err, errGone)
	}
	if _, err := g.Holders(t.Context(), []id.Entitlement{payments}); !errors.Is(err, errGone) {
		t.Errorf("Holders: %v, want %v", err, errGone)
	}
	for _, err := range g.Paths(t.Context(), ann, []id.Entitlement{payments}) {
		if !errors.Is(err, errGone) {
			t.Errorf("Paths: %v, want %v", err, errGone)
		}
	}
}

// BenchmarkHoldsOfAMillionGrants walks 1000 groups of 1000 grants each.
func BenchmarkHoldsOfAMillionGrants(b *testing.B) {
	m := accesstest.NewMemory(id.NewIntegration())
	for group := range 1000 {
		g := accesstest.Ref("group", fmt.Sprint(group))
		member := accesstest.On(g, "member")
		m.Add(accesstest.Entitlement(member, accesstest.Membership), accesstest.Grant(accesstest.Ref("user", "ann"), member, false))
		for n := range 1000 {
			e := accesstest.On(accesstest.Ref("app", fmt.Sprint(group, n)), "use")
			m.Add(accesstest.Entitlement(e, accesstest.Permission), accesstest.Grant(g, e, false))
		}
	}
	graph := access.NewGraph(m)
	for b.Loop() {
		held, err := graph.Holds(b.Context(), []id.Resource{m.Resource("user", "ann")})
		if err != nil || len(held) != 1001000 {
			b.Fatalf("%d holdings, %v", len(held), err)
		}
	}
}
