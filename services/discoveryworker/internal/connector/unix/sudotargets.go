package unix

import (
	"fmt"
	"slices"
	"strings"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// commandList is a list of commands that is true or not as a whole: one command, or several of which later ones take from earlier.
type commandList struct {
	text  string
	items []command
	// rules are those that it comes from, by index.
	rules []int
}

// allowance is a command list and whom it may be run as: one entitlement of the graph.
type allowance struct {
	list commandList
	// name of the entitlement: `sudo as postgres`.
	name string
	// targets are the accounts or groups whose place the command is run in; roots says that one of them has uid 0.
	targets []*discoveryv1.ResourceRef
	roots   bool
}

// sudoTargets works out as whom the rules let commands run. Accounts that no rule tells apart as targets are looked at once, and
// so are sequences of rules, so that a machine with thousands of accounts is read in seconds.
type sudoTargets struct {
	policy *policy
	// classes are the accounts that no rule tells apart, but for rules that speak of oneself.
	classes [][]*account
	// lists are the command lists, and known the allowances, of a sequence of rules by its indices.
	lists map[string][]commandList
	known map[string][]allowance
}

// nobody is an account that is none of the machine's: rules that speak of oneself never match it.
var nobody = new(account)

func newSudoTargets(p *policy) *sudoTargets {
	t := &sudoTargets{policy: p, lists: map[string][]commandList{}, known: map[string][]allowance{}}
	index := map[string]int{}
	for _, a := range p.machine.accounts {
		told := make([]byte, len(p.rules))
		for i, r := range p.rules {
			if told[i] = '-'; p.target(r, nobody, a) {
				told[i] = '+'
			}
		}
		i, ok := index[string(told)]
		if !ok {
			i = len(t.classes)
			index[string(told)] = i
			t.classes = append(t.classes, nil)
		}
		t.classes[i] = append(t.classes[i], a)
	}
	return t
}

// gathered is which targets each command list may be run as.
type gathered[T any] struct {
	lists   map[string]commandList
	targets map[string][]T
	order   []string
}

func (g *gathered[T]) add(lists []commandList, targets ...T) {
	if g.lists == nil {
		g.lists, g.targets = map[string]commandList{}, map[string][]T{}
	}
	for _, list := range lists {
		if _, ok := g.lists[list.text]; !ok {
			g.order = append(g.order, list.text)
		}
		g.lists[list.text] = joined(g.lists[list.text], list)
		g.targets[list.text] = append(g.targets[list.text], targets...)
	}
}

// users are what an account may run as other accounts by the rules with these indices.
func (t *sudoTargets) users(who *account, rules []int) []allowance {
	key := fmt.Sprint(rules)
	oneself := slices.ContainsFunc(rules, func(i int) bool { return slices.ContainsFunc(t.policy.rules[i].runasUsers, isOneself) })
	if known, ok := t.known[key]; ok && !oneself {
		return known
	}
	var found gathered[*account]
	for _, class := range t.classes {
		if oneself {
			class = slices.DeleteFunc(slices.Clone(class), func(a *account) bool { return a == who })
		}
		if len(class) > 0 {
			found.add(t.listsOf(rules, func(r *rule) bool { return t.policy.target(r, nobody, class[0]) }), class...)
		}
	}
	if oneself {
		found.add(t.listsOf(rules, func(r *rule) bool { return t.policy.target(r, who, who) }), who)
	}
	var out []allowance
	name := func(a *account) string { return a.name }
	for _, text := range found.order {
		for words, targets := range nameSets("sudo as ", found.targets[text], t.policy.machine.accounts, name) {
			out = append(out, allowance{
				list: found.lists[text], name: words, targets: refs(typeUser, targets, name),
				roots: slices.ContainsFunc(targets, func(a *account) bool { return a.uid == 0 }),
			})
		}
	}
	if !oneself {
		t.known[key] = out
	}
	return out
}

func isOneself(m sudoMember) bool { return m.kind == "username" && m.value == "" }

// groups are what an account may run with groups it isn't in.
func (t *sudoTargets) groups(who *account, rules []int) []allowance {
	if !slices.ContainsFunc(rules, func(i int) bool { return t.policy.rules[i].runasGroups != nil }) {
		return nil
	}
	var others []*group
	for _, one := range t.policy.machine.groups {
		if !slices.Contains(who.gids, one.gid) {
			others = append(others, one)
		}
	}
	var found gathered[*group]
	for _, one := range others {
		found.add(t.listsOf(rules, func(r *rule) bool { return t.policy.withGroup(r, who, one) }), one)
	}
	name := func(one *group) string { return one.name }
	var out []allowance
	for _, text := range found.order {
		for words, targets := range nameSets("sudo with group ", found.targets[text], others, name) {
			if len(targets) > 1 {
				// Groups that one is in already were left out: they are no less covered by ALL.
				targets = slices.DeleteFunc(slices.Clone(t.policy.machine.groups), func(one *group) bool {
					return slices.Contains(others, one) && !slices.Contains(targets, one)
				})
			}
			out = append(out, allowance{list: found.lists[text], name: words, targets: refs(typeGroup, targets, name)})
		}
	}
	return out
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
			if n := name(one); !in[n] {
				in[n] = true
				missing = append(missing, n)
			}
		}
		if len(missing) == 0 {
			yield(prefix+"ALL", set)
			return
		}
		if len(missing) <= 3 && len(set) > len(missing) {
			slices.Sort(missing)
			if words := prefix + "ALL except " + strings.Join(missing, ", "); len(words) <= 200 {
				yield(words, set)
				return
			}
		}
		for _, one := range set {
			if !yield(prefix+name(one), []T{one}) {
				return
			}
		}
	}
}

// listsOf answers the command lists of the rules that apply, in their order.
func (t *sudoTargets) listsOf(rules []int, applies func(*rule) bool) []commandList {
	var kept []int
	for _, i := range rules {
		if applies(t.policy.rules[i]) {
			kept = append(kept, i)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	key := fmt.Sprint(kept)
	lists, ok := t.lists[key]
	if !ok {
		lists = t.reduce(kept)
		t.lists[key] = lists
	}
	return lists
}

// reduce takes out of the rules' commands what later ones make void, and splits the rest into lists that are true by themselves.
func (t *sudoTargets) reduce(rules []int) []commandList {
	type entry struct {
		command
		rule int
	}
	var entries []entry
	for _, i := range rules {
		for _, c := range t.policy.rules[i].commands {
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
