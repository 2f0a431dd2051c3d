package systemtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// The registry comes back from a backup of before an upgrade and a suspension: whoever restores it is told of both, and neither `plane up` nor
// `repair` undoes them, also after the machine was started anew. Each is known again by a plan, and nothing of it is touched but what isn't so.
func TestRestoredRegistryUndoesNeitherUpgradeNorSuspension(t *testing.T) {
	full(t)
	t.Parallel()
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := releaseOf(t, programs)
	releases := &rolling{plane: p, t: t, dir: dir}
	after := releases.register("1.4.0", otherDigest)
	third := releases.register("1.5.0", func(program []byte) []byte { return append(program, "a third"...) })
	planned := p.plan(t, registryv1.OperationKind_OPERATION_KIND_UPGRADE, "acme", third)
	begun := p.begun(t, "globex", after)
	backup := p.backUp(t, "plane")
	p.ok(t, "operation", "abort", begun, "--reason", "the window has ended")
	p.apply(t, p.plan(t, registryv1.OperationKind_OPERATION_KIND_UPGRADE, "acme", after))
	p.apply(t, p.plan(t, suspend, "globex", ""))
	if _, err := p.superuser(t, "postgres", "postgres").Exec(t.Context(), "DROP DATABASE registry WITH (FORCE)"); err != nil {
		t.Fatal(err)
	}
	upgraded := []string{"acme was brought to " + after + " here", "it is at " + before, "fleet plan upgrade --tenant acme --release " + after + " --reason"}
	suspended := []string{"globex was suspended here", "fleet plan suspend --tenant globex --reason"}
	s := p.fleet(t, "restore", "--from", backup.Name, "--to", "plane", "--reason", "Case 4711: its database was dropped")
	if s.code != 0 {
		t.Fatalf("restore: %s", s)
	}
	says(t, "the restore", s.err, append(append(upgraded, suspended...), "removed as an operator after the backup", "fleet operator list")...)

	were := p.pids(t)
	refused := func(what string, want []string, args ...string) {
		t.Helper()
		s := p.fleet(t, args...)
		if s.code == 0 {
			t.Errorf("%s undoes what was done since the backup: %s", what, s)
		}
		says(t, what, s.err, want...)
	}
	refused("plane up", append(upgraded, suspended...), "plane", "up")
	refused("repair of acme", upgraded, "repair", "--tenant", "acme")
	refused("a plan for acme", upgraded, "plan", "upgrade", "--tenant", "acme", "--release", third, "--reason", "a release further")
	refused("a plan that was made before", upgraded, "apply", planned)
	refused("what globex was in the midst of", suspended, "operation", "resume", begun)
	p.ok(t, "operation", "abort", begun, "--reason", "it was given up before the registry was lost")
	refused("a plan for globex", suspended, "plan", "upgrade", "--tenant", "globex", "--release", after, "--reason", "the release of acme")
	refused("repair of globex", suspended, "repair", "--tenant", "globex")
	if now := p.pids(t); !maps.Equal(now, were) {
		t.Errorf("what was refused touched something: of %v there is %v", were, now)
	}
	p.ok(t, "plane", "down")
	refused("plane up after all ended", append(upgraded, suspended...), "plane", "up")
	for unit := range p.pids(t) {
		for _, x := range p.tenants {
			if strings.HasPrefix(unit, x.id+"/") {
				t.Errorf("%s was started", unit)
			}
		}
	}

	p.apply(t, p.plan(t, registryv1.OperationKind_OPERATION_KIND_UPGRADE, "acme", after))
	p.apply(t, p.plan(t, suspend, "globex", ""))
	if s := p.ok(t, "plane", "up"); strings.Contains(s, "fleet plan") {
		t.Errorf("known again, they are still told of: %s", s)
	}
	if at := p.runs(t, p.tenants["acme"], "iam"); !strings.Contains(at, strings.TrimPrefix(after[strings.Index(after, "sha256:"):], "sha256:")) {
		t.Errorf("known again, acme runs %s and not %s", at, after)
	}
	within(t, time.Minute, func() error {
		if acme, globex := p.hostAnswers(t, "acme"), p.hostAnswers(t, "globex"); acme != http.StatusOK || globex != http.StatusNotFound {
			return fmt.Errorf("the host of acme answers %d, that of globex %d", acme, globex)
		}
		return nil
	})
	p.apply(t, p.plan(t, registryv1.OperationKind_OPERATION_KIND_RESUME, "globex", ""))
	p.ok(t, "plane", "up")
	if got := p.hostAnswers(t, "globex"); got != http.StatusOK {
		t.Errorf("resumed, globex answers %d", got)
	}
	p.givesUp(t, "acme", after, third)
}

// begun begins an upgrade, of which nothing is done yet, and answers its operation.
func (p *plane) begun(t *testing.T, slug, to string) string {
	t.Helper()
	res, err := registryv1.NewOperationWriteServiceClient(p.operator(t)).BeginOperation(t.Context(),
		&registryv1.BeginOperationRequest{PlanHash: p.plan(t, registryv1.OperationKind_OPERATION_KIND_UPGRADE, slug, to), Tenant: p.tenants[slug].id})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetOperation().GetId()
}

// givesUp gives an upgrade up before anything was started anew, of which this machine remembers the release to come: the registry knows of
// that one, and the set goes on with the present one.
func (p *plane) givesUp(t *testing.T, slug, from, to string) {
	t.Helper()
	x := p.tenants[slug]
	p.ok(t, "operation", "abort", p.begun(t, slug, to), "--reason", "the window has ended")
	file := filepath.Join(p.home, "plane.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	remembered := map[string]any{}
	if err := json.Unmarshal(text, &remembered); err != nil {
		t.Fatal(err)
	}
	runs := remembered["runs"].(map[string]any)
	if runs[x.id] != from {
		t.Errorf("it is remembered that %s runs %v and not %s", slug, runs[x.id], from)
	}
	runs[x.id] = to
	if text, err = json.Marshal(remembered); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	was := p.pids(t)
	p.ok(t, "plane", "up")
	p.ok(t, "repair", "--tenant", slug)
	if now := p.pids(t); !maps.Equal(now, was) {
		t.Errorf("after an upgrade that was given up, of %v there is %v", was, now)
	}
}

// says fails the test where a text lacks something.
func says(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s says nothing of %q: %s", what, w, text)
		}
	}
}

// runs is the program that a tenant's component runs.
func (p *plane) runs(t *testing.T, x *tenant, component string) string {
	t.Helper()
	program, err := os.Readlink(filepath.Join("/proc", fmt.Sprint(p.pids(t)[x.id+"/"+component]), "exe"))
	if err != nil {
		t.Fatal(err)
	}
	return program
}
