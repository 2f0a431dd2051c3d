package runs_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	. "a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/discoverytest"
)

// accounts are records of accounts, each with its attributes: name, address, login.
func accounts(rows ...[3]string) discoverytest.Slice {
	s := discoverytest.Slice{Completed: []string{"test"}}
	for _, row := range rows {
		r := Resource(Ref("user", row[0]), true)
		r.GetResource().Attributes = map[string]string{"email": row[1], "login": row[2]}
		s.Records = append(s.Records, r)
	}
	return s
}

// joined says for each account of an integration who it is and by which rule; ids of persons are kept by their key.
func joined(t *testing.T, e *discoverytest.Env, w id.Workspace, i id.Integration, ids map[string]string) map[string]string {
	t.Helper()
	rows, err := e.Super.Query(t.Context(), `SELECT r.external_id, p.key || ' by ' || a.rule, p.key, p.id::text FROM discovery.person_accounts a
		JOIN discovery.persons p USING (workspace_id) JOIN discovery.resources r USING (workspace_id)
		WHERE a.workspace_id = $1 AND r.integration_id = $2 AND p.id = a.person_id AND r.id = a.account_id AND r.until IS NULL`, w, i)
	check(t, err)
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var account, how, key, person string
		check(t, rows.Scan(&account, &how, &key, &person))
		out[account] = how
		if known, seen := ids[key]; seen && known != person {
			t.Errorf("the person %s was %s and is %s now", key, known, person)
		}
		ids[key] = person
	}
	check(t, rows.Err())
	return out
}

func TestPersonsAreJoinedByTheRulesInTheirOrder(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, directory, box := id.NewWorkspace(), id.NewIntegration(), id.NewIntegration()
	ids := map[string]string{}
	want := func(what string, i id.Integration, want map[string]string) {
		t.Helper()
		if d := cmp.Diff(want, joined(t, e, w, i, ids)); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	boxAccounts := accounts([3]string{"ann"}, [3]string{"BOB"}, [3]string{"sam"}, [3]string{"x1", "", "Ann"}, [3]string{"bob2", "ANN@acme.test", "bob"}, [3]string{"zoe"})
	e.Run(t, w, box, boxAccounts)
	want("addresses without anybody else", box, map[string]string{"bob2": "ann@acme.test by email", "ann": "ann@acme.test by login", "x1": "ann@acme.test by login"})

	people := [][3]string{{"a", "Ann@Acme.test", ""}, {"b", "bob@acme.test", ""}, {"s1", "sam@acme.test", ""}, {"s2", "sam@other.test", ""}}
	e.Run(t, w, directory, accounts(people...))
	all := map[string]string{
		"ann": "ann@acme.test by login", "x1": "ann@acme.test by login", "bob2": "ann@acme.test by email", "BOB": "bob@acme.test by login",
		// Two persons' addresses begin with sam, and nobody's with zoe: neither account is anybody's.
	}
	want("with a directory", box, all)
	want("the directory itself", directory, map[string]string{"a": "ann@acme.test by email", "b": "bob@acme.test by email",
		"s1": "sam@acme.test by email", "s2": "sam@other.test by email"})

	e.Run(t, w, directory, accounts(people[0], people[2]))
	withSam := maps.Clone(all)
	delete(withSam, "BOB")
	withSam["sam"] = "sam@acme.test by login"
	want("without bob and the second sam", box, withSam)
	if n := e.Count(t, "SELECT count(*) FROM discovery.persons WHERE workspace_id = $1", w); n != 2 {
		t.Errorf("%d persons, want ann and sam", n)
	}
	e.Run(t, w, directory, accounts(people...))
	want("with them back", box, all)

	other := id.NewWorkspace()
	e.Run(t, other, directory, accounts(people[0]))
	if n := e.Count(t, "SELECT count(DISTINCT id) FROM discovery.persons WHERE key = 'ann@acme.test'"); n != 2 {
		t.Errorf("ann of two workspaces has %d ids, want two", n)
	}
}

func TestAccountsThatNobodyCanJoinAreLeftAlone(t *testing.T) {
	t.Parallel()
	e := discoverytest.New(t)
	w, i := id.NewWorkspace(), id.NewIntegration()
	long := make([]byte, 4000)
	for n := range long {
		long[n] = 'x'
	}
	s := accounts([3]string{"empty"}, [3]string{"long", string(long) + "@acme.test", string(long)})
	s.Records = append(s.Records, &discoveryv1.Record{Scope: "test", Kind: &discoveryv1.Record_Resource{Resource: &discoveryv1.Resource{
		Type: "group", ExternalId: "staff@acme.test", Attributes: map[string]string{"email": "staff@acme.test"}}}})
	name := Resource(Ref("table", string(long[:1000])+"äöü"), false)
	name.GetResource().DisplayName = string(long[:1020])
	s.Records = append(s.Records, name)
	e.Run(t, w, i, s)
	if n := e.Count(t, "SELECT count(*) FROM discovery.persons"); n != 0 {
		t.Errorf("%d persons, want none: an empty address, one that is too long, and a group's", n)
	}
}
