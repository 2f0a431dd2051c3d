package unix

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/access"
	"a3os.app/libs/access/accesstest"
	"a3os.app/libs/id"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// view answers questions by the emitted records alone, as the access graph understands them.
type view struct {
	machine  *machine
	accounts map[string]*discoveryv1.Resource
	// atOnce are what accounts hold without an act, acting what they hold at all.
	atOnce, acting map[string][]*discoveryv1.EntitlementRef
}

func newView(t *testing.T, records []*discoveryv1.Record) *view {
	t.Helper()
	v := &view{
		machine: newMachine("/"), accounts: map[string]*discoveryv1.Resource{},
		atOnce: map[string][]*discoveryv1.EntitlementRef{}, acting: map[string][]*discoveryv1.EntitlementRef{},
	}
	memory := accesstest.NewMemory(id.NewIntegration(), records...)
	refs := map[id.Entitlement]*discoveryv1.EntitlementRef{}
	names := map[id.Resource]string{}
	var principals []id.Resource
	for _, r := range records {
		if e := r.GetEntitlement(); e != nil {
			at := memory.Entitlement(e.GetResource().GetType(), e.GetResource().GetExternalId(), e.GetName())
			refs[at] = &discoveryv1.EntitlementRef{Resource: e.GetResource(), Name: e.GetName()}
		}
		if a := r.GetResource(); a.GetType() == typeUser || a.GetType() == typeKey {
			v.accounts[a.GetExternalId()] = a
			who := memory.Resource(a.GetType(), a.GetExternalId())
			names[who] = a.GetExternalId()
			principals = append(principals, who)
		}
	}
	held, err := access.NewGraph(memory).Holds(t.Context(), principals)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range held {
		who := names[h.Principal]
		v.acting[who] = append(v.acting[who], refs[h.Entitlement])
		if !h.Assumption {
			v.atOnce[who] = append(v.atOnce[who], refs[h.Entitlement])
		}
	}
	return v
}

func holds(list []*discoveryv1.EntitlementRef, resourceType, externalID, name string) bool {
	return slices.ContainsFunc(list, func(e *discoveryv1.EntitlementRef) bool {
		return e.GetResource().GetType() == resourceType && e.GetResource().GetExternalId() == externalID && e.GetName() == name
	})
}

func (v *view) member(user, group string) bool {
	return holds(v.atOnce[user], typeGroup, group, entMember)
}

// becomes says that the account can take the other's place.
func (v *view) becomes(who, other string) bool {
	return who == other || holds(v.acting[who], typeUser, other, entBecome)
}

// allows answers what sudo is asked.
func (v *view) allows(q question) bool {
	prefix, target := "sudo as ", q.target
	if q.group != "" {
		prefix, target = "sudo with group ", q.group
	}
	return slices.ContainsFunc(v.atOnce[q.who], func(e *discoveryv1.EntitlementRef) bool {
		set, ok := strings.CutPrefix(e.GetName(), prefix)
		if !ok || e.GetResource().GetType() != typeCommand {
			return false
		}
		if except, isAll := strings.CutPrefix(set, "ALL except "); isAll {
			ok = !slices.Contains(strings.Split(except, ", "), target)
		} else {
			ok = set == "ALL" || set == target
		}
		return ok && v.machine.permits(parseCommandList(e.GetResource().GetExternalId()), q.command[0], q.command[1:])
	})
}

func (v *view) String() string {
	var b strings.Builder
	for who, held := range v.atOnce {
		for _, e := range held {
			fmt.Fprintf(&b, "%s: %s on %s %s\n", who, e.GetName(), e.GetResource().GetType(), e.GetResource().GetExternalId())
		}
	}
	return b.String()
}

// parseCommandList reads what formatCommandList wrote.
func parseCommandList(text string) []command {
	var out []command
	for item := range strings.SplitSeq(strings.ReplaceAll(text, `\,`, "\x00"), ", ") {
		m := sudoMember{kind: "command"}
		for strings.HasPrefix(item, "sha") {
			digest, rest, _ := strings.Cut(item, " ")
			m.digests = append(m.digests, strings.TrimSuffix(digest, "\x00"))
			item = rest
		}
		item, m.negated = strings.CutPrefix(item, "!")
		m.value = strings.ReplaceAll(item, "\x00", ",")
		out = append(out, newCommand(m))
	}
	return out
}
