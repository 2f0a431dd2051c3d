package systemtest

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// twoOperators is a plane prod with globex, and with ben, without whom nothing is done to it.
type twoOperators struct {
	*plane
	t   *testing.T
	ben *ownOperator
}

const approvedWhy = "read it, and it is what was asked for"

// restoring is the hash of a plan that puts globex back to a backup.
func (p *twoOperators) restoring(from string, more ...string) string {
	p.t.Helper()
	var made struct{ Plan struct{ Hash string } }
	args := append([]string{"plan", "restore", "--from", from, "--to", "globex", "--reason", "Case 4711: globex lost its data"}, more...)
	if err := p.json(p.t.Context(), &made, args...); err != nil {
		p.t.Fatal(err)
	}
	return made.Plan.Hash
}

// In prod a tenant is put back by a plan that a second operator approved, once, also where that is interrupted at any point; and when the machine is
// lost, each tenant comes back by the words of two, after the plane itself, by one's.
func TestTenantOfProdIsRestoredByTheWordsOfTwo(t *testing.T) {
	full(t)
	t.Parallel()
	p := &twoOperators{plane: prodPlane(t), t: t, ben: newOwnOperator(t, "ben")}
	p.ben.added(p.plane)
	prodsTenantIsPlannedAndApproved(t, p.plane, p.ben)
	recovery := filepath.Join(t.TempDir(), "recovery.json")
	p.must(t, "backup", "recovery-key", recovery)
	made := p.backUp(t, "globex")

	p.refused(t, "fleet plan restore --from "+made.Name+" --to globex --replace", "restore", "--from", made.Name, "--to", "globex", "--replace", "--reason", "nobody else was asked")
	p.refused(t, "plan it with --replace", "plan", "restore", "--from", made.Name, "--to", "globex", "--reason", "it runs, and is to run on")
	p.refused(t, "fleet restore --from BACKUP --to plane", "plan", "restore", "--from", made.Name, "--to", "plane", "--reason", "the plane by a plan")
	p.refused(t, "there is no backup", "plan", "restore", "--from", "20200101T000000Z-aaaaaa", "--to", "globex", "--reason", "there is no such backup")
	suspends := p.plan(t, suspend, "globex", "")
	p.refused(t, "the plan is to suspend", "apply", suspends, "--recovery-key", recovery)

	hash := p.restoring(made.Name, "--replace")
	for _, says := range []string{made.Name, "its manifest is sha256:", "GIVES UP    what was written since", "stops       the set, where it runs", "must approve it"} {
		if shown := p.ben.must("plan", "show", hash); !strings.Contains(shown, says) {
			t.Errorf("ben isn't shown %q: %s", says, shown)
		}
	}
	p.refused(t, "fleet approve", "apply", hash)
	if s := p.fleet(t, "approve", hash, "--reason", approvedWhy); s.code == 0 {
		t.Errorf("its author approved it: %s", s)
	}
	p.ben.must("approve", hash, "--reason", approvedWhy)
	p.killed(hash, p.tenantID())
	if s := p.fleet(t, "apply", hash); s.code != 0 || !strings.Contains(s.out, "globex serves, as of") {
		t.Errorf("what was interrupted is gone on with: %s", s)
	}
	p.reached(http.StatusOK)
	p.refused(t, "restores nothing a second time", "apply", hash)
	if shown := p.must(t, "plan", "show", hash); !strings.Contains(shown, "carried out at") || strings.Contains(shown, "fleet apply") {
		t.Errorf("a plan that was carried out says: %s", shown)
	}

	// Another backup than was planned is not restored, nor one that isn't there any more.
	other := p.restoring(made.Name, "--replace")
	p.ben.must("approve", other, "--reason", approvedWhy)
	if err := os.Rename(made.Dir, made.Dir+"-gone"); err != nil {
		t.Fatal(err)
	}
	p.refused(t, "there is no backup", "apply", other)
	if err := os.Rename(made.Dir+"-gone", made.Dir); err != nil {
		t.Fatal(err)
	}
	p.machineIsLost(recovery)
}

