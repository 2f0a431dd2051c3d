package unix

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// powers adds what a command gives beyond itself: whoever may run a shell as somebody can do all that they can.
//
// It knows ALL, the shells of /etc/shells, su, sudo, sudoedit, and programs that write any file they are told to: editors, interpreters,
// copiers. Those that can only be talked into running another program (pagers, env, git) are not among them: NOEXEC may keep them from it.
func (s *sudoAccess) powers(h *sudoHolding, entitlement *discoveryv1.EntitlementRef) {
	g := s.graph
	reason := s.opens(h.list)
	if reason == "" && h.roots {
		reason = s.opensAsRoot(h.list)
	}
	if reason != "" {
		for _, target := range h.targets {
			// Whoever becomes root becomes anyone from there.
			if !h.roots || s.isRoot(target) {
				g.expand(ScopeSudoers, entitlement, g.become(target), reason)
			}
		}
	}
	if !h.roots || reason != "" {
		return
	}
	for _, name := range s.switches(h.list) {
		g.expand(ScopeSudoers, entitlement, g.become(ref(typeUser, name)), "su, run as root, asks for no password")
	}
}

func (s *sudoAccess) isRoot(target *discoveryv1.ResourceRef) bool {
	a, ok := s.policy.machine.byName[target.GetExternalId()]
	return ok && target.GetType() == typeUser && a.uid == 0
}

// opens says how a command list gives the target's whole power, whoever the target is.
func (s *sudoAccess) opens(list commandList) string {
	m := s.policy.machine
	if first := list.items[0]; first.all && !first.negated {
		if len(list.items) > 1 {
			return "any command but some: a copy of a program under another name is none of those"
		}
		return "any command can be run"
	}
	for _, shell := range m.shells {
		if m.permits(list.items, shell, nil) {
			return shell + " is a shell"
		}
	}
	for _, c := range list.items {
		if c.path == "sudoedit" && c.anyArgs && !c.negated {
			return "sudoedit writes any file of the target's"
		}
		if name := filepath.Base(c.path); c.anyArgs && !c.negated && writers.MatchString(name) && m.permits(list.items, c.path, []string{"/"}) {
			return name + " writes any file of the target's"
		}
	}
	return ""
}

// writers are programs that write what they are told to where they are told to, without running another program.
var writers = regexp.MustCompile(`^(vi|vim(\.[a-z]+)?|nvim|nano|pico|emacs|ed|ex|joe|mcedit|python[0-9.]*|perl[0-9.]*|ruby[0-9.]*|node|nodejs|php[0-9.]*|lua[0-9.]*|tclsh[0-9.]*|[gmn]?awk|cp|mv|tee|dd|install|rsync|tar|sed|find|ln|chmod|chown)$`)

// opensAsRoot says how a command list gives the whole power of root.
func (s *sudoAccess) opensAsRoot(list commandList) string {
	m := s.policy.machine
	for _, su := range []string{"/bin/su", "/usr/bin/su"} {
		for _, args := range [][]string{nil, {"-"}, {"-l"}, {"root"}, {"-", "root"}, {"-l", "root"}} {
			if m.permits(list.items, su, args) {
				return "su, run as root, asks for no password"
			}
		}
	}
	for _, args := range [][]string{{"-i"}, {"-s"}} {
		if m.permits(list.items, "/usr/bin/sudo", args) {
			return "sudo, run as root, opens a shell"
		}
	}
	if m.permits(list.items, "sudoedit", []string{"/etc/sudoers"}) {
		return "sudoedit writes /etc/sudoers"
	}
	return ""
}

// switches answers the accounts that a list lets su to by name.
func (s *sudoAccess) switches(list commandList) []string {
	m := s.policy.machine
	var names []string
	for _, c := range list.items {
		if c.negated || c.anyArgs || filepath.Base(c.path) != "su" {
			continue
		}
		args := strings.Fields(c.args)
		if len(args) == 0 || !m.permits(list.items, c.path, args) {
			continue
		}
		if name := args[len(args)-1]; m.byName[name] != nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
