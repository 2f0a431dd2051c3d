package unix

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/connectortest"
)

var (
	oracleSeed  = flag.Uint64("unix.seed", 1, "first seed of the random machines")
	oracleCount = flag.Int("unix.count", 0, "how many random machines; 0 means 100, or 10 with -short")
)

// insideEnv tells the test binary that it runs in namespaces of its own, where it may write /etc.
const insideEnv = "A3_TEST_UNIX_INSIDE"

// TestSudoIdAndPasswdAgreeWithTheGraph makes random machines in a mount namespace of its own, whose /etc is a throwaway copy, and
// compares what the connector found, every second time through a machine reader, with what the machine's own programs answer: sudo for
// every account, target and command, id for every membership, passwd for every account's state. One machine again: -unix.seed=N
// -unix.count=1.
func TestSudoIdAndPasswdAgreeWithTheGraph(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		compareMachines(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: only root may make a mount namespace and ask sudo about others")
	}
	for _, name := range []string{"sudo", "cvtsudoers", "id", "passwd", "getent"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: there is nothing to compare with", name)
		}
	}
	etc := filepath.Join(t.TempDir(), "etc")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
		t.Fatalf("copy /etc: %v: %s", err, out)
	}
	args := []string{"-test.run=^TestSudoIdAndPasswdAgreeWithTheGraph$", "-test.v", fmt.Sprintf("-test.short=%t", testing.Short()),
		fmt.Sprintf("-unix.seed=%d", *oracleSeed), fmt.Sprintf("-unix.count=%d", *oracleCount)}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+etc)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("namespaces can't be made here: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in the namespace: %v", err)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip("see above")
	}
}

func compareMachines(t *testing.T) {
	etc := os.Getenv(insideEnv)
	if err := syscall.Mount(etc, "/etc", "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("a copy can't be mounted on /etc: %v", err)
	}
	// From here on /etc is the copy: proved before anything is written.
	marker := filepath.Join(etc, "a3-throwaway")
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/etc/a3-throwaway"); err != nil {
		t.Fatalf("/etc is not the copy: %v", err)
	}
	if err := syscall.Sethostname([]byte("box")); err != nil {
		t.Skipf("the host name of the namespace can't be set: %v", err)
	}
	count := *oracleCount
	if count == 0 {
		if count = 100; testing.Short() {
			count = 10
		}
	}
	asked, yes := 0, 0
	for i := range count {
		seed := *oracleSeed + uint64(i) //nolint:gosec // i is small and positive
		a, y := compareMachine(t, seed)
		asked, yes = asked+a, yes+y
		if t.Failed() {
			t.Fatalf("seed %d differs; see it alone with -unix.seed=%d -unix.count=1", seed, seed)
		}
	}
	t.Logf("%d machines, %d questions to sudo, %d of them answered with yes", count, asked, yes)
}

// question is one that sudo is asked.
type question struct {
	who, target, group string
	command            []string
}

// itself says that sudo must be asked by the account and not by root for it: asked with -U, sudo takes root for the one who asks
// wherever a rule speaks of "oneself", as it does with an empty list of targets and for -g.
func (q question) itself() bool {
	return q.who != "root" && (q.group != "" || q.target == q.who || q.target == "root")
}

func (q question) args() []string {
	args := []string{"-n", "-l"}
	if !q.itself() {
		args = append(args, "-U", q.who)
	}
	if q.target != "" {
		args = append(args, "-u", q.target)
	}
	if q.group != "" {
		args = append(args, "-g", q.group)
	}
	return append(args, q.command...)
}

