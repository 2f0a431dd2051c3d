package unix

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// addAccounts adds the accounts, and the powers that lie in their uids alone.
func (g *graph) addAccounts(m *machine) {
	for _, a := range m.accounts {
		fullName, _, _ := strings.Cut(a.gecos, ",")
		if fullName == "" {
			fullName = a.name
		}
		attributes := map[string]string{
			"uid": strconv.FormatUint(uint64(a.uid), 10), "gid": strconv.FormatUint(uint64(a.gid), 10), "login": a.name,
			"shell": a.shell, "home": a.home, "status": a.status(g.now), "password": a.passwordState(),
		}
		if a.uid == 0 {
			attributes["superuser"] = "true"
		}
		user := g.resource(ScopeAccounts, &discoveryv1.Resource{
			Type: typeUser, ExternalId: a.name, DisplayName: fullName, Parent: g.host, Attributes: attributes, Account: true,
		})
		g.entitlement(ScopeAccounts, user, entBecome, assumption, "take the account's place")
	}
	byUID := map[uint32][]*account{}
	for _, a := range m.accounts {
		byUID[a.uid] = append(byUID[a.uid], a)
	}
	root := &discoveryv1.EntitlementRef{Resource: g.host, Name: entRoot}
	for _, a := range m.accounts {
		user := ref(typeUser, a.name)
		if a.uid == 0 {
			g.grant(ScopeAccounts, user, root, "uid 0")
			for _, other := range m.accounts {
				if other != a {
					g.grant(ScopeAccounts, user, g.become(ref(typeUser, other.name)), "uid 0 may become any account")
				}
			}
			continue
		}
		for _, other := range byUID[a.uid] {
			if other != a {
				g.grant(ScopeAccounts, user, g.become(ref(typeUser, other.name)), fmt.Sprintf("both have uid %d", a.uid))
			}
		}
	}
}

// addGroups adds the groups and their members. The kernel knows gids only, so that members of one group are members of every
// group that shares its gid.
func (g *graph) addGroups(m *machine) {
	for _, one := range m.groups {
		name := g.resource(ScopeGroups, &discoveryv1.Resource{
			Type: typeGroup, ExternalId: one.name, DisplayName: one.name, Parent: g.host,
			Attributes: map[string]string{"gid": strconv.FormatUint(uint64(one.gid), 10)},
		})
		g.entitlement(ScopeGroups, name, entMember, membership, "member of the group")
	}
	done := map[string]bool{}
	for _, one := range m.groups {
		if done[one.name] {
			continue
		}
		done[one.name] = true
		member := &discoveryv1.EntitlementRef{Resource: ref(typeGroup, one.name), Name: entMember}
		for _, a := range m.accounts {
			if slices.Contains(a.gids, one.gid) {
				g.grant(ScopeGroups, ref(typeUser, a.name), member, memberReason(a, one))
			}
		}
	}
}

func memberReason(a *account, one *group) string {
	switch {
	case a.gid == one.gid:
		return fmt.Sprintf("/etc/passwd: primary group %d", a.gid)
	case slices.Contains(one.members, a.name):
		return "/etc/group: listed in " + one.name
	}
	return fmt.Sprintf("/etc/group: listed in another group of gid %d", one.gid)
}

// addLogins adds who can sign in, by a password or by a key. An account of which the shadow file had to be read and wasn't is
// left out unless a key opens it: the scope then has a gap.
func (g *graph) addLogins(m *machine, keys []*authorizedKey) {
	login := g.entitlement(ScopeLogins, g.host, entLogin, permission, "sign in to the machine")
	opened := map[string]string{}
	for _, k := range keys {
		if k.command == "" && opened[k.account.name] == "" {
			opened[k.account.name] = k.at
		}
	}
	for _, a := range m.accounts {
		if !a.canLogIn() || a.expired(g.now) {
			continue
		}
		user := ref(typeUser, a.name)
		switch state := a.passwordState(); state {
		case "set":
			g.grant(ScopeLogins, user, login, "has a password and the shell "+shellName(a))
		case "empty":
			g.grant(ScopeLogins, user, login, "needs no password and has the shell "+shellName(a))
		}
		if at, ok := opened[a.name]; ok {
			g.grant(ScopeLogins, user, login, "authorized key "+at)
		}
	}
}

func shellName(a *account) string {
	if a.shell == "" {
		return "/bin/sh"
	}
	return a.shell
}
