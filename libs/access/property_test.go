package access_test

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// world is a random graph in the plainest form: resources and entitlements are small numbers.
type world struct {
	resources    int
	on           []int // by entitlement: its resource
	purpose      []discoveryv1.EntitlementPurpose
	grants       map[[2]int]bool // principal, entitlement: not inherited
	expansions   map[[2]int]bool // from, to: takes an act
	memory       *accesstest.Memory
	resourceOf   map[id.Resource]int
	entitlements map[id.Entitlement]int
}

func (w *world) ref(r int) *discoveryv1.ResourceRef {
	return accesstest.Ref("thing", fmt.Sprintf("%c", 'a'+r))
}

func (w *world) entitlementRef(e int) *discoveryv1.EntitlementRef {
	return accesstest.On(w.ref(w.on[e]), fmt.Sprintf("e%d", e))
}

func (w *world) resourceID(r int) id.Resource {
	return w.memory.Resource("thing", w.ref(r).GetExternalId())
}

func (w *world) entitlementID(e int) id.Entitlement {
	return w.memory.Entitlement("thing", w.ref(w.on[e]).GetExternalId(), fmt.Sprintf("e%d", e))
}

func drawWorld(t *rapid.T, entitlements int) *world {
	w := &world{resources: rapid.IntRange(1, 6).Draw(t, "resources"), grants: map[[2]int]bool{}, expansions: map[[2]int]bool{}}
	purposes := []discoveryv1.EntitlementPurpose{accesstest.Permission, accesstest.Membership, accesstest.Assumption}
	for range rapid.IntRange(1, entitlements).Draw(t, "entitlements") {
		w.on = append(w.on, rapid.IntRange(0, w.resources-1).Draw(t, "on"))
		w.purpose = append(w.purpose, rapid.SampledFrom(purposes).Draw(t, "purpose"))
	}
	for range rapid.IntRange(0, 12).Draw(t, "grants") {
		g := [2]int{rapid.IntRange(0, w.resources-1).Draw(t, "principal"), rapid.IntRange(0, len(w.on)-1).Draw(t, "entitlement")}
		w.grants[g] = rapid.Bool().Draw(t, "not inherited")
	}
	for range rapid.IntRange(0, 6).Draw(t, "expansions") {
		x := [2]int{rapid.IntRange(0, len(w.on)-1).Draw(t, "from"), rapid.IntRange(0, len(w.on)-1).Draw(t, "to")}
		w.expansions[x] = rapid.Bool().Draw(t, "act")
	}
	w.memory = accesstest.NewMemory(id.NewIntegration())
	for e := range w.on {
		w.memory.Add(accesstest.Entitlement(w.entitlementRef(e), w.purpose[e]))
	}
	for g, notInherited := range w.grants {
		w.memory.Add(accesstest.Grant(w.ref(g[0]), w.entitlementRef(g[1]), notInherited))
	}
	for x, act := range w.expansions {
		w.memory.Add(accesstest.Expansion(w.entitlementRef(x[0]), w.entitlementRef(x[1]), act, "because"))
	}
	w.resourceOf, w.entitlements = map[id.Resource]int{}, map[id.Entitlement]int{}
	for r := range w.resources {
		w.resourceOf[w.resourceID(r)] = r
	}
	for e := range w.on {
		w.entitlements[w.entitlementID(e)] = e
	}
	return w
}

// fact says that a principal holds an entitlement, by acting or at once.
type fact struct {
	principal, entitlement int
	acting                 bool
}

// fixpoint applies the four rules of the package's doc comment, word by word, until nothing is new.
func (w *world) fixpoint() map[fact]bool {
	facts := map[fact]bool{}
	for g := range w.grants {
		facts[fact{g[0], g[1], false}] = true
	}
	for {
		before := len(facts)
		for f := range maps.Clone(facts) {
			held := w.on[f.entitlement]
			for g, notInherited := range w.grants {
				if w.purpose[f.entitlement] == accesstest.Membership && g[0] == held && !notInherited {
					facts[fact{f.principal, g[1], f.acting}] = true
				}
			}
			if w.purpose[f.entitlement] == accesstest.Assumption {
				for theirs := range maps.Clone(facts) {
					if theirs.principal == held {
						facts[fact{f.principal, theirs.entitlement, true}] = true
					}
				}
			}
			for x, act := range w.expansions {
				if x[0] == f.entitlement {
					facts[fact{f.principal, x[1], f.acting || act}] = true
				}
			}
		}
		if len(facts) == before {
			return facts
		}
	}
}

func (w *world) checkHoldings(t *rapid.T, what string, holdings []access.Holding, facts map[fact]bool, principals, entitlements []int) {
	seen := map[[2]int]bool{}
	for i, h := range holdings {
		p, e := w.resourceOf[h.Principal], w.entitlements[h.Entitlement]
		if seen[[2]int{p, e}] {
			t.Fatalf("%s answers %d holding %d twice", what, p, e)
		}
		seen[[2]int{p, e}] = true
		if !facts[fact{p, e, false}] && !facts[fact{p, e, true}] {
			t.Fatalf("%s answers that %d holds %d, which no rule says", what, p, e)
		}
		if h.Assumption == facts[fact{p, e, false}] {
			t.Fatalf("%s answers assumption %v of %d holding %d", what, h.Assumption, p, e)
		}
		if _, direct := w.grants[[2]int{p, e}]; direct != h.Direct {
			t.Fatalf("%s answers direct %v of %d holding %d", what, h.Direct, p, e)
		}
		if i > 0 && holdings[i-1].Distance > h.Distance {
			t.Fatalf("%s answers the farther first", what)
		}
	}
	for f := range facts {
		if slices.Contains(principals, f.principal) && slices.Contains(entitlements, f.entitlement) && !seen[[2]int{f.principal, f.entitlement}] {
			t.Fatalf("%s leaves out that %d holds %d", what, f.principal, f.entitlement)
		}
	}
}

func TestHoldingsAreTheFixpointOfTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 9)
		facts := w.fixpoint()
		graph := access.NewGraph(w.memory)
		everyone, everything := numbers(w.resources), numbers(len(w.on))

		holds, err := graph.Holds(t.Context(), collect(everyone, w.resourceID))
		if err != nil {
			t.Fatal(err)
		}
		w.checkHoldings(t, "Holds", holds, facts, everyone, everything)
		one := rapid.SampledFrom(everyone).Draw(t, "principal")
		holds, err = graph.Holds(t.Context(), []id.Resource{w.resourceID(one)})
		if err != nil {
			t.Fatal(err)
		}
		w.checkHoldings(t, "Holds of one", holds, facts, []int{one}, everything)

		holders, err := graph.Holders(t.Context(), collect(everything, w.entitlementID))
		if err != nil {
			t.Fatal(err)
		}
		w.checkHoldings(t, "Holders", holders, facts, everyone, everything)
		target := rapid.SampledFrom(everything).Draw(t, "target")
		holders, err = graph.Holders(t.Context(), []id.Entitlement{w.entitlementID(target)})
		if err != nil {
			t.Fatal(err)
		}
		w.checkHoldings(t, "Holders of one", holders, facts, everyone, []int{target})
	})
}

// TestPathsAreAllSimplePathsInOrder lists all simple paths of small graphs by brute force and sorts them by the promise.
func TestPathsAreAllSimplePathsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 7)
		principal := rapid.IntRange(0, w.resources-1).Draw(t, "principal")
		targets := unique(rapid.SliceOfN(rapid.IntRange(0, len(w.on)-1), 1, 3).Draw(t, "targets"))
		graph := access.NewGraph(w.memory)

		var want []string
		for _, p := range w.simplePaths(principal, targets) {
			want = append(want, p.text)
		}
		var got []string
		shortest := map[id.Entitlement]int{}
		for p, err := range graph.Paths(t.Context(), w.resourceID(principal), collect(targets, w.entitlementID)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, w.text(p))
			last := p.Steps[len(p.Steps)-1].Entitlement.ID
			if _, known := shortest[last]; !known {
				shortest[last] = len(p.Steps)
			}
			if slices.ContainsFunc(p.Steps, func(s access.Step) bool { return s.Assumption }) != p.Assumption {
				t.Fatalf("path %s: the steps and the path differ on whether it takes an act", w.text(p))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("paths differ\n got %q\nwant %q", got, want)
		}
		holds, err := graph.Holds(t.Context(), []id.Resource{w.resourceID(principal)})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range holds {
			if slices.Contains(targets, w.entitlements[h.Entitlement]) && shortest[h.Entitlement] != h.Distance {
				t.Fatalf("distance %d, shortest path %d", h.Distance, shortest[h.Entitlement])
			}
		}
	})
}

// walked is a path found by brute force.
type walked struct {
	keys [][]byte
	acts bool
	text string
}

func (w *world) text(p access.Path) string {
	out := fmt.Sprintf("%v", p.Assumption)
	for _, s := range p.Steps {
		out += fmt.Sprintf(" %d:%d:%v", w.resourceOf[s.Principal], w.entitlements[s.Entitlement.ID], s.Grant.IsZero())
	}
	return out
}

func (w *world) simplePaths(principal int, targets []int) []walked {
	var out []walked
	var walk func(path []int, full bool, at int, holder int, keys [][]byte, acts bool, text string)
	walk = func(path []int, full bool, at, holder int, keys [][]byte, acts bool, text string) {
		if len(path) > 0 && slices.Contains(targets, path[len(path)-1]) {
			out = append(out, walked{keys: slices.Clone(keys), acts: acts, text: fmt.Sprintf("%v%s", acts, text)})
		}
		step := func(e int, act bool, by int, grant id.Grant) {
			if slices.Contains(path, e) {
				return
			}
			eb, gb := w.entitlementID(e).Bytes(), grant.Bytes()
			next, isFull := -1, false
			switch w.purpose[e] {
			case accesstest.Membership:
				next = w.on[e]
			case accesstest.Assumption:
				next, isFull = w.on[e], true
			default:
			}
			walk(append(slices.Clone(path), e), isFull, next, by, append(slices.Clone(keys), slices.Concat(eb[:], gb[:])), acts || act,
				fmt.Sprintf("%s %d:%d:%v", text, by, e, grant.IsZero()))
		}
		if at >= 0 {
			for g, notInherited := range w.grants {
				if g[0] == at && (full || !notInherited) {
					step(g[1], len(path) > 0 && full, at, access.GrantID(w.resourceID(at), w.entitlementID(g[1])))
				}
			}
		}
		if len(path) > 0 {
			for x, act := range w.expansions {
				if x[0] == path[len(path)-1] {
					step(x[1], act, holder, id.Grant{})
				}
			}
		}
	}
	walk(nil, true, principal, principal, nil, false, "")
	slices.SortFunc(out, func(a, b walked) int {
		acts := map[bool]int{true: 1}
		return cmp.Or(cmp.Compare(len(a.keys), len(b.keys)), acts[a.acts]-acts[b.acts], slices.CompareFunc(a.keys, b.keys, bytes.Compare))
	})
	return out
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func collect[T any](from []int, f func(int) T) []T {
	return slices.Collect(func(yield func(T) bool) {
		for _, n := range from {
			if !yield(f(n)) {
				return
			}
		}
	})
}

func unique(in []int) []int {
	slices.Sort(in)
	return slices.Compact(in)
}
