package access

import (
	"cmp"
	"container/heap"
	"context"
	"iter"
	"slices"

	"a3os.app/libs/id"
)

// paths follows Yen's algorithm in Lawler's form (Lawler 1972): the set of all simple paths is split into disjoint parts, each a
// prefix with some ways on forbidden, and of each part only its first path is kept. Each path yielded splits its part further, so
// that memory grows with the paths yielded and never with the paths there are.
func (g *Graph) paths(ctx context.Context, principal id.Resource, entitlements []id.Entitlement) iter.Seq2[Path, error] {
	return func(yield func(Path, error) bool) {
		r, err := g.backward(ctx, entitlements)
		if err != nil {
			yield(Path{}, err)
			return
		}
		f := newFinder(r, principal, entitlements)
		if f == nil {
			return
		}
		open := &parts{compare: f.compare}
		if first, found := f.solve(part{}); found {
			heap.Push(open, first)
		}
		for open.Len() > 0 {
			if err := ctx.Err(); err != nil {
				yield(Path{}, err)
				return
			}
			p, _ := heap.Pop(open).(part)
			if !yield(f.path(p), nil) {
				return
			}
			for at := p.fixed; at <= len(p.best); at++ {
				rest := part{fixed: at, best: p.best[:at:at]}
				if at == p.fixed {
					rest.forbidden, rest.endForbidden = slices.Clone(p.forbidden), p.endForbidden
				}
				if at == len(p.best) {
					rest.endForbidden = true
				} else {
					rest.forbidden = append(rest.forbidden, p.best[at])
				}
				if solved, found := f.solve(rest); found {
					heap.Push(open, solved)
				}
			}
		}
	}
}

// arc is a step from one entitlement (or from the principal) to the next.
type arc struct {
	to int32
	// act says that taking the step takes an act.
	act bool
	// principal whose grant it is, or -1 for an expansion.
	principal int32
	grant     id.Grant
	expansion *Expansion
}

// part is a set of paths: those that begin with the first fixed arcs of best and do not go on from there by a forbidden arc. best
// is the first of them.
type part struct {
	fixed        int
	forbidden    []arc
	endForbidden bool
	best         []arc
	acts         bool
}

// finder searches one region, cut down to what lies between the principal and the targets.
type finder struct {
	region *region
	// start holds the principal's own grants, next the steps on from each entitlement, in order of ids.
	start []arc
	next  [][]arc
	// previous are the reverse of next: whence, and whether it takes an act.
	previous [][]backArc
	targets  []int32
	isTarget []bool

	// Scratch of solve: a value counts when its mark is the present round.
	round   int32
	blocked []int32
	anyWay  levels
	atOnce  levels
}

type backArc struct {
	from int32
	act  bool
}

// levels are the steps from each entitlement to the nearest target.
type levels struct {
	mark  []int32
	steps []int32
	queue []int32
}

func newFinder(r *region, principal id.Resource, entitlements []id.Entitlement) *finder {
	p, known := r.resource[principal]
	if !known {
		return nil
	}
	n := len(r.entitlements)
	f := &finder{
		region: r, next: make([][]arc, n), previous: make([][]backArc, n), isTarget: make([]bool, n), blocked: make([]int32, n),
		anyWay: levels{mark: make([]int32, n), steps: make([]int32, n)},
		atOnce: levels{mark: make([]int32, n), steps: make([]int32, n)},
	}
	for _, e := range unique(entitlements) {
		if t, known := r.entitlement[e]; known {
			f.targets = append(f.targets, t)
			f.isTarget[t] = true
		}
	}
	reachable := r.reachable(p, true)
	for _, g := range r.grantsFrom[p] {
		f.start = append(f.start, arc{to: g.entitlement, principal: p, grant: g.id})
	}
	f.order(f.start)
	for e := range r.entitlements {
		if reachable[e] == 0 {
			continue
		}
		f.next[e] = f.steps(int32(e)) //nolint:gosec // numbered by int32
		f.order(f.next[e])
		for _, a := range f.next[e] {
			f.previous[a.to] = append(f.previous[a.to], backArc{from: int32(e), act: a.act}) //nolint:gosec // as above
		}
	}
	return f
}

// steps lists the ways on from an entitlement.
func (f *finder) steps(e int32) []arc {
	var out []arc
	for _, x := range f.region.expansionsFrom[e] {
		out = append(out, arc{to: x.to, act: x.expansion.Assumption, principal: -1, expansion: x.expansion})
	}
	holding := f.region.entitlements[e]
	if holding.Purpose != membership && holding.Purpose != assumption {
		return out
	}
	full := holding.Purpose == assumption
	for _, g := range f.region.grantsFrom[f.region.resource[holding.Resource]] {
		if full || !g.notInherited {
			out = append(out, arc{to: g.entitlement, act: full, principal: g.principal, grant: g.id})
		}
	}
	return out
}

func (f *finder) order(arcs []arc) { slices.SortFunc(arcs, f.compare) }

