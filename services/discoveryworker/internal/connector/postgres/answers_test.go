package postgres

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// answers are what the graph says: held at once; held with SET ROLE where that is the only act; and so without what is had by being
// a superuser, since SET ROLE looks at who logged in: a role that takes a superuser's place has to grant itself the next one.
type answers struct {
	memory                *accesstest.Memory
	atOnce, acting, chain map[fact]bool
}

func newAnswers(t *testing.T, records []*discoveryv1.Record) *answers {
	t.Helper()
	integration := id.NewIntegration()
	a := &answers{memory: accesstest.NewMemory(integration, records...)}
	// Without the ways that take another act than SET ROLE.
	bySet := without(records, func(x *discoveryv1.Expansion) bool { return x.GetAssumption() })
	chain := without(bySet, func(x *discoveryv1.Expansion) bool { return x.GetFrom().GetName() == superuser })
	a.atOnce = holdings(t, a.memory, records, func(h access.Holding) bool { return !h.Assumption })
	a.acting = holdings(t, accesstest.NewMemory(integration, bySet...), records, func(access.Holding) bool { return true })
	a.chain = holdings(t, accesstest.NewMemory(integration, chain...), records, func(access.Holding) bool { return true })
	return a
}

func without(records []*discoveryv1.Record, dropped func(*discoveryv1.Expansion) bool) []*discoveryv1.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r *discoveryv1.Record) bool {
		return r.GetExpansion() != nil && dropped(r.GetExpansion())
	})
}

// holdings is everything that roles hold.
func holdings(t *testing.T, m *accesstest.Memory, records []*discoveryv1.Record, which func(access.Holding) bool) map[fact]bool {
	t.Helper()
	roles, names := map[id.Resource]string{}, map[id.Entitlement]fact{}
	for _, r := range records {
		if x := r.GetResource(); x.GetType() == "role" {
			roles[m.Resource(x.GetType(), x.GetExternalId())] = x.GetExternalId()
		}
		if x := r.GetEntitlement(); x != nil {
			on := x.GetResource()
			names[m.Entitlement(on.GetType(), on.GetExternalId(), x.GetName())] = fact{resource: on.GetType() + " " + on.GetExternalId(), privilege: x.GetName()}
		}
	}
	held, err := access.NewGraph(m).Holds(t.Context(), slices.Collect(maps.Keys(roles)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[fact]bool{}
	for _, h := range held {
		if which(h) {
			f := names[h.Entitlement]
			f.role = roles[h.Principal]
			out[f] = true
		}
	}
	return out
}

// compare holds every answer of one database against the graph.
func (o *oracle) compare(t *testing.T, database string, f facts, g *answers) bool {
	t.Helper()
	differences := 0
	differ := func(format string, args ...any) {
		if differences++; differences <= 10 {
			t.Errorf("PostgreSQL %d, database %q: "+format, append([]any{o.version, database}, args...)...)
		}
	}
	setMode := "SET"
	if o.version < 16 {
		setMode = "MEMBER"
	}
	for question := range f.questions {
		resource, privilege := question[0], question[1]
		for _, role := range f.roles {
			if role == databaseOwner {
				continue // it is asked as the role that it is in this database, and cannot be named there
			}
			o.compared++
			yes := f.yes[fact{role, resource, privilege}]
			if yes {
				o.yes++
			}
			if resource == "role "+role {
				continue // a role has itself
			}
			want, super := yes, fact{role, "server server", superuser}
			var got bool
			isRole := strings.HasPrefix(resource, "role ")
			on := func(name string) fact { return fact{role, resource, name} }
			switch {
			case isRole && privilege == "USAGE WITH ADMIN OPTION":
				o.compareAdmin(role, resource, yes, g, differ)
				continue
			case isRole && privilege == "MEMBER":
				got = g.atOnce[super] || g.chain[on(set)] || g.chain[on(member)] || g.chain[on(listed)]
			case isRole && privilege == "SET":
				got = g.atOnce[super] || g.chain[on(set)]
			case isRole:
				got = g.atOnce[on(member)]
			default:
				got = g.holds(g.atOnce, role, resource, privilege)
				byActing := yes
				for _, other := range f.roles {
					byActing = byActing || f.yes[fact{role, roleName(database, other), setMode}] && f.yes[fact{other, resource, privilege}]
				}
				if byActing != g.holds(g.acting, role, resource, privilege) {
					differ("%s by SET ROLE on %s for %q is %v, the graph says otherwise", privilege, resource, role, byActing)
				}
			}
			if want != got {
				differ("%s on %s for %q is %v, the graph says %v", privilege, resource, role, want, got)
			}
		}
	}
	return differences == 0
}

// compareAdmin holds the right to grant a role against the graph. PostgreSQL answers yes also along memberships that confer nothing,
// so that its yes is more than the graph's at once.
func (o *oracle) compareAdmin(role, resource string, yes bool, g *answers, differ func(string, ...any)) {
	e := fact{role, resource, admin}
	if g.atOnce[e] && !yes {
		differ("the graph lets %q grant %s, the server does not", role, resource)
	}
	if yes && o.version < 16 && !g.acting[e] && !g.atOnce[fact{role, "server server", superuser}] {
		differ("the server lets %q grant %s, the graph does not", role, resource)
	}
}

// holds asks the graph about an object; columns without an ACL of their own are as their table.
func (a *answers) holds(in map[fact]bool, role, resource, privilege string) bool {
	if in[fact{role, resource, privilege}] {
		return true
	}
	column, isColumn := strings.CutPrefix(resource, "column ")
	if !isColumn {
		return false
	}
	table := column[:strings.LastIndex(column, ".")]
	for _, kind := range []string{"table", "view", "materialized_view", "foreign_table"} {
		if in[fact{role, kind + " " + table, privilege}] {
			return true
		}
	}
	return false
}
