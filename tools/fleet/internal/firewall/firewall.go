// Package firewall keeps a plane's rules in the machine's packet filter, which close what Docker leaves open between containers and the
// rest: a container reaches nothing of the machine, not even what listens on all its addresses, a network that is internal reaches no
// other one, and one that leads out reaches no private address, no metadata service and no other tenant. Rules stand in chains of the
// plane's own, whole or not at all, beside everybody else's. It promises that what it took up is taken back by Remove and that it
// touches no other rule.
//
// Docker evaluates DOCKER-USER before its own rules and never changes it; what comes to the machine itself passes INPUT. Others change both: a
// firewall that is loaded anew empties them.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// Out is a network that leads out of the machine.
type Out struct {
	// Bridge is the machine's interface of it.
	Bridge string
	// Allowed are private networks that it may reach all the same.
	Allowed []netip.Prefix
	// Closed leads nowhere: what is in it answers, and calls nobody.
	Closed bool
}

// Rules of a plane.
type Rules struct {
	// Plane is the plane's id, in the names of chains.
	Plane string
	// Bridges is what the names of all of the plane's bridges begin with.
	Bridges string
	// Out are those of them that lead out; no other does.
	Out []Out
	// Inner are the bridges of the others.
	Inner []string
}

// Private is what no container reaches through a network that leads out: private, shared and link-local networks (RFC 1918, 6598, 3927),
// where metadata services and other tenants are, loopback, and what is for no host (RFC 6890, 5771).
var Private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("224.0.0.0/3"),
}

// Chains of a plane: what comes to the machine, and what passes through it.
func (r Rules) input() string   { return "A3-" + r.Plane + "-IN" }
func (r Rules) forward() string { return "A3-" + r.Plane + "-FWD" }

// hook is a rule of another chain that leads to one of the plane's.
type hook struct{ chain, to string }

func (r Rules) hooks() []hook {
	return []hook{{"INPUT", r.input()}, {"DOCKER-USER", r.forward()}}
}

// planes begins the comment of every plane's hooks.
const planes = "a3 plane "

func (r Rules) hookRule(h hook) []string {
	return []string{h.chain, "-i", r.Bridges + "+", "-m", "comment", "--comment", planes + r.Plane, "-j", h.to}
}

// leads says whether a hook is there, and first: nobody's rule before it lets through what is closed here. Before it are those of other planes
// at most.
func (r Rules) leads(ctx context.Context, tool string, h hook) (there, first bool) {
	if _, err := output(ctx, tool, append([]string{"-C"}, r.hookRule(h)...)...); err != nil {
		return false, false
	}
	rules, err := output(ctx, tool, "-S", h.chain)
	for rule := range strings.Lines(rules) {
		if rule, of := strings.CutPrefix(rule, "-A "+h.chain+" "); of && err == nil {
			if strings.Contains(rule, planes+r.Plane+"\"") {
				return true, true
			}
			if !strings.Contains(rule, "\""+planes) {
				return true, false
			}
		}
	}
	return true, false
}

// hooksOf are the hooks of a tool: what has IPv6 passes nowhere, for no network of the plane has it.
func (r Rules) hooksOf(tool string) []hook {
	if tool == "ip6tables" {
		return r.hooks()[:1]
	}
	return r.hooks()
}

// passes is Docker's own rule by which what passes through the machine comes to DOCKER-USER; a firewall that was emptied lacks it until Docker is
// started anew.
var passes = []string{"FORWARD", "-j", "DOCKER-USER"}

// settles is how long Docker is given to put its own rule first again: it makes a network by putting that one's rules before all, and this one
// before those.
const settles = time.Second

// passing says whether that rule is there, and first: what a rule before it accepts comes to none of the plane's.
func passing(ctx context.Context) (there, first bool) {
	enough, tick := time.After(settles), time.NewTicker(settles/10)
	defer tick.Stop()
	for {
		_, missing := output(ctx, "iptables", append([]string{"-C"}, passes...)...)
		rules, err := output(ctx, "iptables", "-S", passes[0])
		_, rules, _ = strings.Cut(rules, "\n") // the chain's policy
		if err == nil && strings.HasPrefix(rules, "-A "+strings.Join(passes, " ")+"\n") {
			return true, true
		}
		select {
		case <-ctx.Done():
			return missing == nil, false
		case <-enough:
			return missing == nil, false
		case <-tick.C:
		}
	}
}

