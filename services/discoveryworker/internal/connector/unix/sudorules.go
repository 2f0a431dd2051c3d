package unix

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verdict is what a list says about something: sudo goes by the last item that matches.
type verdict int

const (
	unspecified verdict = iota
	allowed
	denied
)

// rule is one command set of one rule that is meant for this machine and holds now.
type rule struct {
	users []sudoMember
	// runasUsers and runasGroups are nil where the rule has no such list.
	runasUsers, runasGroups []sudoMember
	commands                []command
	noPassword              bool
	// at is file and line; words is the rule's own text.
	at, words string
}

// policy is the rules in their order, and the settings that change what they mean.
type policy struct {
	machine      *machine
	rules        []*rule
	runasDefault string
	foldUsers    bool
	foldGroups   bool
	byGID        bool
	// usersBindGroups says that sudo is 1.9.14 or newer: see withGroup.
	usersBindGroups bool
	netgroups       map[string][]netgroupEntry
}

// compile resolves aliases, leaves out what isn't meant for this machine or time, and names what it doesn't understand.
func compile(ctx context.Context, m *machine, g *graph, parsed *sudoPolicy, lines []sudoLine) *policy {
	p := &policy{machine: m, runasDefault: "root", foldUsers: true, foldGroups: true, netgroups: map[string][]netgroupEntry{}}
	askPassword := p.defaults(g, parsed)
	p.readNetgroups(ctx, g, parsed)
	for _, spec := range parsed.Specs {
		at, words := "sudoers", ""
		if spec.line >= 0 {
			at = lines[spec.line].at()
			words = logicalLine(lines, spec.line)
		}
		if p.hosts(flatten(spec.Hosts, parsed.HostAliases, "hostalias")) != allowed {
			continue
		}
		users := flatten(spec.Users, parsed.UserAliases, "useralias")
		if slices.ContainsFunc(users, func(u sudoMember) bool { return strings.HasPrefix(u.kind, "nonunix") }) {
			g.gap(ScopeSudoers, at+": groups of a plugin (%:) are not known")
		}
		if strings.Contains(words, `\ `) {
			g.gap(ScopeSudoers, at+": a command whose path holds a space is read as if it ended there")
		}
		for _, set := range spec.Commands {
			r := &rule{users: users, at: at, words: words, noPassword: !askPassword}
			if !p.options(g, set, r, strings.Count(words, "NOTBEFORE")+strings.Count(words, "NOTAFTER") > 0 && len(spec.Commands)+len(set.Commands) > 2) {
				continue
			}
			if set.RunasUsers != nil {
				r.runasUsers = flatten(set.RunasUsers, parsed.RunasAliases, "runasalias")
			}
			if set.RunasGroups != nil {
				r.runasGroups = flatten(set.RunasGroups, parsed.RunasAliases, "runasalias")
			}
			for _, c := range flatten(set.Commands, parsed.CommandAliases, "cmndalias") {
				if c.kind != "command" {
					// An alias that nobody defined matches nothing.
					continue
				}
				one := newCommand(c)
				if one.broken != nil {
					g.gap(ScopeSudoers, fmt.Sprintf("%s: %s: %v", at, one.text, one.broken))
				}
				r.commands = append(r.commands, one)
			}
			p.rules = append(p.rules, r)
		}
	}
	return p
}

// defaults reads the settings that change who may do what, and answers whether a password is asked for.
func (p *policy) defaults(g *graph, parsed *sudoPolicy) (askPassword bool) {
	askPassword = true
	for _, d := range parsed.Defaults {
		for _, options := range d.Options {
			for name, value := range options {
				on, _ := value.(bool)
				meaning := true
				switch name {
				case "runas_default":
					if s, ok := value.(string); ok && d.Binding == nil {
						p.runasDefault = s
					}
				case "case_insensitive_user":
					p.foldUsers = on
				case "case_insensitive_group":
					p.foldGroups = on
				case "match_group_by_gid":
					p.byGID = on
				case "authenticate":
					// Only a word in the reason depends on it: with a binding it is left at what the rule says.
					if d.Binding == nil {
						askPassword = on
					}
					meaning = false
				case "use_netgroups", "netgroup_tuple", "intercept", "fast_glob", "runchroot":
					if name == "use_netgroups" && on || name != "use_netgroups" && value == false {
						meaning = false
						break
					}
					g.gap(ScopeSudoers, fmt.Sprintf("Defaults %s is not followed", name))
				default:
					meaning = false
				}
				if meaning && d.Binding != nil {
					g.gap(ScopeSudoers, fmt.Sprintf("Defaults %s for some users, hosts or commands only is not followed", name))
				}
			}
		}
	}
	return askPassword
}

// options reads a command set's options; it answers false where the set holds at another time or can't be followed.
func (p *policy) options(g *graph, set *sudoCommandSet, r *rule, mixedTimes bool) bool {
	if v, ok := set.option("authenticate"); ok {
		r.noPassword = v == false
	}
	if _, ok := set.option("runchroot"); ok {
		g.gap(ScopeSudoers, r.at+": CHROOT= is not followed")
		return false
	}
	if mixedTimes {
		g.gap(ScopeSudoers, r.at+": NOTBEFORE and NOTAFTER of several commands on one line can't be told apart")
	}
	for name, holds := range map[string]func(time.Time) bool{"notbefore": g.now.Before, "notafter": g.now.After} {
		v, ok := set.option(name)
		if !ok {
			continue
		}
		text, _ := v.(string)
		t, err := time.Parse("20060102150405Z", text)
		if err != nil {
			g.gap(ScopeSudoers, fmt.Sprintf("%s: %s: %v", r.at, name, err))
			return false
		}
		if holds(t) {
			return false
		}
	}
	return true
}

