package answer

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

const (
	// mostNamed bounds how many resources of one name are looked at, and mostCandidates how many an error tells.
	mostNamed      = 1000
	mostCandidates = 10
)

// resource finds the resource that a text names: `res_…`, its id in the system, its name shown, an account's address or login, and
// where that names several, `type:name` or `integration/type:name`. Fails with ErrNoResource or ErrAmbiguous.
func (q *question) resource(ctx context.Context, text string) (id.Resource, error) {
	found, err := q.named(ctx, text)
	if err != nil {
		return id.Resource{}, err
	}
	if len(found) > 1 {
		return id.Resource{}, q.ambiguous(text, found)
	}
	return found[0].ID, nil
}

// principals finds the accounts that a text names: one account (or group, or role) as resource does, or all accounts of a person,
// named by `per_…`, by address, or by a name that only accounts of that person go by. Where accounts go by the name, groups and others
// that do are passed over.
func (q *question) principals(ctx context.Context, text string) ([]id.Resource, error) {
	if p, err := id.ParsePerson(text); err == nil {
		accounts, err := q.accountsOf(ctx, p)
		if err != nil {
			return nil, err
		}
		if len(accounts) == 0 {
			return nil, ErrNoPerson
		}
		return accounts, nil
	}
	if strings.Contains(text, "@") && !strings.ContainsRune(text, 0) {
		p, err := q.q.PersonByKey(ctx, text)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, fmt.Errorf("look for a person: %w", err)
		}
		if err == nil {
			// Who had no account at the time asked about may go by the address all the same.
			if accounts, err := q.accountsOf(ctx, p); err != nil || len(accounts) > 0 {
				return accounts, err
			}
		}
	}
	found, err := q.named(ctx, text)
	if err != nil {
		return nil, err
	}
	if accounts := slices.DeleteFunc(slices.Clone(found), func(r store.ResourcesNamedRow) bool { return !r.Account }); len(accounts) > 0 {
		found = accounts
	}
	if len(found) == 1 {
		return []id.Resource{found[0].ID}, nil
	}
	person, err := q.onlyPerson(ctx, found)
	if err != nil {
		return nil, err
	}
	if person.IsZero() {
		return nil, q.ambiguous(text, found)
	}
	return q.accountsOf(ctx, person)
}

// accountsOf are the accounts that were a person's at the time.
func (q *question) accountsOf(ctx context.Context, person id.Person) ([]id.Resource, error) {
	accounts, err := q.q.AccountsOfPerson(ctx, store.AccountsOfPersonParams{PersonID: person, At: q.at})
	if err != nil {
		return nil, fmt.Errorf("read the accounts of a person: %w", err)
	}
	return accounts, nil
}

// onlyPerson is the person that all of these belong to; zero where they don't.
func (q *question) onlyPerson(ctx context.Context, found []store.ResourcesNamedRow) (id.Person, error) {
	ids := make([]id.Resource, len(found))
	for i, r := range found {
		ids[i] = r.ID
	}
	v, err := q.views(ctx, ids)
	if err != nil {
		return id.Person{}, err
	}
	first := v.of(ids[0]).GetPerson().GetId()
	if first == "" || slices.ContainsFunc(ids, func(i id.Resource) bool { return v.of(i).GetPerson().GetId() != first }) {
		return id.Person{}, nil
	}
	return id.ParsePerson(first)
}

// named answers the resources that a text names, at least one. Fails with ErrNoResource.
func (q *question) named(ctx context.Context, text string) ([]store.ResourcesNamedRow, error) {
	if r, err := id.ParseResource(text); err == nil {
		v, err := q.views(ctx, []id.Resource{r})
		if err != nil {
			return nil, err
		}
		if v[r] == nil {
			return nil, ErrNoResource
		}
		return []store.ResourcesNamedRow{{ID: r, Account: v[r].GetAccount()}}, nil
	}
	if strings.ContainsRune(text, 0) {
		return nil, ErrNoResource // PostgreSQL has no such text
	}
	for _, n := range readings(text) {
		found, err := q.reading(ctx, n)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, ErrNoResource
}

// reading is one way to read a name.
type reading struct{ integration, resourceType, name string }

var typed = regexp.MustCompile(`^([a-z][a-z0-9_]{0,39}):(.+)$`)

// readings are the ways to read a text, in order: as it stands, as `type:name`, as `integration/type:name`.
func readings(text string) []reading {
	out := []reading{{name: text}}
	if m := typed.FindStringSubmatch(text); m != nil {
		out = append(out, reading{resourceType: m[1], name: m[2]})
	}
	for i, c := range text {
		if c != '/' || i == 0 {
			continue
		}
		if m := typed.FindStringSubmatch(text[i+1:]); m != nil {
			out = append(out, reading{integration: text[:i], resourceType: m[1], name: m[2]})
		}
	}
	return out
}

// reading answers what goes by a name read in one way. What goes by it letter for letter goes before what does in another case, and
// where a type is given, so does an id in the system before other names.
func (q *question) reading(ctx context.Context, n reading) ([]store.ResourcesNamedRow, error) {
	rows, err := q.q.ResourcesNamed(ctx, store.ResourcesNamedParams{Name: n.name, At: q.at, Most: mostNamed})
	if err != nil {
		return nil, fmt.Errorf("look for a name: %w", err)
	}
	rows = slices.DeleteFunc(rows, func(r store.ResourcesNamedRow) bool {
		return n.resourceType != "" && r.Type != n.resourceType || n.integration != "" && !q.isIntegration(r.IntegrationID, n.integration)
	})
	tiers := []func(store.ResourcesNamedRow) bool{
		func(r store.ResourcesNamedRow) bool { return n.resourceType != "" && r.ExternalID == n.name },
		func(r store.ResourcesNamedRow) bool { return n.name == r.ExternalID || n.name == r.DisplayName },
	}
	for _, tier := range tiers {
		if some := slices.DeleteFunc(slices.Clone(rows), func(r store.ResourcesNamedRow) bool { return !tier(r) }); len(some) > 0 {
			return some, nil
		}
	}
	return rows, nil
}

func (q *question) isIntegration(i id.Integration, name string) bool {
	return i.String() == name || strings.EqualFold(q.names[i], name)
}

// ambiguous tells the candidates in a form that names each of them alone.
func (q *question) ambiguous(text string, found []store.ResourcesNamedRow) error {
	tell := make([]string, 0, mostCandidates)
	for _, r := range found[:min(len(found), mostCandidates)] {
		tell = append(tell, fmt.Sprintf("%s %s (%s) in %s", r.Type, r.ExternalID, r.ID, q.names[r.IntegrationID]))
	}
	more := ""
	if n := len(found) - len(tell); n > 0 {
		more = fmt.Sprintf(", and %d more", n)
	}
	return ErrAmbiguous.With("%q names %d things, say which by id, type:id or integration/type:id: %s%s", text, len(found), strings.Join(tell, "; "), more)
}
