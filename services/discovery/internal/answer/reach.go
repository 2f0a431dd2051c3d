package answer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/services/discovery/internal/store"
)

// Reaches answers everything that a principal reaches, by resource, in the order of types and names.
func (a *Answers) Reaches(ctx context.Context, req *discoveryv1.ListAccessRequest) (*discoveryv1.ListAccessResponse, error) {
	const method = "ListAccess"
	filter := []any{req.GetPrincipal(), req.GetAsOf().AsTime()}
	var from place[byName]
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &from); err != nil {
		return nil, err
	}
	var res *discoveryv1.ListAccessResponse
	var next *place[byName]
	err := a.ask(ctx, req.GetAsOf(), from.At, func(ctx context.Context, q *question) error {
		principals, err := q.principals(ctx, req.GetPrincipal())
		if err != nil {
			return err
		}
		key := keptKey(ctx, q, method, "", principals...)
		all, found := a.kept.get(key).(reaches)
		if !found {
			if all, err = a.reaches(ctx, q, principals); err != nil {
				return err
			}
			a.kept.put(key, all, all.size())
		}
		some, more := pageOf(all, from.After, page.Size(req.GetPageSize()), reached.key)
		if next = nil; more {
			next = &place[byName]{At: q.at, After: some[len(some)-1].key()}
		}
		show := slices.Clone(principals)
		for _, r := range some {
			show = append(show, r.id)
		}
		v, err := q.views(ctx, show)
		if err != nil {
			return err
		}
		res = &discoveryv1.ListAccessResponse{Completeness: q.completeness}
		for _, p := range principals {
			res.Principals = append(res.Principals, v.of(p))
		}
		for _, r := range some {
			res.Reaches = append(res.Reaches, &discoveryv1.Reach{Resource: v.of(r.id), Entitlements: showHeld(r.held)})
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
	held []held
}

func (r reached) key() byName { return byName{Name: r.name, ID: r.id} }

// reaches is the answer to what is reached, whole, in order.
type reaches []reached

func (r reaches) size() int {
	const one, oneHeld = 80, 40
	size := one
	for _, a := range r {
		size += one + len(a.name) + len(a.held)*oneHeld
	}
	return size
}

// reaches works out what principals reach, by resource.
func (a *Answers) reaches(ctx context.Context, q *question, principals []id.Resource) (reaches, error) {
	graph, done := a.memory.graph(edges{q: q.q, at: q.at})
	defer done()
	holdings, err := graph.Holds(ctx, principals)
	if err != nil {
		return nil, err
	}
	joined := map[id.Entitlement]access.Holding{}
	for _, h := range holdings {
		joined[h.Entitlement] = nearer(joined, h)
	}
	names, err := q.entitlements(ctx, ids(joined))
	if err != nil {
		return nil, err
	}
	by := map[id.Resource][]held{}
	for e, h := range joined {
		by[names[e].resource] = append(by[names[e].resource], holding(names[e].name, h))
	}
	order, err := q.order(ctx, ids(by))
	if err != nil {
		return nil, err
	}
	out := make(reaches, 0, len(by))
	for r, h := range by {
		sortHeld(h)
		out = append(out, reached{id: r, name: order[r], held: h})
	}
	slices.SortFunc(out, func(a, b reached) int { return a.key().compare(b.key()) })
	return out, nil
}

// order is what resources are ordered by: type, then name.
func (q *question) order(ctx context.Context, resources []id.Resource) (map[id.Resource]string, error) {
	rows, err := inBatches(resources, func(ids []pgtype.UUID) ([]store.ResourceNamesRow, error) {
		return q.q.ResourceNames(ctx, store.ResourceNamesParams{Ids: ids, At: q.at})
	})
	if err != nil {
		return nil, fmt.Errorf("read the names of resources: %w", err)
	}
	out := make(map[id.Resource]string, len(rows))
	for _, r := range rows {
		out[r.ID] = r.Type + "\x00" + strings.ToLower(cmp.Or(r.DisplayName, r.ExternalID))
	}
	return out, nil
}

// nearer joins what several accounts of one person hold: one that holds at once, or directly, is enough, and since when is said of the
// ways that count.
func nearer(joined map[id.Entitlement]access.Holding, h access.Holding) access.Holding {
	o, known := joined[h.Entitlement]
	if !known {
		return h
	}
	switch {
	case h.Assumption == o.Assumption:
		h.Since = min(h.Since, o.Since)
	case h.Assumption:
		h.Since = o.Since
	}
	h.Assumption = h.Assumption && o.Assumption
	h.Direct = h.Direct || o.Direct
	h.Distance = min(h.Distance, o.Distance)
	return h
}
