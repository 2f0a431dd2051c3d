package access_test

import (
	"context"
	"testing"

	"pgregory.net/rapid"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
)

// timed are edges that were seen first at one of a few times, those of them that had been seen by then.
type timed struct {
	access.Edges
	times int
	then  access.Instant
}

func (e timed) of(b [16]byte) access.Instant { return access.Instant(1 + int(b[0]^b[15])%e.times) }

func by[K, V any](ask func(context.Context, []K) ([]V, error), ctx context.Context, keys []K, then access.Instant, since func(*V) access.Instant) ([]V, error) {
	all, err := ask(ctx, keys)
	var out []V
	for _, v := range all {
		if since(&v) <= then {
			out = append(out, v)
		}
	}
	return out, err
}

func (e timed) grant(g *access.Grant) access.Instant { g.Since = e.of(g.ID.Bytes()); return g.Since }

func (e timed) expansion(x *access.Expansion) access.Instant {
	from, to := x.From.Bytes(), x.To.Bytes()
	x.Since = e.of([16]byte{0: from[3], 15: to[7]})
	return x.Since
}

func (e timed) entitlement(n *access.Entitlement) access.Instant {
	b := n.ID.Bytes()
	n.Since = e.of([16]byte{0: b[5], 15: b[9]})
	return n.Since
}

func (e timed) GrantsFrom(ctx context.Context, k []id.Resource) ([]access.Grant, error) {
	return by(e.Edges.GrantsFrom, ctx, k, e.then, e.grant)
}

func (e timed) GrantsTo(ctx context.Context, k []id.Entitlement) ([]access.Grant, error) {
	return by(e.Edges.GrantsTo, ctx, k, e.then, e.grant)
}

func (e timed) ExpansionsFrom(ctx context.Context, k []id.Entitlement) ([]access.Expansion, error) {
	return by(e.Edges.ExpansionsFrom, ctx, k, e.then, e.expansion)
}

func (e timed) ExpansionsTo(ctx context.Context, k []id.Entitlement) ([]access.Expansion, error) {
	return by(e.Edges.ExpansionsTo, ctx, k, e.then, e.expansion)
}

func (e timed) Entitlements(ctx context.Context, k []id.Entitlement) ([]access.Entitlement, error) {
	return by(e.Edges.Entitlements, ctx, k, e.then, e.entitlement)
}

func (e timed) EntitlementsOn(ctx context.Context, k []id.Resource) ([]access.Entitlement, error) {
	return by(e.Edges.EntitlementsOn, ctx, k, e.then, e.entitlement)
}

type heldKey struct {
	principal   id.Resource
	entitlement id.Entitlement
}

// TestSinceIsTheFirstTimeAtWhichThatWasHeld asks the graph again at every time: what is held since a time is held, in the same way, by
// the edges seen by then, and not by those seen before.
func TestSinceIsTheFirstTimeAtWhichThatWasHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 9)
		times := rapid.IntRange(1, 4).Draw(t, "times")
		principals, entitlements := collect(numbers(w.resources), w.resourceID), collect(numbers(len(w.on)), w.entitlementID)
		ask := map[string]func(*access.Graph) ([]access.Holding, error){
			"Holds":   func(g *access.Graph) ([]access.Holding, error) { return g.Holds(t.Context(), principals) },
			"Holders": func(g *access.Graph) ([]access.Holding, error) { return g.Holders(t.Context(), entitlements) },
		}
		for name, question := range ask {
			// The first time at which it was held at all, and at once.
			any, once := map[heldKey]access.Instant{}, map[heldKey]access.Instant{}
			var last []access.Holding
			for then := access.Instant(1); int(then) <= times; then++ {
				held, err := question(access.NewGraph(timed{w.memory, times, then}))
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range held {
					k := heldKey{h.Principal, h.Entitlement}
					if any[k] == 0 {
						any[k] = then
					}
					if once[k] == 0 && !h.Assumption {
						once[k] = then
					}
				}
				last = held
			}
			for _, h := range last {
				k := heldKey{h.Principal, h.Entitlement}
				want := any[k]
				if !h.Assumption {
					want = once[k]
				}
				if h.Since != want {
					t.Fatalf("%s: %v holds %v (by acting: %v) since %d, want %d", name, h.Principal, h.Entitlement, h.Assumption, h.Since, want)
				}
			}
		}
	})
}
