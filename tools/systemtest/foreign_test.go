package systemtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/fault"
)

// attacker is somebody who is let in, and asks for what is not theirs.
type attacker struct {
	who, token string
	// services are those whose certificate they present; nil for a person.
	service string
	// foreign are things that aren't theirs, by whose they are.
	foreign map[string]things
}

// allowedInTheTenant are fields in which a user of the same tenant may stand who is of another workspace: that is how people are let
// in, and given what others had.
var allowedInTheTenant = []string{"a3os.iam.v1.AddMemberRequest.principal"}

// probe is one field of one method with somebody else's id in it, at one door.
type probe struct {
	attacker
	v     *visitor
	m     rpcMethod
	ways  []way
	whose string
	own   things
}

// try is the answer to the request with values of known in the probed fields, as if it did not repeat them.
func (p probe) try(t testing.TB, known things) answer {
	msg := request(t, p.m, p.own)
	var values []string
	for _, w := range p.ways {
		v, _ := known.names(w.leaf())
		w.put(msg, v)
		values = append(values, v)
	}
	r := p.v.send(t, p.m, msg, "Authorization", "Bearer "+p.token)
	for _, v := range values {
		r.message, r.body = strings.ReplaceAll(r.message, v, "…"), strings.ReplaceAll(r.body, v, "…")
	}
	return r
}

func (p probe) String() string {
	return fmt.Sprintf("%s, %s, %s %v of %s", p.v.name, p.who, p.m.path(), p.ways, p.whose)
}

// attackers are those who probe from office a: its people, the tenant's admin, and services of the set that act for one of them.
func (a *office) attackers(t *testing.T, b, g *office) []attacker {
	t.Helper()
	both := map[string]things{"another workspace": b.things, "another tenant": g.things, "another workspace, by name": b.names()}
	owner := a.owner.token(t, a.workspace.GetId())
	out := []attacker{
		{who: "an owner", token: owner, foreign: both},
		{who: "a member", token: a.member.token(t, a.workspace.GetId()), foreign: both},
		{who: "the tenant's admin", token: acme().admin(t).token(t, ""), foreign: map[string]things{"another tenant": g.things}},
	}
	for service := range acme().addresses {
		out = append(out, attacker{who: service + " for an owner", token: owner, service: service, foreign: both})
	}
	return out
}

// names are the office's things by the names that their system knows them by.
func (o *office) names() things {
	return o.things.and("resource", o.things["search"]).and("principal", o.account)
}

// and is the things with one more.
func (known things) and(name, value string) things {
	out := things{name: value}
	for k, v := range known {
		if k != name {
			out[k] = v
		}
	}
	return out
}

// may says whether the attacker gets as far as a method's handler, if at all.
func (a attacker) may(m rpcMethod) bool {
	if a.service != "" {
		return slices.Contains(m.rule.GetWorkloads(), a.service)
	}
	return m.rule.GetPermission() != ""
}

// probes are all cases of an attacker at a door, by how many of a request's fields are somebody else's.
func (a attacker) probes(t *testing.T, v *visitor, own things) (one, mixed []probe) {
	t.Helper()
	for _, m := range methods(t) {
		if !a.may(m) || !v.leads(m) {
			continue
		}
		named := namedIn(t, m, own)
		// Each subset of what the request names is somebody else's; the rest is the attacker's own.
		for subset := 1; subset < 1<<len(named); subset++ {
			var ways []way
			for i, w := range named {
				if subset&(1<<i) != 0 {
					ways = append(ways, w)
				}
			}
			for whose, foreign := range a.foreign {
				if whose != "another tenant" && slices.ContainsFunc(ways, func(w way) bool { return slices.Contains(allowedInTheTenant, string(w.leaf().FullName())) }) {
					continue
				}
				if foreign == nil {
					continue
				}
				p := probe{attacker: a, v: v, m: m, ways: ways, whose: whose, own: own}
				if len(ways) == 1 {
					one = append(one, p)
				}
				if len(named) > 1 && len(ways) < len(named) {
					mixed = append(mixed, p)
				}
			}
		}
	}
	return one, mixed
}

