// Package firewall keeps a plane's rules in the machine's packet filter, which close what Docker leaves open between containers and the
// rest: a container reaches nothing of the machine, not even what listens on all its addresses, a network that is internal reaches no
// other one, and one that leads out reaches no private address, no metadata service and no other tenant. Rules stand in chains of the
// plane's own, whole or not at all, beside everybody else's. It promises that what it took up is taken back by Remove and that it
// touches no other rule.
//
// Docker evaluates DOCKER-USER before its own rules and never changes it; what comes to the machine itself passes INPUT.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
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

func (r Rules) hookRule(h hook) []string {
	return []string{h.chain, "-i", r.Bridges + "+", "-m", "comment", "--comment", "a3 plane " + r.Plane, "-j", h.to}
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
	// Of an internal network only what stays in it passes here, and Docker decides that: between two bridges it has its own wall.
	lines = append(lines, fmt.Sprintf("-A %s -o %s+ -j RETURN", r.forward(), r.Bridges), fmt.Sprintf("-A %s -j DROP", r.forward()))
	return lines
}

// script replaces the plane's chains in one transaction of the kernel.
func (r Rules) script() string {
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
	script := r.script()
	if tool == "ip6tables" {
		// No network of the plane has IPv6; what a kernel gives an interface by itself leads nowhere.
		script = fmt.Sprintf("*filter\n:%s - [0:0]\n-A %s -j DROP\nCOMMIT\n", r.input(), r.input())
	}
	before, _ := output(ctx, tool, "-S", r.input()) // no chain yet is no rules
	beforeForward, _ := output(ctx, tool, "-S", r.forward())
	cmd := exec.CommandContext(ctx, tool+"-restore", "--noflush", "--wait=10")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return false, fmt.Errorf("write the plane's packet filter with %s-restore: %w: %s", tool, err, strings.TrimSpace(string(out)))
	}
	after, err := output(ctx, tool, "-S", r.input())
	if err != nil {
		return false, err
	}
	afterForward, _ := output(ctx, tool, "-S", r.forward())
	changed = before != after || beforeForward != afterForward
	for _, h := range r.hooks() {
		if tool == "ip6tables" && h.chain != "INPUT" {
			continue
		}
		rule := r.hookRule(h)
		if _, err := output(ctx, tool, append([]string{"-C"}, rule...)...); err == nil {
			continue
		}
		changed = true
		// Docker makes its chain with its first network, and leaves one that is there as it is.
		if _, missing := output(ctx, tool, "-S", h.chain); missing != nil {
			if _, err := output(ctx, tool, "-N", h.chain); err != nil {
				return changed, err
			}
		}
		// First, so that nobody's rule before it lets through what is closed here.
		if _, err := output(ctx, tool, append([]string{"-I", rule[0], "1"}, rule[1:]...)...); err != nil {
			return changed, err
		}
	}
	return changed, nil
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

// Standing says whether the plane's rules are in force.
func (r Rules) Standing(ctx context.Context) bool {
	for _, h := range r.hooks() {
		if _, err := output(ctx, "iptables", append([]string{"-C"}, r.hookRule(h)...)...); err != nil {
			return false
		}
	}
	rules, err := output(ctx, "iptables", "-S", r.input())
	return err == nil && strings.Contains(rules, "-A "+r.input()+" -j DROP")
}

func output(ctx context.Context, tool string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, tool, append([]string{"--wait", "10"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