func compareMachine(t *testing.T, seed uint64) (asked, yes int) {
	t.Helper()
	made := randomMachine(rand.New(rand.NewPCG(seed, 0)))
	made.write(t)
	read := New("/", nil)
	if seed%2 == 0 {
		// What a machine reader hands over has to say the same.
		read = New("/", answering(handedOver(t, "/")))
	}
	found := connectortest.ReadAll(t, read, connector.Source{Settings: &integrationsv1.Settings{
		Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{}},
	}}, nil)
	for scope, reasons := range found.Gaps {
		t.Errorf("seed %d: %s has gaps: %q", seed, scope, reasons)
	}
	view := newView(t, found.Records)
	compareAccounts(t, seed, made, view)

	var questions []question
	ask := func(q question) {
		// An account that isn't the first of its uid can't be the one who asks.
		if !q.itself() || made.ownUID(q.who) {
			questions = append(questions, q)
		}
	}
	for _, who := range made.users {
		for _, command := range made.asked {
			for _, target := range made.users {
				ask(question{who: who.name, target: target.name, command: command})
			}
			for _, g := range made.groups {
				if !view.member(who.name, g.name) {
					ask(question{who: who.name, group: g.name, command: command})
				}
			}
		}
	}
	answers := make([]bool, len(questions))
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			for i := worker; i < len(questions); i += 2 {
				cmd := exec.CommandContext(t.Context(), "sudo", questions[i].args()...)
				if questions[i].itself() {
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: made.credential(questions[i].who)}
				}
				out, err := cmd.Output()
				answers[i] = err == nil && len(out) > 0
			}
		})
	}
	wg.Wait()
	for i, q := range questions {
		if answers[i] {
			yes++
		}
		if got := view.allows(q); got != answers[i] {
			t.Errorf("seed %d: as %s: sudo %s: sudo says %t, the graph %t", seed, q.who, strings.Join(q.args(), " "), answers[i], got)
		}
		// Whoever gets a shell as somebody can do all they can; that is more than sudo was asked, and must follow.
		if answers[i] && q.target != "" && slices.Equal(q.command, []string{"/bin/sh"}) && !view.becomes(q.who, q.target) {
			t.Errorf("seed %d: %s can have a shell as %s and can't become it", seed, q.who, q.target)
		}
	}
	if t.Failed() {
		t.Logf("seed %d:\n%s\nheld: %s", seed, made, view)
	}
	return len(questions), yes
}

// compareAccounts compares memberships with id and states with passwd -S.
func compareAccounts(t *testing.T, seed uint64, made *madeMachine, view *view) {
	t.Helper()
	for _, u := range made.users {
		want := map[string]bool{}
		for _, gid := range gidsByOracle(t, made, u.name) {
			// A gid that no group has is no group of the graph; the account carries it as an attribute.
			if slices.ContainsFunc(made.groups, func(g madeGroup) bool { return strconv.Itoa(g.gid) == gid }) {
				want[gid] = true
			}
		}
		got := map[string]bool{}
		for _, g := range made.groups {
			if view.member(u.name, g.name) {
				got[strconv.Itoa(g.gid)] = true
			}
		}
		if !maps.Equal(want, got) {
			t.Errorf("seed %d: id -G %s says %v, the graph %v", seed, u.name, want, got)
		}
		out := output(t, "passwd", "-S", u.name)
		words := map[string]string{"L": "locked", "NP": "empty", "P": "set"}
		if want, got := words[strings.Fields(out)[1]], view.accounts[u.name].GetAttributes()["password"]; want != got {
			t.Errorf("seed %d: passwd -S %s says %s, the graph %q", seed, u.name, out, got)
		}
	}
}

// gidsByOracle asks id for an account's groups. Of accounts that share a uid, id answers the primary group of the first for all of
// them; the others are asked of the name service, which is what their logins go by.
func gidsByOracle(t *testing.T, made *madeMachine, name string) []string {
	t.Helper()
	if made.ownUID(name) {
		return strings.Fields(output(t, "id", "-G", name))
	}
	return append(strings.Fields(output(t, "getent", "initgroups", name))[1:], strings.Split(output(t, "getent", "passwd", name), ":")[3])
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}
