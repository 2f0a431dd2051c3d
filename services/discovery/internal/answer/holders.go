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

// Holders answers who has access to a resource: accounts, by name. Groups and roles on the way are not in the list; ExplainAccess
// shows them.
func (a *Answers) Holders(ctx context.Context, req *discoveryv1.ListHoldersRequest) (*discoveryv1.ListHoldersResponse, error) {
	const method = "ListHolders"
	filter := []any{req.GetResource(), req.GetEntitlement(), req.GetAsOf().AsTime()}
	var after byName
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &after); err != nil {
		return nil, err
	}
	var res *discoveryv1.ListHoldersResponse
	var next *byName
	err := a.ask(ctx, req.GetAsOf(), func(ctx context.Context, q *question) error {
		resource, err := q.resource(ctx, req.GetResource())
		if err != nil {
			return err
		}
		targets, err := q.targets(ctx, resource, req.GetEntitlement())
		if err != nil {
			return err
		}
		holdings, err := access.NewGraph(edges{q: q.q, at: q.at}).Holders(ctx, ids(targets))
		if err != nil {
			return err
		}
		accounts, err := q.accounts(ctx, holdings)
		if err != nil {
			return err
		}
		res = &discoveryv1.ListHoldersResponse{Completeness: q.completeness, Accounts: count(len(accounts)), Persons: count(persons(accounts))}
		some, more := pageOf(accounts, after, page.Size(req.GetPageSize()), account.key)
		if next = nil; more {
			next = new(some[len(some)-1].key())
		}
		res.Holders, res.Resource, err = q.holders(ctx, some, holdings, targets, resource)
		return err
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

// targets are the entitlements on a resource, by id: all, or the one of a name. Fails with ErrNoEntitlement.
func (q *question) targets(ctx context.Context, resource id.Resource, name string) (map[id.Entitlement]string, error) {
	on, err := edges{q: q.q, at: q.at}.EntitlementsOn(ctx, []id.Resource{resource})
	if err != nil {
		return nil, err
	}
	out := make(map[id.Entitlement]string, len(on))
	var known []string
	for _, e := range on {
		known = append(known, e.Name)
		if name == "" || e.Name == name {
			out[e.ID] = e.Name
		}
	}
	if name != "" && len(out) == 0 {
		slices.Sort(known)
		if len(known) > mostCandidates {
			known = append(known[:mostCandidates], "…")
		}
		return nil, ErrNoEntitlement.With("no entitlement %q was found on the resource; there is: %s", name, cmp.Or(strings.Join(known, ", "), "none"))
	}
	return out, nil
}

// account is an account among holders, by what a list of holders is ordered by.
type account struct {
	id     id.Resource
	name   string
	person id.Person
}

// byName is a place in a list that is ordered by name.
type byName struct {
	Name string      `json:"name"`
	ID   id.Resource `json:"id"`
}

func (b byName) compare(c byName) int {
	x, y := b.ID.Bytes(), c.ID.Bytes()
	return cmp.Or(strings.Compare(b.Name, c.Name), slices.Compare(x[:], y[:]))
}

func (a account) key() byName { return byName{Name: a.name, ID: a.id} }

// accounts are those of the holders that can act, by name.
func (q *question) accounts(ctx context.Context, holdings []access.Holding) ([]account, error) {
	holders := make([]id.Resource, len(holdings))
	for i, h := range holdings {
		holders[i] = h.Principal
	}
	out, err := inBatches(holders, func(ids []pgtype.UUID) ([]account, error) {
		rows, err := q.q.Accounts(ctx, store.AccountsParams{Ids: ids, At: q.at})
		return each(rows, err, func(r store.AccountsRow) account {
			return account{id: r.ID, name: strings.ToLower(cmp.Or(r.DisplayName, r.ExternalID)), person: r.PersonID}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the accounts of holders: %w", err)
	}
	slices.SortFunc(out, func(a, b account) int { return a.key().compare(b.key()) })
	return out, nil
}

func persons(accounts []account) int {
	seen := map[id.Person]bool{}
	for _, a := range accounts {
		if !a.person.IsZero() {
			seen[a.person] = true
		}
	}
	return len(seen)
}

// holders are the accounts of a page with what they hold, and the resource that was asked about.
func (q *question) holders(ctx context.Context, accounts []account, holdings []access.Holding, targets map[id.Entitlement]string, resource id.Resource) ([]*discoveryv1.Holder, *discoveryv1.ResourceView, error) {
	show := []id.Resource{resource}
	held := make(map[id.Resource][]*discoveryv1.HeldEntitlement, len(accounts))
	for _, a := range accounts {
		show = append(show, a.id)
		held[a.id] = nil
	}
	for _, h := range holdings {
		if _, shown := held[h.Principal]; shown {
			held[h.Principal] = append(held[h.Principal], heldEntitlement(targets[h.Entitlement], h))
		}
	}
	v, err := q.views(ctx, show)
	if err != nil {
		return nil, nil, err
	}
	out := make([]*discoveryv1.Holder, len(accounts))
	for i, a := range accounts {
		sortHeld(held[a.id])
		out[i] = &discoveryv1.Holder{Account: v.of(a.id), Entitlements: held[a.id]}
	}
	return out, v.of(resource), nil
}

func heldEntitlement(name string, h access.Holding) *discoveryv1.HeldEntitlement {
	return &discoveryv1.HeldEntitlement{Entitlement: name, Assumption: h.Assumption, Direct: h.Direct, Distance: count(h.Distance)}
}

func sortHeld(held []*discoveryv1.HeldEntitlement) {
	slices.SortFunc(held, func(a, b *discoveryv1.HeldEntitlement) int {
		return strings.Compare(a.GetEntitlement(), b.GetEntitlement())
	})
}

// pageOf is the page of a sorted list after a place (zero: from the start), and whether there is more.
func pageOf[T any](all []T, after byName, size int32, key func(T) byName) (some []T, more bool) {
	from := 0
	if !after.ID.IsZero() {
		from, _ = slices.BinarySearchFunc(all, after, func(x T, place byName) int {
			if key(x).compare(place) <= 0 {
				return -1
			}
			return 1
		})
	}
	to := min(from+int(size), len(all))
	return all[from:to], to < len(all)
}

func ids[K comparable, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// count is n as the API has it; nothing counted here comes near the bound.
func count(n int) int32 { return int32(min(n, 1<<31-1)) } //nolint:gosec // bounded
