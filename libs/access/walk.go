package access

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"a3os.app/libs/id"
)

func (g *Graph) holds(ctx context.Context, principals []id.Resource) ([]Holding, error) {
	r, err := g.forward(ctx, principals)
	if err != nil {
		return nil, err
	}
	var out []Holding
	for _, p := range unique(principals) {
		out = append(out, r.heldBy(r.resource[p])...)
	}
	nearestFirst(out)
	return out, nil
}

func (g *Graph) holders(ctx context.Context, entitlements []id.Entitlement) ([]Holding, error) {
	r, err := g.backward(ctx, entitlements)
	if err != nil {
		return nil, err
	}
	var out []Holding
	for _, e := range unique(entitlements) {
		if target, known := r.entitlement[e]; known {
			out = append(out, r.holdersOf(target)...)
		}
	}
	nearestFirst(out)
	return out, nil
}

// heldBy is everything that one principal holds.
func (r *region) heldBy(principal int32) []Holding {
	anyWay := r.reachable(principal, true)
	atOnce := r.reachable(principal, false)
	since := r.sinces(atOnce, func(acting bool) []int32 { return r.reachableSince(principal, acting) })
	direct := map[int32]bool{}
	for _, g := range r.grantsFrom[principal] {
		direct[g.entitlement] = true
	}
	var out []Holding
	for e, distance := range anyWay {
		if distance == 0 {
			continue
		}
		out = append(out, Holding{
			Principal:   r.resources[principal],
			Entitlement: r.entitlements[e].ID,
			Assumption:  atOnce[e] == 0,
			Direct:      direct[int32(e)], //nolint:gosec // numbered by int32
			Distance:    int(distance),
			Since:       since(e),
		})
	}
	return out
}

// reachable counts the steps from the principal to every entitlement, 0 where there is no way; without acting, or by it too.
func (r *region) reachable(principal int32, acting bool) []int32 {
	distance := make([]int32, len(r.entitlements))
	const inherited, full = 1, 2
	entered := make([]uint8, len(r.resources))
	var queue []int32
	reach := func(e, d int32) {
		if distance[e] == 0 {
			distance[e] = d
			queue = append(queue, e)
		}
	}
	enter := func(resource int32, as uint8, d int32) {
		if entered[resource] >= as {
			return
		}
		entered[resource] = as
		for _, g := range r.grantsFrom[resource] {
			if as == full || !g.notInherited {
				reach(g.entitlement, d)
			}
		}
	}
	enter(principal, full, 1)
	for head := 0; head < len(queue); head++ { //nolint:intrange // the queue grows while it is walked
		e := queue[head]
		next := distance[e] + 1
		for _, x := range r.expansionsFrom[e] {
			if acting || !x.expansion.Assumption {
				reach(x.to, next)
			}
		}
		switch on := r.resource[r.entitlements[e].Resource]; r.entitlements[e].Purpose {
		case membership:
			enter(on, inherited, next)
		case assumption:
			if acting {
				enter(on, full, next)
			}
		default:
			// A permission leads on by its expansions alone.
		}
	}
	return distance
}

// holdersOf is everyone who holds one entitlement.
func (r *region) holdersOf(target int32) []Holding {
	anyWay := r.reaching(target, true)
	atOnce := r.reaching(target, false)
	since := r.sinces(atOnce, func(acting bool) []int32 { return r.reachingSince(target, acting) })
	direct := map[int32]bool{}
	for _, g := range r.grantsTo[target] {
		direct[g.principal] = true
	}
	var out []Holding
	for p, distance := range anyWay {
		if distance == 0 {
			continue
		}
		out = append(out, Holding{
			Principal:   r.resources[p],
			Entitlement: r.entitlements[target].ID,
			Assumption:  atOnce[p] == 0,
			Direct:      direct[int32(p)], //nolint:gosec // numbered by int32
			Distance:    int(distance),
			Since:       since(p),
		})
	}
	return out
}

// reaching counts the steps from every principal to the target, 0 where there is no way; without acting, or by it too.
func (r *region) reaching(target int32, acting bool) []int32 {
	holder := make([]int32, len(r.resources))
	// Steps to the target and one more, so that 0 is free to mean unseen.
	steps := make([]int32, len(r.entitlements))
	steps[target] = 1
	queue := []int32{target}
	reach := func(e, s int32) {
		if steps[e] == 0 {
			steps[e] = s
			queue = append(queue, e)
		}
	}
	// A principal's doors are passed once for its grants that are inherited, and its assumptions once for those that are not.
	const byAssumption, byAny = 1, 2
	passed := make([]uint8, len(r.resources))
	for head := 0; head < len(queue); head++ { //nolint:intrange // the queue grows while it is walked
		e := queue[head]
		for _, x := range r.expansionsTo[e] {
			if acting || !x.expansion.Assumption {
				reach(x.from, steps[e]+1)
			}
		}
		for _, g := range r.grantsTo[e] {
			if holder[g.principal] == 0 {
				holder[g.principal] = steps[e]
			}
			as := uint8(byAny)
			if g.notInherited {
				as = byAssumption
			}
			if passed[g.principal] >= as {
				continue
			}
			passed[g.principal] = as
			for _, door := range r.doors[g.principal] {
				switch r.entitlements[door].Purpose {
				case membership:
					if as == byAny {
						reach(door, steps[e]+1)
					}
				default:
					if acting {
						reach(door, steps[e]+1)
					}
				}
			}
		}
	}
	return holder
}

// nearestFirst orders by distance, then by ids, so that the same question has the same answer.
func nearestFirst(holdings []Holding) {
	slices.SortFunc(holdings, func(a, b Holding) int {
		return cmp.Or(
			cmp.Compare(a.Distance, b.Distance),
			compareIDs(a.Principal.Bytes(), b.Principal.Bytes()),
			compareIDs(a.Entitlement.Bytes(), b.Entitlement.Bytes()),
		)
	})
}

func compareIDs(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }

// unique leaves out what was asked for twice, so that an answer holds each edge once.
func unique[T comparable](asked []T) []T {
	if len(asked) < 2 {
		return asked
	}
	set := make(map[T]struct{}, len(asked))
	for _, a := range asked {
		set[a] = struct{}{}
	}
	return slices.Collect(maps.Keys(set))
}
