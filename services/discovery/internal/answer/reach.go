package answer

import (
	"context"
	"slices"
	"strings"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
)

// Reaches answers everything that a principal reaches, by resource, in the order of types and names.
func (a *Answers) Reaches(ctx context.Context, req *discoveryv1.ListAccessRequest) (*discoveryv1.ListAccessResponse, error) {
	const method = "ListAccess"
	filter := []any{req.GetPrincipal(), req.GetAsOf().AsTime()}
	var after byName
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &after); err != nil {
		return nil, err
	}
	var res *discoveryv1.ListAccessResponse
	var next *byName
	err := a.ask(ctx, req.GetAsOf(), func(ctx context.Context, q *question) error {
		principals, err := q.principals(ctx, req.GetPrincipal())
		if err != nil {
			return err
		}
		holdings, err := access.NewGraph(edges{q: q.q, at: q.at}).Holds(ctx, principals)
		if err != nil {
			return err
		}
		res = &discoveryv1.ListAccessResponse{Completeness: q.completeness}
		all, v, err := q.reaches(ctx, holdings, principals)
		if err != nil {
			return err
		}
		for _, p := range principals {
			res.Principals = append(res.Principals, v.of(p))
		}
		some, more := pageOf(all, after, page.Size(req.GetPageSize()), reached.key)
		if next = nil; more {
			next = new(some[len(some)-1].key())
		}
		for _, r := range some {
			sortHeld(r.held)
			res.Reaches = append(res.Reaches, &discoveryv1.Reach{Resource: v.of(r.id), Entitlements: r.held})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if next != nil {
		if res.NextPageToken, err = a.pages.Seal(ctx, method, filter, next); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// reached is a resource that is reached.
type reached struct {
	id   id.Resource
	name string
	held []*discoveryv1.HeldEntitlement
}

func (r reached) key() byName { return byName{Name: r.name, ID: r.id} }

// reaches are what is held by resource, in order, and views of all resources that the answer names.
func (q *question) reaches(ctx context.Context, holdings []access.Holding, principals []id.Resource) ([]reached, views, error) {
	held := map[id.Entitlement]access.Holding{}
	for _, h := range holdings {
		held[h.Entitlement] = nearer(held, h)
	}
	names, err := q.entitlements(ctx, ids(held))
	if err != nil {
		return nil, nil, err
	}
	by := map[id.Resource][]*discoveryv1.HeldEntitlement{}
	for e, h := range held {
		by[names[e].resource] = append(by[names[e].resource], heldEntitlement(names[e].name, h))
	}
	v, err := q.views(ctx, append(ids(by), principals...))
	if err != nil {
		return nil, nil, err
	}
	out := make([]reached, 0, len(by))
	for r, h := range by {
		out = append(out, reached{id: r, name: v.of(r).GetType() + "\x00" + strings.ToLower(shown(v.of(r))), held: h})
	}
	slices.SortFunc(out, func(a, b reached) int { return a.key().compare(b.key()) })
	return out, v, nil
}

// nearer joins what several accounts of one person hold: one that holds at once, or directly, is enough.
func nearer(held map[id.Entitlement]access.Holding, h access.Holding) access.Holding {
	o, known := held[h.Entitlement]
	if !known {
		return h
	}
	h.Assumption = h.Assumption && o.Assumption
	h.Direct = h.Direct || o.Direct
	h.Distance = min(h.Distance, o.Distance)
	return h
}

func shown(v *discoveryv1.ResourceView) string {
	if v.GetDisplayName() != "" {
		return v.GetDisplayName()
	}
	return v.GetExternalId()
}
