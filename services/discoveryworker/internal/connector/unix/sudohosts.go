package unix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
)

// netgroupEntry is a triple of a netgroup; an empty field matches anything, `-` nothing.
type netgroupEntry struct{ host, user string }

// hosts says whether a list of hosts has this machine.
func (p *policy) hosts(list []sudoMember) verdict {
	for _, m := range slices.Backward(list) {
		if p.isHost(m) {
			if m.negated {
				return denied
			}
			return allowed
		}
	}
	return unspecified
}

func (p *policy) isHost(m sudoMember) bool {
	long, short := p.machine.fqdn, shortName(p.machine.fqdn)
	switch m.kind {
	case "hostname", "hostalias":
		if m.value == "ALL" {
			return true
		}
		name := short
		if strings.Contains(m.value, ".") {
			name = long
		}
		if strings.ContainsAny(m.value, `*?[\`) {
			return globText(strings.ToLower(m.value), false).match(strings.ToLower(name))
		}
		return strings.EqualFold(m.value, name)
	case "networkaddr":
		return onNetwork(p.machine.addresses, m.value)
	case "netgroup":
		return slices.ContainsFunc(p.netgroups[m.value], func(e netgroupEntry) bool {
			return e.host == "" || strings.EqualFold(e.host, long) || strings.EqualFold(e.host, short)
		})
	}
	return false
}

// onNetwork says whether one of the addresses is the one named, is on the network of that number, or is in the block named.
func onNetwork(addresses []*net.IPNet, name string) bool {
	address, mask, masked := strings.Cut(name, "/")
	ip := net.ParseIP(address)
	if ip == nil {
		return false
	}
	if masked {
		var block *net.IPNet
		if dotted := net.ParseIP(mask).To4(); dotted != nil {
			block = &net.IPNet{IP: ip.To4().Mask(net.IPMask(dotted)), Mask: net.IPMask(dotted)}
		} else if _, parsed, err := net.ParseCIDR(name); err == nil {
			block = parsed
		}
		return block != nil && slices.ContainsFunc(addresses, func(a *net.IPNet) bool { return block.Contains(a.IP) })
	}
	return slices.ContainsFunc(addresses, func(a *net.IPNet) bool {
		return a.IP.Equal(ip) || a.IP.Mask(a.Mask).Equal(ip)
	})
}

// readNetgroups asks the name service for every netgroup that the rules name.
func (p *policy) readNetgroups(ctx context.Context, g *graph, parsed *sudoPolicy) {
	var lists [][]sudoMember
	for _, aliases := range []map[string][]sudoMember{parsed.UserAliases, parsed.RunasAliases, parsed.HostAliases} {
		for _, list := range aliases {
			lists = append(lists, list)
		}
	}
	for _, s := range parsed.Specs {
		lists = append(lists, s.Users, s.Hosts)
		for _, c := range s.Commands {
			lists = append(lists, c.RunasUsers)
		}
	}
	names := map[string]bool{}
	for _, list := range lists {
		for _, m := range list {
			if m.kind == "netgroup" {
				names[m.value] = true
			}
		}
	}
	for _, name := range slices.Sorted(mapsKeys(names)) {
		if !p.machine.here() {
			g.gap(ScopeSudoers, fmt.Sprintf("netgroup +%s is not known away from its machine", name))
			continue
		}
		out, _, err := run(ctx, nil, "getent", "netgroup", name)
		if failed, ok := errors.AsType[*commandError](err); ok && failed.code == 2 {
			// There is no such netgroup, so nobody is in it.
			continue
		}
		if err != nil {
			reason := err.Error()
			if errors.Is(err, exec.ErrNotFound) {
				reason = "getent is not installed"
			}
			g.gap(ScopeSudoers, fmt.Sprintf("netgroup +%s is not known: %s", name, reason))
			continue
		}
		p.netgroups[name] = parseNetgroup(string(out))
	}
}

// parseNetgroup reads `name (host,user,domain) (…)`. Triples of another domain are kept: this machine has none to compare with.
func parseNetgroup(line string) []netgroupEntry {
	var out []netgroupEntry
	for part := range strings.SplitSeq(line, "(") {
		triple, _, ok := strings.Cut(part, ")")
		f := strings.Split(triple, ",")
		if ok && len(f) == 3 {
			out = append(out, netgroupEntry{host: strings.TrimSpace(f[0]), user: strings.TrimSpace(f[1])})
		}
	}
	return out
}
