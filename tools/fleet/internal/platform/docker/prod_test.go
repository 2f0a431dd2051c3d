package docker_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/tools/internal/enginetest"
)

// A plane prod in containers: a tenant comes by a plan that a second operator approved, with a server of its own; and when the machine is
// lost, all of it comes back from the backups and the recovery key.
func TestStoryOfProdInContainers(t *testing.T) {
	enginetest.Need(t)
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	p := newPlane(t)
	backups := filepath.Join(t.TempDir(), "elsewhere")
	p.environ = []string{"A3_PLANE=prod", "A3_BACKUP_EVERY=none", "A3_BACKUP_DIR=" + backups}
	if up := p.fleet("plane", "up"); !strings.Contains(up, "fleet plan provision") {
		t.Errorf("it does not say what comes next:\n%s", up)
	}
	p.refuses(t, "fleet plan provision", "tenant", "create", "globex")
	p.environ = append(p.environ, "A3_PLANE=dev")
	p.refuses(t, "planes are sealed", "plane", "up")
	p.environ = p.environ[:len(p.environ)-1]
	p.approver(t)
	program := []string{"--artefact", "accessos=" + filepath.Join(p.bin, "accessos")}
	release := filepath.Join(t.TempDir(), "release")
	p.fleet(append([]string{"release", "build", "--version", "1.0.0", "--out", release}, program...)...)
	p.fleet(append([]string{"release", "register", "--release", release}, program...)...)
	p.refuses(t, "accept the tier database by name", "plan", "provision", "--tenant", "globex", "--release", "1.0.0", "--tier", "database", "--reason", "the story of prod")
	p.approved(t, "provision", "--release", "1.0.0")
	p.ownServerIsApart(t, "globex")
	p.reached(t, http.StatusOK)
	if _, holes, code := p.isolation(); code != 0 {
		t.Errorf("the proof finds:\n%s", strings.Join(holes, "\n"))
	}
	p.approved(t, "suspend")
	p.reached(t, http.StatusNotFound)
	p.approved(t, "resume")
	p.reached(t, http.StatusOK)

	recovery := filepath.Join(t.TempDir(), "recovery.json")
	p.fleet("backup", "recovery-key", recovery)
	last := p.backup(t, "--all")
	p.fleet("plane", "down", "--remove-data")
	p.nothingLeft(t)
	back := func(of string, args ...string) {
		var done restored
		p.json(t, &done, append(args, "--recovery-key", recovery)...)
		if !done.Serves || done.Verified.IsZero() {
			t.Errorf("%s came back as %+v", of, done)
		}
	}
	lost := func(of string) []string {
		return []string{"--from", last[of].Name, "--to", of, "--reason", "the machine burnt down"}
	}
	back("plane", append([]string{"restore"}, lost("plane")...)...)
	p.refuses(t, "fleet plan restore --from "+last["globex"].Name+" --to globex", "plane", "up")
	p.refuses(t, "fleet plan restore", append([]string{"restore", "--recovery-key", recovery}, lost("globex")...)...)
	p.fleet(append([]string{"release", "register", "--release", release}, program...)...)
	// Where the registry is now, ben is told once more, over the key that he has.
	again := filepath.Join(t.TempDir(), "back.json")
	p.fleet("operator", "add", "ben", "--request", filepath.Join(p.ben, "request.pem"), "--out", again, "--reason", "the machine burnt down")
	p.fleet("operator", "accept", again, "--dir", p.ben)
	back("globex", "apply", p.secondWord(t, append([]string{"restore"}, lost("globex")...), "--recovery-key", recovery))
	p.fleet("plane", "up")
	p.reached(t, http.StatusOK)
}

// refuses fails unless a command is refused, with these words.
func (p *plane) refuses(t *testing.T, words string, args ...string) {
	t.Helper()
	if out, err := p.command(args...).CombinedOutput(); err == nil || !strings.Contains(string(out), words) {
		t.Errorf("fleet %v: want a refusal that says %q: %v: %s", args, words, err, out)
	}
}

// approver has ben be an operator whose key is his own.
func (p *plane) approver(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	p.ben = filepath.Join(dir, "key")
	request, back := filepath.Join(p.ben, "request.pem"), filepath.Join(dir, "back.json")
	p.fleet("operator", "request", "ben", "--dir", p.ben)
	p.fleet("operator", "add", "ben", "--request", request, "--out", back, "--reason", "the story of prod")
	p.fleet("operator", "accept", back, "--dir", p.ben)
}

// approved plans a change of globex, and carries it out once a second operator approved it, and not before.
func (p *plane) approved(t *testing.T, kind string, more ...string) {
	t.Helper()
	p.fleet("apply", p.secondWord(t, append([]string{kind, "--tenant", "globex", "--reason", "the story of prod"}, more...)))
}

// secondWord is the hash of a plan that a second operator approved, and that isn't carried out before.
func (p *plane) secondWord(t *testing.T, args []string, apply ...string) string {
	t.Helper()
	var made struct{ Plan struct{ Hash string } }
	cmd := p.command(append([]string{"-o", "json", "plan"}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &made)
	}
	if err != nil {
		t.Fatalf("plan %v: %v: %s%s", args, err, out.String(), said.String())
	}
	approve := []string{"approve", made.Plan.Hash, "--reason", "read it, and it is what was asked for"}
	p.refuses(t, "approve", append([]string{"apply", made.Plan.Hash}, apply...)...)
	if out, err := p.command(approve...).CombinedOutput(); err == nil {
		t.Errorf("its author approved it: %s", out)
	}
	p.environ = append(p.environ, "A3_OPERATOR_DIR="+p.ben)
	p.fleet(approve...)
	p.environ = p.environ[:len(p.environ)-1]
	return made.Plan.Hash
}

// reached sees what globex's host answers.
func (p *plane) reached(t *testing.T, want int) {
	t.Helper()
	if got := p.answers(t, "globex"); got != want {
		t.Errorf("prod's tenant answers %d, want %d", got, want)
	}
}
