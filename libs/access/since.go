package access

// Since when something is held is the widest-path problem with times for widths: of each way its newest edge counts, and of all ways the
// one whose newest edge is oldest. Times are few, as many as there were publications, so nodes wait in a row for each time: rows are
// emptied in order, and a node that an edge of a later time leads to waits in a later row.

// What waits in a row: an entitlement, or a principal whose grant was found, that is inherited or not.
type waiting struct {
	node int32
	as   uint8
}

const (
	anEntitlement = iota
	byAssumption
	byAny
)

// rows are what waits for each time.
type rows [][]waiting

// each calls f with everything in the order of times, with what f puts in meanwhile.
func (w rows) each(f func(rank int32, node int32, as uint8)) {
	for rank := range w {
		for head := 0; head < len(w[rank]); head++ { //nolint:intrange // the row grows while it is walked
			f(int32(rank), w[rank][head].node, w[rank][head].as) //nolint:gosec // numbered by int32
		}
		w[rank] = nil
	}
}

func (w rows) put(rank, node int32, as uint8) { w[rank] = append(w[rank], waiting{node, as}) }

// sinces answers since when each node is held: at once where there is such a way, and by acting where there is none. Where everything
// was seen first at one time there is nothing to look for.
func (r *region) sinces(atOnce []int32, walk func(acting bool) []int32) func(node int) Instant {
	if len(r.times) == 1 {
		return func(int) Instant { return r.times[0] }
	}
	once, acting := walk(false), []int32(nil)
	return func(node int) Instant {
		if atOnce[node] != 0 {
			return r.times[once[node]-1]
		}
		if acting == nil {
			acting = walk(true)
		}
		return r.times[acting[node]-1]
	}
}

// reachingSince is the rank, and one more, of when each principal came to hold the target; 0 where there is no way. It goes the ways of
// reaching.
func (r *region) reachingSince(target int32, acting bool) []int32 {
	holder := make([]int32, len(r.resources))
	passed := make([]uint8, len(r.resources))
	done := make([]bool, len(r.entitlements))
	wait := make(rows, len(r.times))
	wait.put(r.since[target], target, anEntitlement)
	wait.each(func(now, node int32, as uint8) {
		if as == anEntitlement {
			if done[node] {
				return
			}
			done[node] = true
			for _, x := range r.expansionsTo[node] {
				if (acting || !x.expansion.Assumption) && !done[x.from] {
					wait.put(max(now, x.since, r.since[x.from]), x.from, anEntitlement)
				}
			}
			for _, g := range r.grantsTo[node] {
				as := uint8(byAny)
				if g.notInherited {
					as = byAssumption
				}
				if passed[g.principal] < as {
					wait.put(max(now, g.since), g.principal, as)
				}
			}
			return
		}
		if holder[node] == 0 {
			holder[node] = now + 1
		}
		if passed[node] >= as {
			return
		}
		passed[node] = as
		for _, door := range r.doors[node] {
			if byMembership := r.entitlements[door].Purpose == membership; byMembership && as == byAny || !byMembership && acting {
				wait.put(max(now, r.since[door]), door, anEntitlement)
			}
		}
	})
	return holder
}

// reachableSince is the rank, and one more, of when the principal came to hold each entitlement; 0 where there is no way. It goes the
// ways of reachable.
func (r *region) reachableSince(principal int32, acting bool) []int32 {
	held := make([]int32, len(r.entitlements))
	entered := make([]uint8, len(r.resources))
	wait := make(rows, len(r.times))
	enter := func(now, resource int32, as uint8) {
		if entered[resource] >= as {
			return
		}
		entered[resource] = as
		for _, g := range r.grantsFrom[resource] {
			if as == byAny || !g.notInherited {
				wait.put(max(now, g.since, r.since[g.entitlement]), g.entitlement, anEntitlement)
			}
		}
	}
	// A resource that is entered by its members' inheritance counts for less than one that is taken the place of.
	const inherited, full = byAssumption, byAny
	enter(0, principal, full)
	wait.each(func(now, e int32, _ uint8) {
		if held[e] != 0 {
			return
		}
		held[e] = now + 1
		for _, x := range r.expansionsFrom[e] {
			if acting || !x.expansion.Assumption {
				wait.put(max(now, x.since, r.since[x.to]), x.to, anEntitlement)
			}
		}
		switch on := r.resource[r.entitlements[e].Resource]; r.entitlements[e].Purpose {
		case membership:
			enter(now, on, inherited)
		case assumption:
			if acting {
				enter(now, on, full)
			}
		default:
			// A permission leads on by its expansions alone.
		}
	})
	return held
}
