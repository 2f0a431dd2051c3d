package unix

import (
	"context"
	"errors"
	"io/fs"
	"maps"
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
	if _, err := m.stat("/etc/sudoers"); errors.Is(err, fs.ErrNotExist) {
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
	a := &sudoAccess{policy: p, graph: g, targets: newSudoTargets(p), byID: map[string]*sudoHolding{}}
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

// sudoAccess gathers who may run what as whom, and puts it into the fewest grants that say the same.
type sudoAccess struct {
	policy  *policy
	graph   *graph
	targets *sudoTargets
	// held is what accounts hold, in the order found.
	held []*sudoHolding
	byID map[string]*sudoHolding
}

// sudoHolding is an allowance and those who hold it.
type sudoHolding struct {
	allowance
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
	for _, a := range s.targets.users(who, mine) {
		s.hold(who, a, via)
	}
	for _, a := range s.targets.groups(who, mine) {
		s.hold(who, a, via)
	}
}

// hold notes that an account has an allowance.
func (s *sudoAccess) hold(who *account, a allowance, via map[int]string) {
	key := a.list.text + "\x00" + a.name
	h, ok := s.byID[key]
	if !ok {
		h = &sudoHolding{allowance: a, holders: map[string]heldBy{}}
		s.byID[key] = h
		s.held = append(s.held, h)
	}
	var reasons []string
	group := ""
	for i, r := range a.list.rules {
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
			Type: typeCommand, ExternalId: h.list.text, DisplayName: h.list.text, Parent: g.host,
			Attributes: map[string]string{"commands": h.list.text},
		})
		entitlement := g.entitlement(ScopeSudoers, resource, h.name, permission, "run "+h.list.text+" by "+h.name)
		whole := map[string]bool{}
		for _, who := range h.order {
			by := h.holders[who.name]
			holder := ref(typeUser, who.name)
			all, known := whole[by.group]
			if !known {
				list := members[by.group]
				all = len(list) > 0 && !slices.ContainsFunc(list, func(n string) bool { return h.holders[n].group != by.group })
				whole[by.group] = all
			}
			if all {
				holder = ref(typeGroup, by.group)
			}
			g.grant(ScopeSudoers, holder, entitlement, by.reason)
		}
		s.powers(h, entitlement)
	}
}