func (p *twoOperators) tenantID() string {
	p.t.Helper()
	var shown struct{ Tenant struct{ ID string } }
	if err := p.json(p.t.Context(), &shown, "tenant", "show", "globex"); err != nil {
		p.t.Fatal(err)
	}
	return shown.Tenant.ID
}

func (p *twoOperators) reached(want int) {
	p.t.Helper()
	if got := p.hostAnswers(p.t, "globex"); got != want {
		p.t.Errorf("prod's tenant answers %d, want %d", got, want)
	}
}

// killed kills who carries a restore out: before the set is stopped, while it is put back, and once that is on record, before it serves. What is to do
// then is said.
func (p *twoOperators) killed(hash, tenant string) {
	p.t.Helper()
	at := *p.plane
	at.programs = fleetWithFailpoints(p.t, "")
	dies := func(point string) {
		p.t.Helper()
		at.environ = append(slices.Clone(p.environ), "A3_FAILPOINT="+point+" kill")
		if s := at.fleet(p.t, "apply", hash); s.code != -1 && !strings.Contains(s.err, "signal: killed") {
			p.t.Fatalf("to be killed at %s it ended with: %s", point, s)
		}
	}
	dies("fleet.restore.begun")
	p.reached(http.StatusOK)
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(programs, "fleet"), "apply", hash)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = p.environ, &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "the restore begins to replace", func() bool {
		_, err := os.Stat(filepath.Join(p.home, "restoring", tenant+".json"))
		return err == nil
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		p.t.Fatalf("the restore ended before it could be killed: %v: %s", err, out.String())
	}
	_ = cmd.Wait()
	p.refused(p.t, "run it again: fleet apply "+hash, "repair", "--tenant", "globex")
	dies("fleet.restore.recorded")
	p.refused(p.t, "run it again: fleet apply "+hash, "repair", "--tenant", "globex")
}

// machineIsLost removes the plane with all that it has but its backups, and brings it back as docs/operations.md has two operators do it.
func (p *twoOperators) machineIsLost(recovery string) {
	p.t.Helper()
	var all []struct{ Set, Slug, Name string }
	if err := p.json(p.t.Context(), &all, "backup", "--all"); err != nil {
		p.t.Fatal(err)
	}
	last := map[string]string{}
	for _, b := range all {
		last[b.Slug] = b.Name
	}
	backups := filepath.Join(walkable(p.t), "backups")
	if err := os.CopyFS(backups, os.DirFS(filepath.Join(p.home, "backups"))); err != nil {
		p.t.Fatal(err)
	}
	p.must(p.t, "plane", "down", "--remove-data")
	p.environ = append(p.environ, "A3_BACKUP_DIR="+backups)
	const why = "Case 4712: the machine burnt down"
	p.must(p.t, "restore", "--from", last["plane"], "--to", "plane", "--recovery-key", recovery, "--reason", why)
	p.refused(p.t, "fleet plan restore --from "+last["globex"]+" --to globex", "restore", "--from", last["globex"], "--to", "globex", "--recovery-key", recovery, "--reason", why)
	p.refused(p.t, "fleet plan restore --from "+last["globex"]+" --to globex", "plane", "up")
	p.must(p.t, "release", "register", "--version", "1.0.0", "--artefact", "accessos="+filepath.Join(programs, "accessos"))
	hash := p.restoring(last["globex"])
	p.refused(p.t, "fleet approve", "apply", hash, "--recovery-key", recovery)
	// Ben's key and record are what they were; where the registry is now, what he is handed over his key once more says.
	if said := p.ben.added(p.plane); strings.Contains(said, "wait for another operator's word") {
		p.t.Errorf("ben came back with the registry, and is to wait: %s", said)
	}
	p.ben.must("approve", hash, "--reason", approvedWhy)
	p.refused(p.t, "--recovery-key", "apply", hash)
	if said := p.must(p.t, "apply", hash, "--recovery-key", recovery); !strings.Contains(said, "globex serves, as of") {
		p.t.Errorf("it says: %s", said)
	}
	p.must(p.t, "plane", "up")
	p.reached(http.StatusOK)
	p.must(p.t, "plane", "down")
	if said := p.must(p.t, "plane", "up"); !strings.Contains(said, "https://globex.") {
		p.t.Errorf("brought up again it says: %s", said)
	}
	p.reached(http.StatusOK)
}
