package firewall_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/firewall"
	"a3os.app/tools/internal/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// What others do to the machine's packet filter, or somebody by hand, is seen and put right, whichever part of the rules it takes out of force;
// nothing of theirs is touched, and rules that stand are left alone.
func TestRulesThatOthersTookOutOfForceAreSeenAndPutBack(t *testing.T) {
	enginetest.Need(t)
	do := func(tool string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", tool, args, err, out)
		}
		return string(out)
	}
	other := firewall.Rules{Plane: "other", Bridges: "a3other-"}
	r := firewall.Rules{Plane: "test", Bridges: "a3test-", Out: []firewall.Out{{Bridge: "a3test-e1"}, {Bridge: "a3test-e2", Closed: true}}, Inner: []string{"a3test-n1"}}
	for _, x := range []firewall.Rules{other, r} {
		if _, err := x.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = x.Remove(context.WithoutCancel(t.Context())) })
	}
	stands := func(after string) {
		t.Helper()
		for _, x := range []firewall.Rules{r, other} {
			if changed, err := x.Apply(t.Context()); err != nil || changed || !x.Standing(t.Context()) {
				t.Errorf("after %s the rules of %s stood, and were written anew %v (%v):\n%s", after, x.Plane, changed, err, do("iptables", "-S"))
			}
		}
	}
	stands("the beginning")
	for _, c := range []struct {
		what string
		harm func()
	}{
		{"all rules flushed", func() { do("iptables", "-F") }},
		{"all rules of the other family flushed", func() { do("ip6tables", "-F") }},
		{"the chain of what comes in flushed", func() { do("iptables", "-F", "A3-test-IN") }},
		{"the chain of what passes flushed", func() { do("iptables", "-F", "A3-test-FWD") }},
		{"one rule of it deleted", func() { do("iptables", "-D", "A3-test-FWD", "3") }},
		{"one rule of it inserted", func() { do("iptables", "-I", "A3-test-FWD", "-j", "ACCEPT") }},
		{"INPUT flushed", func() { do("iptables", "-F", "INPUT") }},
		{"DOCKER-USER flushed", func() { do("iptables", "-F", "DOCKER-USER") }},
		{"FORWARD flushed", func() { do("iptables", "-F", "FORWARD") }},
		{"a rule before it in INPUT", func() { do("iptables", "-I", "INPUT", "-j", "ACCEPT", "-m", "comment", "--comment", "theirs") }},
		{"a rule before it in FORWARD", func() { do("iptables", "-I", "FORWARD", "-j", "ACCEPT", "-m", "comment", "--comment", "theirs") }},
		{"a rule before it in DOCKER-USER", func() { do("iptables", "-I", "DOCKER-USER", "-j", "ACCEPT", "-m", "comment", "--comment", "theirs") }},
	} {
		c.harm()
		if r.Standing(t.Context()) {
			t.Errorf("%s: the rules pass for standing:\n%s", c.what, do("iptables", "-S"))
		}
		if changed, err := r.Apply(t.Context()); err != nil || !changed {
			t.Errorf("%s: the rules were put back %v (%v)", c.what, changed, err)
		}
		if _, err := other.Apply(t.Context()); err != nil {
			t.Error(err)
		}
		stands(c.what)
	}
	if rules := do("iptables", "-S"); strings.Count(rules, "theirs") != 3 || strings.Count(rules, "a3 plane test") != 2 {
		t.Errorf("what others wrote is gone, or a hook is there twice:\n%s", rules)
	}
}

// Docker makes a network by putting that one's rules before all others in FORWARD, and its own jump before those a moment later: that takes nothing
// out of force, and nobody is told that somebody did.
func TestMomentInWhichDockerMakesANetworkIsNobodysChange(t *testing.T) {
	enginetest.Need(t)
	r := firewall.Rules{Plane: "made", Bridges: "a3made-"}
	if _, err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Remove(context.WithoutCancel(t.Context())) })
	if out, err := exec.CommandContext(t.Context(), "iptables", "-I", "FORWARD", "-i", "br-made", "-j", "ACCEPT").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	moved := make(chan error, 1)
	time.AfterFunc(200*time.Millisecond, func() {
		cmd := exec.CommandContext(t.Context(), "iptables-restore", "--noflush")
		cmd.Stdin = strings.NewReader("*filter\n-D FORWARD -j DOCKER-USER\n-I FORWARD 1 -j DOCKER-USER\nCOMMIT\n")
		moved <- cmd.Run()
	})
	if changed, err := r.Apply(t.Context()); err != nil || changed {
		t.Errorf("while a network is made the rules are written anew %v (%v)", changed, err)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
}
