package access

import (
	"context"
	"fmt"
	"maps"
	"slices"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/id"
)

const (
	membership = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_MEMBERSHIP
	assumption = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_ASSUMPTION
)

// region is the part of the graph that one question touches. It is read level by level, so that a walk costs a few queries a
// level, and numbered, so that a million edges fit in slices. Searches then run over it without asking again.
type region struct {
	entitlements []Entitlement
	entitlement  map[id.Entitlement]int32
	resources    []id.Resource
	resource     map[id.Resource]int32

	// By resource: its grants, and its memberships and assumptions.
	grantsFrom [][]grantEdge
	doors      [][]int32
	// By entitlement.
	grantsTo       [][]grantEdge
	expansionsFrom [][]expansionEdge
	expansionsTo   [][]expansionEdge

	// times are when edges were first seen, each once, in order; edges and entitlements have their rank among them.
	times []Instant
	since []int32
}

type grantEdge struct {
	principal, entitlement int32
	notInherited           bool
	since                  int32
	id                     id.Grant
}

type expansionEdge struct {
	from, to  int32
	since     int32
	expansion *Expansion
}

// node is where a walk stands at a resource: arrived by membership, grants marked not inherited don't count; arrived by assumption,
// or being it, they do.
type node struct {
	resource id.Resource
	full     bool
}

func newRegion() *region {
	return &region{entitlement: map[id.Entitlement]int32{}, resource: map[id.Resource]int32{}}
}

// forward reads everything that can be reached from the principals.
func (g *Graph) forward(ctx context.Context, principals []id.Resource) (*region, error) {
	edges := g.edges
	r := newRegion()
	granted := map[id.Resource][]Grant{}
	seen := map[node]bool{}
	asked := map[id.Entitlement]bool{}
	var nodes []node
	for _, p := range unique(principals) {
		r.numberResource(p)
		nodes = append(nodes, node{p, true})
	}
	var entitlements []id.Entitlement
	reach := func(e id.Entitlement) {
		if !asked[e] {
			asked[e] = true
			entitlements = append(entitlements, e)
		}
	}
	var grants []Grant
	var expansions []Expansion
	for len(nodes) > 0 || len(entitlements) > 0 {
		read, err := fetchGrantsFrom(ctx, edges, nodes, granted)
		if err != nil {
			return nil, err
		}
		if err := g.spend(read); err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if seen[n] || seen[node{n.resource, true}] {
				continue
			}
			for _, g := range granted[n.resource] {
				if n.full || !g.NotInherited {
					reach(g.Entitlement)
				}
			}
			seen[n] = true
		}
		found, err := fetch(ctx, "the entitlements", edges.Entitlements, entitlements)
		if err != nil {
			return nil, err
		}
		nodes, entitlements = nil, nil
		known := make([]id.Entitlement, 0, len(found))
		for _, e := range found {
			r.numberEntitlement(e)
			known = append(known, e.ID)
			switch e.Purpose {
			case membership:
				nodes = append(nodes, node{e.Resource, false})
			case assumption:
				nodes = append(nodes, node{e.Resource, true})
			default:
				// A permission leads on by its expansions alone.
			}
		}
		next, err := fetch(ctx, "the expansions from entitlements", edges.ExpansionsFrom, known)
		if err != nil {
			return nil, err
		}
		if err := g.spend(len(found) + len(next)); err != nil {
			return nil, err
		}
		for _, x := range next {
			reach(x.To)
		}
		expansions = append(expansions, next...)
	}
	for _, of := range granted {
		grants = append(grants, of...)
	}
	r.connect(grants, expansions)
	return r, nil
}

// fetchGrantsFrom reads the grants of resources not read before, and says how many there were.
func fetchGrantsFrom(ctx context.Context, edges Edges, nodes []node, granted map[id.Resource][]Grant) (read int, err error) {
	var resources []id.Resource
	for _, n := range nodes {
		if _, read := granted[n.resource]; !read {
			granted[n.resource] = nil
			resources = append(resources, n.resource)
		}
	}
	grants, err := fetch(ctx, "the grants of principals", edges.GrantsFrom, resources)
	if err != nil {
		return 0, err
	}
	for _, g := range grants {
		granted[g.Principal] = append(granted[g.Principal], g)
	}
	return len(grants), nil
}

// backward reads everything from which the entitlements can be reached.
func (g *Graph) backward(ctx context.Context, targets []id.Entitlement) (*region, error) {
	edges := g.edges
	r := newRegion()
	var grants []Grant
	var expansions []Expansion
	doors := map[id.Resource][]Entitlement{}
	asked := map[id.Entitlement]bool{}
	frontier, err := fetch(ctx, "the entitlements", edges.Entitlements, unique(targets))
	if err != nil {
		return nil, err
	}
	for _, e := range frontier {
		asked[e.ID] = true
	}
	for len(frontier) > 0 {
		ids := make([]id.Entitlement, len(frontier))
		for i, e := range frontier {
			r.numberEntitlement(e)
			ids[i] = e.ID
		}
		to, err := fetch(ctx, "the grants of entitlements", edges.GrantsTo, ids)
		if err != nil {
			return nil, err
		}
		leading, err := fetch(ctx, "the expansions to entitlements", edges.ExpansionsTo, ids)
		if err != nil {
			return nil, err
		}
		if err := g.spend(len(ids) + len(to) + len(leading)); err != nil {
			return nil, err
		}
		grants, expansions = append(grants, to...), append(expansions, leading...)
		if err := fetchDoors(ctx, edges, to, doors); err != nil {
			return nil, err
		}
		frontier = nil
		for _, g := range to {
			for _, e := range doors[g.Principal] {
				if !asked[e.ID] && (e.Purpose == assumption || !g.NotInherited) {
					asked[e.ID] = true
					frontier = append(frontier, e)
				}
			}
		}
		var from []id.Entitlement
		for _, x := range leading {
			if !asked[x.From] {
				asked[x.From] = true
				from = append(from, x.From)
			}
		}
		expanding, err := fetch(ctx, "the entitlements", edges.Entitlements, from)
		if err != nil {
			return nil, err
		}
		frontier = append(frontier, expanding...)
	}
	r.connect(grants, expansions)
	return r, nil
}