// lines are the plane's chains, in the form of iptables-restore(8).
func (r Rules) lines() []string {
	const answers = "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
	lines := []string{
		// The machine calls its containers; they answer, and that is all.
		"-A " + r.input() + " " + answers,
		"-A " + r.input() + " -j DROP",
		"-A " + r.forward() + " " + answers,
	}
	for _, out := range r.Out {
		// A machine that filters bridges shows what stays inside of one here as well.
		lines = append(lines, fmt.Sprintf("-A %s -i %s -o %s -j RETURN", r.forward(), out.Bridge, out.Bridge))
		if out.Closed {
			continue
		}
		for _, to := range out.Allowed {
			lines = append(lines, fmt.Sprintf("-A %s -i %s -d %s ! -o %s+ -j RETURN", r.forward(), out.Bridge, to, r.Bridges))
		}
		for _, to := range Private {
			lines = append(lines, fmt.Sprintf("-A %s -i %s -d %s -j DROP", r.forward(), out.Bridge, to))
		}
		lines = append(lines, fmt.Sprintf("-A %s -i %s ! -o %s+ -j RETURN", r.forward(), out.Bridge, r.Bridges))
	}
	for _, bridge := range r.Inner {
		lines = append(lines, fmt.Sprintf("-A %s -i %s -o %s -j RETURN", r.forward(), bridge, bridge))
	}
	// Docker has a wall between two bridges as well, which others' rules may come before.
	return append(lines, fmt.Sprintf("-A %s -j DROP", r.forward()))
}

// script replaces the plane's chains.
func (r Rules) script(tool string) string {
	if tool == "ip6tables" {
		// What a kernel gives an interface by itself leads nowhere.
		return fmt.Sprintf("*filter\n:%s - [0:0]\n-A %s -j DROP\nCOMMIT\n", r.input(), r.input())
	}
	return fmt.Sprintf("*filter\n:%s - [0:0]\n:%s - [0:0]\n%s\nCOMMIT\n", r.input(), r.forward(), strings.Join(r.lines(), "\n"))
}

// Apply has the rules stand as described, and says whether they stood otherwise.
func (r Rules) Apply(ctx context.Context) (changed bool, err error) {
	for _, tool := range []string{"iptables", "ip6tables"} {
		did, err := r.apply(ctx, tool)
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

func (r Rules) apply(ctx context.Context, tool string) (changed bool, err error) {
	before, _ := output(ctx, tool, "-S", r.input()) // no chain yet is no rules
	beforeForward, _ := output(ctx, tool, "-S", r.forward())
	if err := restore(ctx, tool, r.script(tool)); err != nil {
		return false, err
	}
	after, err := output(ctx, tool, "-S", r.input())
	if err != nil {
		return false, err
	}
	afterForward, _ := output(ctx, tool, "-S", r.forward())
	changed = before != after || beforeForward != afterForward
	for _, h := range r.hooksOf(tool) {
		there, first := r.leads(ctx, tool, h)
		if first {
			continue
		}
		changed = true
		// Docker makes its chain with its first network, and leaves one that is there as it is.
		if _, missing := output(ctx, tool, "-S", h.chain); missing != nil {
			if _, err := output(ctx, tool, "-N", h.chain); err != nil {
				return changed, err
			}
		}
		rule := r.hookRule(h)
		quoted := strings.Replace(strings.Join(rule[1:], " "), planes+r.Plane, fmt.Sprintf("%q", planes+r.Plane), 1)
		script := fmt.Sprintf("-I %s 1 %s\n", h.chain, quoted)
		if there {
			script = fmt.Sprintf("-D %s %s\n", h.chain, quoted) + script
		}
		if err := restore(ctx, tool, "*filter\n"+script+"COMMIT\n"); err != nil {
			return changed, err
		}
	}
	if tool == "ip6tables" {
		return changed, nil
	}
	there, first := passing(ctx)
	if first {
		return changed, nil
	}
	script := fmt.Sprintf("-I %s 1 %s\n", passes[0], strings.Join(passes[1:], " "))
	if there {
		script = "-D " + strings.Join(passes, " ") + "\n" + script
	}
	return true, restore(ctx, tool, "*filter\n"+script+"COMMIT\n")
}

// restore changes chains in one transaction of the kernel.
func restore(ctx context.Context, tool, script string) error {
	cmd := exec.CommandContext(ctx, tool+"-restore", "--noflush", "--wait=10")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write the plane's packet filter with %s-restore: %w: %s", tool, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Remove takes the plane's rules away.
func (r Rules) Remove(ctx context.Context) (changed bool, err error) {
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, h := range r.hooks() {
			for {
				if _, gone := output(ctx, tool, append([]string{"-D"}, r.hookRule(h)...)...); gone != nil {
					break
				}
				changed = true
			}
			if _, missing := output(ctx, tool, "-S", h.to); missing != nil {
				continue
			}
			changed = true
			_, flushed := output(ctx, tool, "-F", h.to)
			_, removed := output(ctx, tool, "-X", h.to)
			if err := errors.Join(flushed, removed); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// Standing says whether the plane's rules are in force, as far as that shows without writing them: each chain with as many rules as it has, its
// last word no, and what leads there before everybody else's.
func (r Rules) Standing(ctx context.Context) bool {
	if _, first := passing(ctx); !first {
		return false
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, h := range r.hooksOf(tool) {
			rules, err := output(ctx, tool, "-S", h.to)
			if _, first := r.leads(ctx, tool, h); err != nil || !first || !strings.HasSuffix(rules, "-A "+h.to+" -j DROP\n") ||
				strings.Count(rules, "-A "+h.to+" ") != strings.Count(r.script(tool), "-A "+h.to+" ") {
				return false
			}
		}
	}
	return true
}

func output(ctx context.Context, tool string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, tool, append([]string{"--wait", "10"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
