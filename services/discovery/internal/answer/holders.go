package answer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/scope"
	"a3os.app/services/discovery/internal/store"
)

// Holders answers who has access to a resource: accounts, by name. Groups and roles on the way are not in the list; ExplainAccess
// shows them.
func (a *Answers) Holders(ctx context.Context, req *discoveryv1.ListHoldersRequest) (*discoveryv1.ListHoldersResponse, error) {
	const method = "ListHolders"
	filter := []any{req.GetResource(), req.GetEntitlement(), req.GetAsOf().AsTime()}
	var from place[byName]
	if err := a.pages.Open(ctx, method, filter, req.GetPageToken(), &from); err != nil {
		return nil, err
	}
	var res *discoveryv1.ListHoldersResponse
	var next *place[byName]
	err := a.ask(ctx, req.GetAsOf(), from.At, func(ctx context.Context, q *question) error {
		resource, err := q.resource(ctx, req.GetResource())
		if err != nil {
			return err
		}
		key := keptKey(ctx, q, method, req.GetEntitlement(), resource)
		all, found := a.kept.get(key).(*holders)
		if !found {
			if all, err = a.holders(ctx, q, resource, req.GetEntitlement()); err != nil {
				return err
			}
			a.kept.put(key, all, all.size())
		}
		res = &discoveryv1.ListHoldersResponse{Completeness: q.completeness, Accounts: count(len(all.accounts)), Persons: count(all.persons)}
		some, more := pageOf(all.accounts, from.After, page.Size(req.GetPageSize()), holder.key)
		if next = nil; more {
			next = &place[byName]{At: q.at, After: some[len(some)-1].key()}
		}
		res.Holders, res.Resource, err = q.showHolders(ctx, some, resource)
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

// keptKey is what an answer is kept under: whose it is, what was asked, of what, and on which publication it stands.
func keptKey(ctx context.Context, q *question, method, detail string, of ...id.Resource) string {
	s, err := scope.InWorkspace(ctx)
	if err != nil || q.at == nil {
		return ""
	}
	return fmt.Sprintf("%s %s %d %v %q", s.Workspace, method, q.at.UnixMicro(), of, detail)
}

// holders is the answer to who has access, whole.
type holders struct {
	accounts []holder // by name
	persons  int
}

func (h *holders) size() int {
	const one, oneHeld = 96, 40
	size := one
	for _, a := range h.accounts {
		size += one + len(a.name) + len(a.held)*oneHeld
	}
	return size
}

// holder is an account and what it holds on the resource.
type holder struct {
	id     id.Resource
	name   string
	person id.Person
	held   []held
}

func (h holder) key() byName { return byName{Name: h.name, ID: h.id} }

// held is an entitlement that is held.
type held struct {
	name               string
	since              access.Instant
	distance           int32
	assumption, direct bool
}

func holding(name string, h access.Holding) held {
	return held{name: name, since: h.Since, distance: count(h.Distance), assumption: h.Assumption, direct: h.Direct}
}

// holders works out who has access to a resource.
func (a *Answers) holders(ctx context.Context, q *question, resource id.Resource, entitlement string) (*holders, error) {
	targets, err := q.targets(ctx, resource, entitlement)
	if err != nil {
		return nil, err
	}
	graph, done := a.memory.graph(edges{q: q.q, at: q.at})
	defer done()
	holdings, err := graph.Holders(ctx, ids(targets))
	if err != nil {
		return nil, err
	}
	accounts, err := q.accounts(ctx, holdings)
	if err != nil {
		return nil, err
	}
	at := make(map[id.Resource]int, len(accounts))
	for i, acc := range accounts {
		at[acc.id] = i
	}
	for _, h := range holdings {
		if i, shown := at[h.Principal]; shown {
			accounts[i].held = append(accounts[i].held, holding(targets[h.Entitlement], h))
		}
	}
	for _, acc := range accounts {
		sortHeld(acc.held)
	}
	return &holders{accounts: accounts, persons: persons(accounts)}, nil
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

// byName is a place in a list that is ordered by name.
type byName struct {
	Name string      `json:"name"`
	ID   id.Resource `json:"id"`
}

func (b byName) compare(c byName) int {
	x, y := b.ID.Bytes(), c.ID.Bytes()
	return cmp.Or(strings.Compare(b.Name, c.Name), slices.Compare(x[:], y[:]))
}

// accounts are those of the holders that can act, by name.
func (q *question) accounts(ctx context.Context, holdings []access.Holding) ([]holder, error) {
	principals := make([]id.Resource, len(holdings))
	for i, h := range holdings {
		principals[i] = h.Principal
	}
	out, err := inBatches(principals, func(ids []pgtype.UUID) ([]holder, error) {
		rows, err := q.q.Accounts(ctx, store.AccountsParams{Ids: ids, At: q.at})
		return each(rows, err, func(r store.AccountsRow) holder {
			h := holder{id: r.ID, name: strings.ToLower(cmp.Or(r.DisplayName, r.ExternalID))}
			if r.PersonID.Valid {
				h.person = id.FromBytes[id.PersonKind](r.PersonID.Bytes)
			}
			return h
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the accounts of holders: %w", err)
	}
	slices.SortFunc(out, func(a, b holder) int { return a.key().compare(b.key()) })
	return out, nil
}

func persons(accounts []holder) int {
	seen := map[id.Person]bool{}
	for _, a := range accounts {
		if !a.person.IsZero() {
			seen[a.person] = true
		}
	}
	return len(seen)
}

// showHolders are the accounts of a page as they are shown, and the resource that was asked about.
func (q *question) showHolders(ctx context.Context, accounts []holder, resource id.Resource) ([]*discoveryv1.Holder, *discoveryv1.ResourceView, error) {
	show := []id.Resource{resource}
	for _, a := range accounts {
		show = append(show, a.id)
	}
	v, err := q.views(ctx, show)
	if err != nil {
		return nil, nil, err
	}
	out := make([]*discoveryv1.Holder, len(accounts))
	for i, a := range accounts {
		out[i] = &discoveryv1.Holder{Account: v.of(a.id), Entitlements: showHeld(a.held)}
	}
	return out, v.of(resource), nil
}

func showHeld(all []held) []*discoveryv1.HeldEntitlement {
	out := make([]*discoveryv1.HeldEntitlement, len(all))
	for i, h := range all {
		out[i] = &discoveryv1.HeldEntitlement{Entitlement: h.name, Assumption: h.assumption, Direct: h.direct, Distance: h.distance,
			Since: timestamppb.New(time.UnixMicro(int64(h.since)))}
	}
	return out
}

func sortHeld(all []held) {
	slices.SortFunc(all, func(a, b held) int { return strings.Compare(a.name, b.name) })
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
