package unix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// readSudo adds what sudo allows.
func readSudo(ctx context.Context, m *machine, g *graph) error {
	if content, err := m.read("/etc/nsswitch.conf"); err == nil {
		for _, line := range numbered(string(content)) {
			sources, ok := strings.CutPrefix(line, "sudoers:")
			if ok && strings.TrimSpace(sources) != "files" {
				g.gap(ScopeSudoers, "/etc/nsswitch.conf: sudo rules of other sources than files are not known:"+sources)
			}
		}
	}
	if _, err := os.Stat(m.path("/etc/sudoers")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lines := readSudoFiles(m, g)
	if len(lines) == 0 {
		return nil
	}
	parsed, err := parseSudo(ctx, g, lines)
	if err != nil || parsed == nil {
		return err
	}
	p := compile(ctx, m, g, parsed, lines)
	if out, _, err := run(ctx, nil, "cvtsudoers", "-V"); err == nil {
		p.usersBindGroups = atLeast(string(out), 1, 9, 14)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a := &sudoAccess{policy: p, graph: g, lists: map[string][]commandList{}}
	for _, who := range m.accounts {
		a.of(who)
	}
	a.emit()
	return nil
}

var versionNumber = regexp.MustCompile(`version (\d+)\.(\d+)\.(\d+)`)

// atLeast says whether words such as `cvtsudoers version 1.9.13p3` speak of a version or a newer one.
func atLeast(words string, wanted ...int) bool {
	found := versionNumber.FindStringSubmatch(words)
	if found == nil {
		return false
	}
	version := make([]int, len(wanted))
	for i := range version {
		n, err := strconv.Atoi(found[i+1])
		if err != nil {
			return false
		}
		version[i] = n
	}
	return slices.Compare(version, wanted) >= 0
}

// commandList is a list of commands that is true or not as a whole: one command, or several of which later ones take from earlier.
type commandList struct {
	text  string
	items []command
	// rules are those that it comes from, by index.
	rules []int
}

// sudoAccess gathers who may run what as whom, and puts it into the fewest grants that say the same.
type sudoAccess struct {
	policy *policy
	graph  *graph
	// lists are the command lists of a sequence of rules, by its indices.
	lists map[string][]commandList
	// held is what accounts hold, in the order found.
	held []*sudoHolding
	byID map[string]*sudoHolding
}

// sudoHolding is an entitlement on a command and those who hold it.
type sudoHolding struct {
	command commandList
	// name of the entitlement, and the accounts or groups it lets take the place of.
	name    string
	targets []*discoveryv1.ResourceRef
	roots   bool
	holders map[string]heldBy
	order   []*account
}

// heldBy is why an account holds an entitlement: by which item of the rule's list of users, and in words.
type heldBy struct {
	group  string
	reason string
}

// of works out what one account may run.
func (s *sudoAccess) of(who *account) {
	via := map[int]string{}
	for i, r := range s.policy.rules {
		if v, item := s.policy.user(r.users, who); v == allowed {
			via[i] = item
		}
	}
	if len(via) == 0 {
		return
	}
	mine := slices.Sorted(maps.Keys(via))
	users := map[string][]*account{}
	lists := map[string]commandList{}
	for _, target := range s.policy.machine.accounts {
		for _, list := range s.listsOf(mine, func(r *rule) bool { return s.policy.target(r, who, target) }) {
			lists[list.text] = joined(lists[list.text], list)
			users[list.text] = append(users[list.text], target)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(users)) {
		for name, targets := range nameSets("sudo as ", users[text], s.policy.machine.accounts, func(a *account) string { return a.name }) {
			s.hold(who, lists[text], name, refs(typeUser, targets, func(a *account) string { return a.name }), via,
				slices.ContainsFunc(targets, func(a *account) bool { return a.uid == 0 }))
		}
	}
	s.groupsOf(who, mine, via)
}

// groupsOf works out what one account may run with groups it isn't in.
func (s *sudoAccess) groupsOf(who *account, mine []int, via map[int]string) {
	if !slices.ContainsFunc(mine, func(i int) bool { return s.policy.rules[i].runasGroups != nil }) {
		return
	}
	var others []*group
	for _, one := range s.policy.machine.groups {
		if !slices.Contains(who.gids, one.gid) {
			others = append(others, one)
		}
	}
	groups := map[string][]*group{}
	lists := map[string]commandList{}
	for _, one := range others {
		for _, list := range s.listsOf(mine, func(r *rule) bool { return s.policy.withGroup(r, who, one) }) {
			lists[list.text] = joined(lists[list.text], list)
			groups[list.text] = append(groups[list.text], one)
		}
	}
	name := func(one *group) string { return one.name }
	for _, text := range slices.Sorted(maps.Keys(groups)) {
		for words, targets := range nameSets("sudo with group ", groups[text], others, name) {
			if len(targets) > 1 {
				// Groups that one is in already were left out: they are no less covered by ALL.
				targets = slices.DeleteFunc(slices.Clone(s.policy.machine.groups), func(one *group) bool {
					return slices.Contains(others, one) && !slices.Contains(targets, one)
				})
			}
			s.hold(who, lists[text], words, refs(typeGroup, targets, name), via, false)
		}
	}
}

func joined(a, b commandList) commandList {
	if a.text == "" {
		return commandList{text: b.text, items: b.items, rules: slices.Clone(b.rules)}
	}
	for _, r := range b.rules {
		if !slices.Contains(a.rules, r) {
			a.rules = append(a.rules, r)
		}
	}
	slices.Sort(a.rules)
	return a
}

func refs[T any](resourceType string, of []T, name func(T) string) []*discoveryv1.ResourceRef {
	out := make([]*discoveryv1.ResourceRef, len(of))
	for i, one := range of {
		out[i] = ref(resourceType, name(one))
	}
	return out
}

// nameSets says a set of targets in words: ALL, ALL but up to three, or one by one. Everything is what ALL would be.
func nameSets[T any](prefix string, set, everything []T, name func(T) string) func(func(string, []T) bool) {
	return func(yield func(string, []T) bool) {
		in := map[string]bool{}
		for _, one := range set {
			in[name(one)] = true
		}
		var missing []string
		for _, one := range everything {
			if n := name(one); !in[n] && !slices.Contains(missing, n) {
				missing = append(missing, n)
			}
		}
		slices.Sort(missing)
		words := prefix + "ALL except " + strings.Join(missing, ", ")
		switch {
		case len(missing) == 0:
			yield(prefix+"ALL", set)
			return
		case len(missing) <= 3 && len(set) > len(missing) && len(words) <= 200:
			yield(words, set)
			return
		}
		for _, one := range set {
			if !yield(prefix+name(one), []T{one}) {
				return
			}
		}
	}
}

// listsOf answers the command lists of the rules that apply, in their order.
func (s *sudoAccess) listsOf(rules []int, applies func(*rule) bool) []commandList {
	var key strings.Builder
	var kept []int
	for _, i := range rules {
		if applies(s.policy.rules[i]) {
			kept = append(kept, i)
			fmt.Fprintf(&key, "%d,", i)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	lists, ok := s.lists[key.String()]
	if !ok {
		lists = s.reduce(kept)
		s.lists[key.String()] = lists
	}
	return lists
}

// reduce takes out of the rules' commands what later ones make void, and splits the rest into lists that are true by themselves.
func (s *sudoAccess) reduce(rules []int) []commandList {
	type entry struct {
		command
		rule int
	}
	var entries []entry
	for _, i := range rules {
		for _, c := range s.policy.rules[i].commands {
			entries = append(entries, entry{c, i})
		}
	}
	seen := map[string]bool{}
	var kept []entry
	for _, e := range slices.Backward(entries) {
		if seen[e.text] {
			continue
		}
		seen[e.text] = true
		kept = append(kept, e)
		if e.all {
			break
		}
	}
	slices.Reverse(kept)
	// What nothing before allows needs no denial.
	for len(kept) > 0 && kept[0].negated {
		kept = kept[1:]
	}
	last := -1
	for i, e := range kept {
		if e.negated {
			last = i
		}
	}
	var lists []commandList
	if last >= 0 {
		whole := commandList{}
		for _, e := range kept[:last+1] {
			whole.items = append(whole.items, e.command)
			if !slices.Contains(whole.rules, e.rule) {
				whole.rules = append(whole.rules, e.rule)
			}
		}
		whole.text = formatCommandList(whole.items)
		lists = append(lists, whole)
	}
	for _, e := range kept[last+1:] {
		lists = append(lists, commandList{text: e.text, items: []command{e.command}, rules: []int{e.rule}})
	}
	return lists
}

// hold notes that an account holds an entitlement on a command list.
func (s *sudoAccess) hold(who *account, list commandList, name string, targets []*discoveryv1.ResourceRef, via map[int]string, roots bool) {
	key := list.text + "\x00" + name
	if s.byID == nil {
		s.byID = map[string]*sudoHolding{}
	}
	h, ok := s.byID[key]
	if !ok {
		h = &sudoHolding{command: list, name: name, targets: targets, roots: roots, holders: map[string]heldBy{}}
		s.byID[key] = h
		s.held = append(s.held, h)
	}
	var reasons []string
	group := ""
	for i, r := range list.rules {
		rule := s.policy.rules[r]
		reason := rule.at
		if rule.words != "" {
			reason += ": " + rule.words
		}
		if rule.noPassword {
			reason += " (no password is asked for)"
		}
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
		if item, isGroup := strings.CutPrefix(via[r], "%"); isGroup && (i == 0 || group == item) {
			group = item
		} else {
			group = ""
		}
	}
	h.holders[who.name] = heldBy{group: group, reason: strings.Join(reasons, "; ")}
	h.order = append(h.order, who)
}

// emit adds the commands, what they give, and who holds them. Where a rule names a group and all of the group's members hold what
// the rule gives, the group holds it; else, as where another rule takes it from one member, each member does.
func (s *sudoAccess) emit() {
	g := s.graph
	members := map[string][]string{}
	for _, one := range s.policy.machine.groups {
		for _, a := range s.policy.machine.accounts {
			if slices.Contains(a.gids, one.gid) {
				members[one.name] = append(members[one.name], a.name)
			}
		}
	}
	for _, h := range s.held {
		resource := g.resource(ScopeSudoers, &discoveryv1.Resource{
			Type: typeCommand, ExternalId: h.command.text, DisplayName: h.command.text, Parent: g.host,
			Attributes: map[string]string{"commands": h.command.text},
		})
		entitlement := g.entitlement(ScopeSudoers, resource, h.name, permission, "run "+h.command.text+" by "+h.name)
		for _, who := range h.order {
			by := h.holders[who.name]
			holder := ref(typeUser, who.name)
			if list := members[by.group]; len(list) > 0 && !slices.ContainsFunc(list, func(n string) bool { return h.holders[n].group != by.group }) {
				holder = ref(typeGroup, by.group)
			}
			g.grant(ScopeSudoers, holder, entitlement, by.reason)
		}
		s.powers(h, entitlement)
	}
}
