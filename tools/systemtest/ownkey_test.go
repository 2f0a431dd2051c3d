package systemtest

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ownOperator is an operator with a key of their own: on this machine, which stands for theirs, with another home, without the plane's, and
// where the test is root as another user, who can read nothing of it.
type ownOperator struct {
	t    *testing.T
	name string
	home string
}

// otherUser is nobody that a plane gives its processes.
const otherUser = 64_999

func newOwnOperator(t *testing.T, name string) *ownOperator {
	t.Helper()
	o := &ownOperator{t: t, name: name, home: filepath.Join(walkable(t), name)}
	if err := os.Mkdir(o.home, 0o700); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(programs, "fleet"))
	if err != nil {
		t.Fatal(err)
	}
	o.put("fleet", program, 0o700)
	if os.Geteuid() == 0 {
		if err := os.Chown(o.home, otherUser, otherUser); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (o *ownOperator) key() string { return filepath.Join(o.home, "key") }

// put is a file of theirs.
func (o *ownOperator) put(name string, text []byte, mode fs.FileMode) {
	o.t.Helper()
	file := filepath.Join(o.home, name)
	if err := os.WriteFile(file, text, mode); err != nil {
		o.t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, otherUser, otherUser); err != nil {
			o.t.Fatal(err)
		}
	}
}

// fleet works as them.
func (o *ownOperator) fleet(args ...string) said {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), filepath.Join(o.home, "fleet"), args...)
	cmd.Dir = o.home
	cmd.Env = []string{"HOME=" + o.home, "A3_HOME=" + filepath.Join(o.home, "no-plane"), "A3_OPERATOR_DIR=" + o.key()}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUser, Gid: otherUser}}
	}
	s, err := finish(cmd)
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

func (o *ownOperator) must(args ...string) string {
	o.t.Helper()
	s := o.fleet(args...)
	if s.code != 0 {
		o.t.Fatalf("%s: fleet %s: %s", o.name, strings.Join(args, " "), s)
	}
	return s.out
}

func (o *ownOperator) refused(words string, args ...string) {
	o.t.Helper()
	if s := o.fleet(args...); s.code == 0 || !strings.Contains(s.err, words) {
		o.t.Errorf("%s: fleet %s: want a refusal that says %q: %s", o.name, strings.Join(args, " "), words, s)
	}
}

// added has the plane's machine put them on record, and takes what it hands back.
func (o *ownOperator) added(p *plane) (saying string) {
	o.t.Helper()
	dir := o.t.TempDir()
	request, back := filepath.Join(dir, "request.pem"), filepath.Join(dir, "back.json")
	if err := os.WriteFile(request, []byte(o.must("operator", "request", o.name)), 0o600); err != nil {
		o.t.Fatal(err)
	}
	saying = p.must(o.t, "operator", "add", o.name, "--request", request, "--out", back, "--reason", "the test needs an approver")
	text, err := os.ReadFile(back)
	if err != nil {
		o.t.Fatal(err)
	}
	if strings.Contains(string(text), "PRIVATE") {
		o.t.Errorf("what is handed back holds a key: %s", text)
	}
	o.put("back.json", text, 0o600)
	o.must("operator", "accept", "back.json")
	return saying
}

// fingerprint is their key's, as they say it.
func (o *ownOperator) fingerprint() string {
	o.t.Helper()
	var said struct {
		KeyFingerprint string `json:"key_fingerprint"`
	}
	if err := json.Unmarshal([]byte(o.must("-o", "json", "operator", "request", o.name)), &said); err != nil || said.KeyFingerprint == "" {
		o.t.Fatalf("the request says no fingerprint: %v", err)
	}
	return said.KeyFingerprint
}