// Rows W22, W23 and W25: every id and every filter of every method, of another workspace and of another tenant, alone and mixed with
// one's own, through every door. Made from the descriptors, so that a new method is tried as well.
func TestIdOfAnotherWorkspaceIsLikeOneThatNeverWas(t *testing.T) {
	t.Parallel()
	a, b, g := newOffice(t, acme()), newOffice(t, acme()), newOffice(t, globex())
	before := map[*office]map[string]string{a: a.rows(t), b: b.rows(t), g: g.rows(t)}
	var all []probe
	cases := map[string]int{}
	methodsTried := map[string]bool{}
	for _, d := range doors() {
		if strings.HasPrefix(d.name, "GET") || testing.Short() && d.name != "JSON" {
			continue // no method of ours is to be had by GET
		}
		for _, who := range a.attackers(t, b, g) {
			if who.service != "" && !d.straight {
				continue
			}
			v := d.visit(t, acme())
			if who.service != "" {
				v = d.visit(t, acme(), acme().certificates(t)[who.service])
			}
			one, mixed := who.probes(t, v, a.things)
			for _, p := range one {
				methodsTried[p.m.path()] = true
				row := "W22"
				if strings.HasPrefix(string(p.m.Name()), "List") {
					row = "W23"
				}
				cases[row]++
			}
			cases["W25"] += len(mixed)
			all = append(append(all, one...), mixed...)
		}
	}
	foreign := map[string]things{"another workspace": b.things, "another tenant": g.things, "another workspace, by name": b.names()}
	n := crowd(all, func(p probe) {
		theirs := foreign[p.whose]
		got, never := p.try(t, theirs), p.try(t, theirs.neverWas())
		// An answer says as of when it is, and probes of the caller's own workspace beside this one move that on: two in a row are alike
		// soon, where what is foreign makes no difference.
		for tries := 0; !got.same(never) && got.code == "" && never.code == "" && tries < 5; tries++ {
			got, never = p.try(t, theirs), p.try(t, theirs.neverWas())
		}
		if !got.same(never) {
			t.Errorf("%s: answered %s %q, one that never was %s %q", p, got, got.body, never, never.body)
		}
		if refusal(got, fault.Internal, fault.Unauthenticated) == nil || got.code == "unknown" || got.code == "invalid_argument" && p.whose != "another workspace, by name" && p.ways[0].leaf().Name() != "search" {
			t.Errorf("%s: the request didn't get as far as the id: %s", p, got)
		}
		for _, w := range []string{b.integration.GetName(), g.integration.GetName(), b.owner.email, b.workspace.GetName()} {
			if strings.Contains(got.body+got.message, w) {
				t.Errorf("%s: it is told of %s", p, w)
			}
		}
	})
	t.Logf("%d probes of %d methods", n, len(methodsTried))
	for o, was := range before {
		o.isUntouched(t)
		for table, digest := range o.rows(t) {
			// That an integration was removed is kept by its id alone, whatever workspace it was of: in the workspace of who removed it.
			if was[table] != digest && (o != a || table != "discovery.retired_integrations") {
				t.Errorf("rows of %s in %s changed", table, o.workspace.GetName())
			}
		}
	}
	for row, n := range cases {
		held(t, n, row)
	}
	acme().probed("rpc.call.not_found", a.owner.id, "W22")
}

// rows are digests of all that a workspace has in the database, by table: what is on the record, and keys of calls, aside.
func (o *office) rows(t *testing.T) map[string]string {
	t.Helper()
	conn := o.owner.tenant.plane.superuser(t, "postgres", o.owner.tenant.id)
	tables := column(t, conn, `SELECT format('%I.%I', c.table_schema, c.table_name) FROM information_schema.columns c
		JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE c.column_name = 'workspace_id' AND t.table_type = 'BASE TABLE' AND c.table_schema IN ('iam', 'integrations', 'discovery') ORDER BY 1`)
	const atLeast = 8
	if len(tables) < atLeast {
		t.Fatalf("only %v have workspaces", tables)
	}
	out := map[string]string{}
	for _, table := range tables {
		var digest string
		err := conn.QueryRow(t.Context(), "SELECT count(*) || ' ' || coalesce(md5(string_agg(r::text, ',' ORDER BY r::text)), '') FROM "+table+" r WHERE workspace_id = $1",
			uuidOf(t, o.workspace.GetId())).Scan(&digest)
		if err != nil {
			t.Fatal(err)
		}
		out[table] = digest
	}
	return out
}

// Row W22, its last word: how long the answer takes doesn't say either whether the id is somebody's. Asked in turns, whichever is asked
// first; an oracle shows as one side being slower nearly always, and by a good part, which noise of the machine is not.
func TestIdOfAnotherWorkspaceTakesAsLongAsOneThatNeverWas(t *testing.T) {
	full(t)
	t.Parallel()
	a, b := newOffice(t, acme()), newOffice(t, acme())
	const pairs, nearlyAlways, goodPart = 40, 0.9, 0.25
	const least = 300 * time.Microsecond
	owner := attacker{who: "an owner", token: a.owner.token(t, a.workspace.GetId()), foreign: map[string]things{"another workspace": b.things}}
	one, _ := owner.probes(t, doors()[0].visit(t, acme()), a.things)
	nobodys := b.things.neverWas()
	for _, p := range one {
		var foreign, never []time.Duration
		slower := 0
		timed := func(known things) time.Duration {
			began := time.Now()
			p.try(t, known)
			return time.Since(began)
		}
		for i := range pairs {
			var f, n time.Duration
			if i%2 == 0 {
				f, n = timed(b.things), timed(nobodys)
			} else {
				n, f = timed(nobodys), timed(b.things)
			}
			foreign, never = append(foreign, f), append(never, n)
			if f > n {
				slower++
			}
		}
		f, n := median(foreign), median(never)
		apart := max(f-n, n-f)
		if share := float64(slower) / pairs; (share > nearlyAlways || share < 1-nearlyAlways) && apart > max(least, time.Duration(goodPart*float64(min(f, n)))) {
			t.Errorf("%s: of %d pairs, the foreign id took longer %d times; medians %s and %s", p, pairs, slower, f, n)
		}
	}
	held(t, len(one), "W22")
}

func median[T cmp.Ordered](all []T) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