// fetchDoors reads the memberships and assumptions of principals not read before.
func fetchDoors(ctx context.Context, edges Edges, grants []Grant, doors map[id.Resource][]Entitlement) error {
	var resources []id.Resource
	for _, g := range grants {
		if _, read := doors[g.Principal]; !read {
			doors[g.Principal] = nil
			resources = append(resources, g.Principal)
		}
	}
	on, err := fetch(ctx, "the entitlements on principals", edges.EntitlementsOn, resources)
	if err != nil {
		return err
	}
	for _, e := range on {
		if e.Purpose == membership || e.Purpose == assumption {
			doors[e.Resource] = append(doors[e.Resource], e)
		}
	}
	return nil
}

// fetch asks one batch, and nothing when there is nothing to ask.
func fetch[K, V any](ctx context.Context, what string, ask func(context.Context, []K) ([]V, error), keys []K) ([]V, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer, err := ask(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return answer, nil
}

func (r *region) numberResource(i id.Resource) int32 {
	n, known := r.resource[i]
	if !known {
		n = int32(len(r.resources)) //nolint:gosec // a region of two thousand million nodes would not fit in memory
		r.resource[i] = n
		r.resources = append(r.resources, i)
	}
	return n
}

func (r *region) numberEntitlement(e Entitlement) int32 {
	n, known := r.entitlement[e.ID]
	if !known {
		n = int32(len(r.entitlements)) //nolint:gosec // as above
		r.entitlement[e.ID] = n
		r.entitlements = append(r.entitlements, e)
	}
	return n
}

// connect indexes the edges whose ends are in the region, each once. Of two expansions between the same entitlements the one that
// takes no act counts.
func (r *region) connect(grants []Grant, expansions []Expansion) {
	for _, g := range grants {
		r.numberResource(g.Principal)
	}
	for _, e := range r.entitlements {
		r.numberResource(e.Resource)
	}
	r.grantsFrom = make([][]grantEdge, len(r.resources))
	r.doors = make([][]int32, len(r.resources))
	r.grantsTo = make([][]grantEdge, len(r.entitlements))
	r.expansionsFrom = make([][]expansionEdge, len(r.entitlements))
	r.expansionsTo = make([][]expansionEdge, len(r.entitlements))
	rank := r.rank(grants, expansions)
	r.since = make([]int32, len(r.entitlements))
	for n, e := range r.entitlements {
		r.since[n] = rank[e.Since]
		if e.Purpose == membership || e.Purpose == assumption {
			on := r.resource[e.Resource]
			r.doors[on] = append(r.doors[on], int32(n)) //nolint:gosec // as above
		}
	}
	for _, g := range grants {
		to, known := r.entitlement[g.Entitlement]
		if !known {
			continue
		}
		edge := grantEdge{principal: r.resource[g.Principal], entitlement: to, notInherited: g.NotInherited, since: rank[g.Since], id: g.ID}
		r.grantsFrom[edge.principal] = append(r.grantsFrom[edge.principal], edge)
		r.grantsTo[to] = append(r.grantsTo[to], edge)
	}
	best := map[[2]int32]Expansion{}
	for _, x := range expansions {
		from, knownFrom := r.entitlement[x.From]
		to, knownTo := r.entitlement[x.To]
		if !knownFrom || !knownTo {
			continue
		}
		key := [2]int32{from, to}
		if b, twice := best[key]; !twice || b.Assumption && !x.Assumption {
			best[key] = x
		}
	}
	for key, x := range best {
		edge := expansionEdge{from: key[0], to: key[1], since: rank[x.Since], expansion: &x}
		r.expansionsFrom[edge.from] = append(r.expansionsFrom[edge.from], edge)
		r.expansionsTo[edge.to] = append(r.expansionsTo[edge.to], edge)
	}
}

// rank orders the times of everything in the region.
func (r *region) rank(grants []Grant, expansions []Expansion) map[Instant]int32 {
	rank := map[Instant]int32{}
	for _, g := range grants {
		rank[g.Since] = 0
	}
	for _, x := range expansions {
		rank[x.Since] = 0
	}
	for _, e := range r.entitlements {
		rank[e.Since] = 0
	}
	r.times = slices.Sorted(maps.Keys(rank))
	for n, t := range r.times {
		rank[t] = int32(n) //nolint:gosec // as above
	}
	return rank
}