// In prod the second word comes with a key that the plane's machine never had, from a machine that has no plane; who is removed is nobody from
// the next call on, and what they approved is not begun.
func TestSecondWordComesWithAKeyThatThePlanesMachineNeverHad(t *testing.T) {
	full(t)
	t.Parallel()
	p := prodPlane(t)
	p.must(t, "release", "register", "--version", "1.0.0", "--artefact", "accessos="+filepath.Join(programs, "accessos"))
	reason := []string{"--reason", "read it, and it is what was asked for"}
	approve := func(hash string) []string { return append([]string{"approve", hash}, reason...) }

	// Keys of the plane's machine, however many names they have, are one hand.
	p.must(t, "operator", "add", "ann", "--reason", "works on the plane's machine")
	hash := p.plan(t, provision, "globex", "1.0.0")
	p.with("A3_OPERATOR=ann").refused(t, "fleet operator request", approve(hash)...)
	p.refused(t, "approve", "apply", hash)

	ben := newOwnOperator(t, "ben")
	ben.refused("fleet operator accept", "plan", "list")
	ben.added(p)
	if info, err := os.Stat(ben.key()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the key: %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"key.pem", "workload.pem"} {
		if info, err := os.Stat(filepath.Join(ben.key(), name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if again := p.must(t, "operator", "list"); !strings.Contains(again, "own "+ben.fingerprint()[:16]) {
		t.Errorf("the list doesn't show the key: %s", again)
	}
	if shown := ben.must("plan", "show", hash); !strings.Contains(shown, "with a key of their own, must approve it") {
		t.Errorf("ben is shown: %s", shown)
	}
	ben.refused("the plane's own machine", "apply", hash)
	ben.refused("the plane's own machine", "plan", "suspend", "--tenant", "globex", "--reason", "it is to be refused")
	ben.must("tenant", "list")
	ben.must("operation", "list")
	ben.must("rollout", "list")
	if said := ben.must(approve(hash)...); !strings.Contains(said, "with their own key "+ben.fingerprint()) {
		t.Errorf("the plan doesn't say with which key it was approved: %s", said)
	}

	// Another operator waits for ben's word, by the key that they say, and not by any that the plane's machine put there.
	carol := newOwnOperator(t, "carol")
	if said := carol.added(p); !strings.Contains(said, "wait for another operator's word") {
		t.Errorf("who added carol is told: %s", said)
	}
	carol.refused("fleet operator confirm", "plan", "list")
	p.refused(t, "can't confirm them", "operator", "confirm", "carol", "--key", carol.fingerprint(), "--reason", "a word of who added")
	p.with("A3_OPERATOR=ann").refused(t, "with a key of their own must confirm", "operator", "confirm", "carol", "--key", carol.fingerprint(), "--reason", "a word of the same machine")
	ben.refused("ask carol for the fingerprint", "operator", "confirm", "carol", "--reason", "a word without a look")
	ben.refused("--key is", "operator", "confirm", "carol", "--key", strings.Repeat("0", 16), "--reason", "a word for another key")
	ben.must("operator", "confirm", "carol", "--key", carol.fingerprint()[:16], "--reason", "carol read it to me")
	carol.must("plan", "list")

	carol.must("operator", "remove", "ben", "--reason", "ben left, case 4715")
	ben.refused("no operator of this plane", "plan", "list")
	p.refused(t, "was removed at", "apply", hash)
	if shown := carol.must("plan", "show", hash); !strings.Contains(shown, "which does not count: who gave it was removed at") {
		t.Errorf("carol is shown: %s", shown)
	}
	// On record again, with the same key: what was approved before stays void.
	ben.added(p)
	carol.must("operator", "confirm", "ben", "--key", ben.fingerprint(), "--reason", "ben came back")
	p.refused(t, "was removed at", "apply", hash)
	carol.must(approve(hash)...)
	p.must(t, "apply", hash)
	ben.must("licence", "show", "globex")
	ben.refused("the plane's own machine", "licence", "issue", "globex", "--plan", "standard", "--reason", "it is to be refused")
	// Who is to be put on record may have their name in the environment already.
	p.with("A3_OPERATOR=dora").must(t, "operator", "add", "dora", "--reason", "was an operator before there were records")

	// A key of the plane's machine goes with its operator.
	if _, err := os.Stat(filepath.Join(p.home, "pki", "operator-ann")); err != nil {
		t.Error(err)
	}
	p.must(t, "operator", "remove", "ann", "--reason", "works here no more")
	if _, err := os.Stat(filepath.Join(p.home, "pki", "operator-ann")); err == nil {
		t.Error("the key of who was removed is on the plane's machine still")
	}
	p.with("A3_OPERATOR=ann").refused(t, `no key of an operator "ann"`, "tenant", "list")
	if listed := carol.must("operator", "list"); !strings.Contains(listed, "removed") || !strings.Contains(listed, "active") {
		t.Errorf("the list says: %s", listed)
	}
	// Who has a directory of their own works on the plane's machine as well, as themselves.
	if os.Geteuid() == 0 {
		p.with("A3_OPERATOR_DIR="+carol.key()).must(t, "plan", "suspend", "--tenant", "globex", "--reason", "carol plans it")
		p.with("A3_OPERATOR_DIR="+carol.key(), "A3_OPERATOR=ann").refused(t, "set one of them", "tenant", "list")
	}
}