// compare orders steps by the ids of their entitlements, then expansions before grants.
func (f *finder) compare(a, b arc) int {
	return cmp.Or(
		compareIDs(f.region.entitlements[a.to].ID.Bytes(), f.region.entitlements[b.to].ID.Bytes()),
		compareIDs(a.grant.Bytes(), b.grant.Bytes()),
	)
}

// solve finds the first path of a part.
func (f *finder) solve(p part) (part, bool) {
	f.round++
	acts := false
	onward := f.start
	for _, a := range p.best {
		f.blocked[a.to] = f.round
		acts = acts || a.act
	}
	if len(p.best) > 0 {
		end := p.best[len(p.best)-1].to
		if f.isTarget[end] && !p.endForbidden {
			p.acts = acts
			return p, true
		}
		onward = f.next[end]
	}
	allowed := onward[:0:0]
	for _, a := range onward {
		if f.blocked[a.to] != f.round && !slices.ContainsFunc(p.forbidden, func(b arc) bool { return f.compare(a, b) == 0 }) {
			allowed = append(allowed, a)
		}
	}
	shortest, found := f.fill(&f.anyWay, allowed, true)
	if !found {
		return part{}, false
	}
	way := &f.anyWay
	if !acts {
		if without, found := f.fill(&f.atOnce, allowed, false); found && without == shortest {
			way = &f.atOnce
		}
	}
	acts = way == &f.anyWay
	p.best = slices.Clone(p.best)
	for left := shortest; ; left-- {
		for _, a := range allowed {
			if f.blocked[a.to] != f.round && way.mark[a.to] == f.round && way.steps[a.to] == left && (acts || !a.act) {
				p.best = append(p.best, a)
				break
			}
		}
		if left == 0 {
			break
		}
		allowed = f.next[p.best[len(p.best)-1].to]
	}
	p.acts = acts
	return p, true
}

// fill counts, from the targets back and around what is blocked, the steps to a target, level by level until one of the arcs is
// reached; it answers the least number of steps left after such an arc.
func (f *finder) fill(l *levels, arcs []arc, acting bool) (int32, bool) {
	l.queue = l.queue[:0]
	for _, t := range f.targets {
		if f.blocked[t] != f.round {
			l.mark[t], l.steps[t] = f.round, 0
			l.queue = append(l.queue, t)
		}
	}
	least, found := int32(0), false
	goals := make(map[int32]bool, len(arcs))
	for _, a := range arcs {
		if acting || !a.act {
			goals[a.to] = true
		}
	}
	for head := 0; head < len(l.queue); head++ {
		e := l.queue[head]
		if found && l.steps[e] > least {
			break
		}
		if goals[e] && !found {
			least, found = l.steps[e], true
		}
		for _, b := range f.previous[e] {
			if l.mark[b.from] != f.round && f.blocked[b.from] != f.round && (acting || !b.act) {
				l.mark[b.from], l.steps[b.from] = f.round, l.steps[e]+1
				l.queue = append(l.queue, b.from)
			}
		}
	}
	return least, found
}

// path writes a part's first path out.
func (f *finder) path(p part) Path {
	out := Path{Steps: make([]Step, len(p.best))}
	holder := p.best[0].principal
	for i, a := range p.best {
		if a.principal >= 0 {
			holder = a.principal
		}
		out.Steps[i] = Step{
			Principal:   f.region.resources[holder],
			Entitlement: f.region.entitlements[a.to],
			Grant:       a.grant,
			Expansion:   a.expansion,
			Assumption:  a.act && a.expansion != nil,
		}
		if a.act && a.expansion == nil && i > 0 {
			// The act is going on from the entitlement before: taking its resource's place.
			out.Steps[i-1].Assumption = true
		}
		out.Assumption = out.Assumption || a.act
	}
	return out
}

// parts is a heap of parts by their first paths.
type parts struct {
	parts   []part
	compare func(a, b arc) int
}

// Len implements heap.Interface.
func (p *parts) Len() int { return len(p.parts) }

// Swap implements heap.Interface.
func (p *parts) Swap(i, j int) { p.parts[i], p.parts[j] = p.parts[j], p.parts[i] }

// Less implements heap.Interface: shorter first, then those that take no act, then by the ids of the steps.
func (p *parts) Less(i, j int) bool {
	a, b := p.parts[i], p.parts[j]
	if len(a.best) != len(b.best) {
		return len(a.best) < len(b.best)
	}
	if a.acts != b.acts {
		return b.acts
	}
	return slices.CompareFunc(a.best, b.best, p.compare) < 0
}

// Push implements heap.Interface.
func (p *parts) Push(x any) {
	if v, ok := x.(part); ok {
		p.parts = append(p.parts, v)
	}
}

// Pop implements heap.Interface.
func (p *parts) Pop() any {
	last := p.parts[len(p.parts)-1]
	p.parts = p.parts[:len(p.parts)-1]
	return last
}