// flatten puts the members of aliases in their place. Since the last match decides at every level, a flat list in which `!` before
// an alias turns its members round says the same. An alias that isn't defined, or that leads to itself, is left as it is: sudo
// takes its name as that of a user, host or group.
func flatten(list []sudoMember, aliases map[string][]sudoMember, kind string) []sudoMember {
	out := []sudoMember{}
	var walk func(list []sudoMember, negated bool, inside []string)
	walk = func(list []sudoMember, negated bool, inside []string) {
		for _, m := range list {
			m.negated = m.negated != negated
			members, defined := aliases[m.value]
			if m.kind != kind || !defined || slices.Contains(inside, m.value) {
				out = append(out, m)
				continue
			}
			walk(members, m.negated, append(slices.Clip(inside), m.value))
		}
	}
	walk(list, false, nil)
	return out
}

// logicalLine is a line with those that continue it.
func logicalLine(lines []sudoLine, i int) string {
	words := []string{}
	for first := true; i < len(lines) && (first || !lines[i].first); i++ {
		words = append(words, strings.Trim(strings.TrimSuffix(strings.TrimRight(strings.ReplaceAll(lines[i].text, "\t", " "), " "), `\`), " "))
		first = false
	}
	return strings.Join(words, " ")
}

// user says whether a list of users has the account, and by which item.
func (p *policy) user(list []sudoMember, a *account) (verdict, string) {
	for _, m := range slices.Backward(list) {
		if ok, via := p.isUser(m, a); ok {
			if m.negated {
				return denied, via
			}
			return allowed, via
		}
	}
	return unspecified, ""
}

func (p *policy) isUser(m sudoMember, a *account) (ok bool, via string) {
	switch m.kind {
	case "username", "useralias", "runasalias":
		return m.value == "ALL" || equal(m.value, a.name, p.foldUsers), m.value
	case "userid":
		return m.value == strconv.FormatUint(uint64(a.uid), 10), "#" + m.value
	case "usergroup":
		return p.inGroup(a, m.value), "%" + m.value
	case "usergid":
		gid, err := parseID(m.value)
		return err == nil && slices.Contains(a.gids, gid), "%#" + m.value
	case "netgroup":
		return slices.ContainsFunc(p.netgroups[m.value], func(e netgroupEntry) bool { return e.user == "" || e.user == a.name }), "+" + m.value
	}
	return false, ""
}

// inGroup says whether sudo takes the account for a member of the group: by the names of its gids, unless set otherwise.
func (p *policy) inGroup(a *account, name string) bool {
	if !p.byGID {
		return slices.ContainsFunc(a.groupNames, func(n string) bool { return equal(n, name, p.foldGroups) })
	}
	for _, one := range p.machine.groups {
		if one.name == name {
			return slices.Contains(a.gids, one.gid)
		}
	}
	return false
}

// target says whether a rule lets a command run as the target, asked for by `-u`.
func (p *policy) target(r *rule, who, target *account) bool {
	if r.runasUsers == nil {
		return r.runasGroups == nil && p.isDefault(target)
	}
	return p.runas(r.runasUsers, who, target) == allowed
}

func (p *policy) isDefault(target *account) bool {
	return equal(p.runasDefault, target.name, p.foldUsers) || p.runasDefault == "#"+strconv.FormatUint(uint64(target.uid), 10)
}

// runas goes through a list of targets; an empty name stands for the one who asks.
func (p *policy) runas(list []sudoMember, who, target *account) verdict {
	for _, m := range slices.Backward(list) {
		ok := m.kind == "username" && m.value == "" && who.name == target.name
		if !ok && m.value != "" {
			ok, _ = p.isUser(m, target)
		}
		if ok {
			if m.negated {
				return denied
			}
			return allowed
		}
	}
	return unspecified
}

// withGroup says whether a rule lets a command run with a group the one who asks isn't in, asked for by `-g` alone. sudo then keeps
// the one who asks as the target; before 1.9.14 it passes over the list of users, since then a denial in that list counts.
func (p *policy) withGroup(r *rule, who *account, one *group) bool {
	if r.runasGroups == nil || p.usersBindGroups && p.runas(r.runasUsers, who, who) == denied {
		return false
	}
	for _, m := range slices.Backward(r.runasGroups) {
		ok := false
		switch m.kind {
		case "usergroup", "username", "runasalias":
			// cvtsudoers answers a gid here as a name that begins with `#`.
			ok = m.value == "ALL" || equal(m.value, one.name, p.foldGroups) || m.value == "#"+strconv.FormatUint(uint64(one.gid), 10)
		case "userid", "usergid":
			ok = m.value == strconv.FormatUint(uint64(one.gid), 10)
		}
		if ok {
			return !m.negated
		}
	}
	return false
}

func equal(a, b string, fold bool) bool {
	return a == b || fold && strings.EqualFold(a, b)
}
