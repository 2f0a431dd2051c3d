package systemtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// rolling is a plane with releases to roll out.
type rolling struct {
	*plane
	t   *testing.T
	dir string
}

func newRolling(t *testing.T, tenants string) *rolling {
	t.Helper()
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS="+tenants, "A3_UNIX_TENANTS=none")
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &rolling{plane: p, t: t, dir: dir}
}

func (r *rolling) fleet(args ...string) said {
	r.t.Helper()
	s, err := r.command(r.t.Context(), "fleet", args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rolling) must(args ...string) string {
	r.t.Helper()
	s := r.fleet(args...)
	if s.code != 0 {
		r.t.Fatalf("fleet %s: %s", strings.Join(args, " "), s)
	}
	return s.out
}

// register makes a release of the program under test, changed as change says, and answers its name.
func (r *rolling) register(version string, change func(program []byte) []byte) string {
	r.t.Helper()
	program, err := os.ReadFile(filepath.Join(programs, "accessos"))
	if err != nil {
		r.t.Fatal(err)
	}
	file := filepath.Join(r.dir, "accessos-"+version)
	if err := os.WriteFile(file, change(program), 0o755); err != nil {
		r.t.Fatal(err)
	}
	var res registryv1.ListReleasesResponse
	if err := protojson.Unmarshal([]byte(r.must("release", "register", "--version", version, "--artefact", "accessos="+file, "-o", "json")), &res); err != nil {
		r.t.Fatal(err)
	}
	return res.GetReleases()[0].GetName()
}

// otherDigest is the program with a digest of its own: what follows the end of an ELF file is never read.
func otherDigest(program []byte) []byte { return append(program, "another"...) }

// broken is the program as a release that can be migrated and can't serve: its iam knows its own setting by no name.
func broken(program []byte) []byte {
	return bytes.ReplaceAll(program, []byte(`env:"BOOTSTRAP_CODE_HASH"`), []byte(`env:"BOOTSTRAP_CODE_HAZH"`))
}

// unmigratable is the program as a release whose migrations fail: its migrate knows no schemas.
func unmigratable(program []byte) []byte {
	return bytes.ReplaceAll(program, []byte(`env:"SCHEMAS"`), []byte(`env:"SCHEMAZ"`))
}

// A release that fails before anything of it was started, which is how most fail, is taken back by the rollout itself; where it isn't to be,
// whoever resumes it has it tried anew, and hears what is wrong with the release.
func TestReleaseThatCantBeMigratedIsTakenBackByTheRolloutItself(t *testing.T) {
	full(t)
	t.Parallel()
	r := newRolling(t, "acme")
	first := r.runs("acme")
	r.register("1.1.0", unmigratable)
	halted := func(s said) *registryv1.Rollout {
		t.Helper()
		x := r.newest()
		if s.code == 0 || x.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED || !strings.Contains(x.GetDetail(), "A3_SCHEMAZ") {
			t.Fatalf("the rollout is %s: %s\n%s", x.GetState(), x.GetDetail(), s)
		}
		return x
	}
	back := halted(r.fleet("apply", r.rollout("1.1.0", "--tenant", "acme")))
	if x := back.GetTenants()[0]; x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK || r.runs("acme") != first {
		t.Errorf("acme is %s at %s, it was at %s", x.GetState(), r.runs("acme"), first)
	}
	r.must("rollout", "abort", back.GetId(), "--reason", "the release is bad")

	left := halted(r.fleet("apply", r.rollout("1.1.0", "--tenant", "acme", "--rollback", "none")))
	r.must("rollout", "resume", left.GetId(), "--reason", "it is tried once more")
	again := halted(r.fleet("rollout", "carry", left.GetId()))
	if x := again.GetTenants()[0]; x.GetAttempts() < 2 {
		t.Errorf("it was not tried anew: %v", x)
	}
	r.answers("acme")
}

// A registry that answers nobody for longer than a call waits, while a tenant is changed, is waited for by who changes it: no tenant fails by it.
func TestRegistryThatIsAwayHaltsNoRollout(t *testing.T) {
	full(t)
	t.Parallel()
	r := newRolling(t, "acme")
	r.register("1.1.0", otherDigest)
	applied := r.carry(r.rollout("1.1.0", "--tenant", "acme", "--bake", "1s", "--samples", "1"))
	r.under(0)
	pid := r.pids(t)["plane/registry"]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(75 * time.Second)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := applied.cmd.Wait(); err != nil || !strings.Contains(applied.out.String(), "waiting for it") {
		t.Errorf("it ended with %v: %s", err, applied.out)
	}
	if x := r.newest(); x.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED || x.GetTenants()[0].GetAttempts() != 1 {
		t.Errorf("the rollout is %v", x)
	}
}

// rollout plans one, of the tenants that more chooses, and answers the plan's hash.
func (r *rolling) rollout(version string, more ...string) string {
	r.t.Helper()
	args := append([]string{"rollout", "plan", "--release", version, "--reason", "the test rolls it out", "-o", "json"}, more...)
	var stored registryv1.StoredPlan
	if err := protojson.Unmarshal([]byte(r.must(args...)), &stored); err != nil {
		r.t.Fatal(err)
	}
	return stored.GetHash()
}

func (r *rolling) newest() *registryv1.Rollout {
	r.t.Helper()
	var all registryv1.ListRolloutsResponse
	if err := protojson.Unmarshal([]byte(r.must("rollout", "list", "-o", "json")), &all); err != nil {
		r.t.Fatal(err)
	}
	if len(all.GetRollouts()) == 0 {
		return nil
	}
	var res registryv1.GetRolloutResponse
	if err := protojson.Unmarshal([]byte(r.must("rollout", "status", all.GetRollouts()[0].GetId(), "-o", "json")), &res); err != nil {
		r.t.Fatal(err)
	}
	return res.GetRollout()
}

// processesOf are the ids of a tenant's processes by name.
func (r *rolling) processesOf(slug string) map[string]int {
	r.t.Helper()
	out := map[string]int{}
	for name, pid := range r.pids(r.t) {
		if strings.HasPrefix(name, r.tenants[slug].id+"/") {
			out[name] = pid
		}
	}
	return out
}

func (r *rolling) runs(slug string) string {
	r.t.Helper()
	var status struct {
		ServiceSet struct{ Release string } `json:"serviceSet"`
	}
	if err := json.Unmarshal([]byte(r.must("tenant", "show", slug, "-o", "json")), &status); err != nil {
		r.t.Fatal(err)
	}
	return status.ServiceSet.Release
}

// answers sees that a tenant's users are let in.
func (r *rolling) answers(slug string) {
	r.t.Helper()
	r.a3(r.t, slug+"-admin", "workspace", "list")
}

// carrying is a command of fleet's that runs, as one that carries a rollout out.
type carrying struct {
	cmd *exec.Cmd
	out *output
}

// output is what a command that still runs has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// carry starts to carry a rollout out.
func (r *rolling) carry(hash string) *carrying {
	r.t.Helper()
	return r.start("apply", hash)
}

// start starts a command of fleet's.
func (r *rolling) start(args ...string) *carrying {
	r.t.Helper()
	c := &carrying{cmd: exec.CommandContext(r.t.Context(), filepath.Join(cmp.Or(r.programs, programs), "fleet"), args...), out: &output{}}
	c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = r.environ, c.out, c.out
	if err := c.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// killed ends it with SIGKILL.
func (c *carrying) killed(t *testing.T) {
	t.Helper()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	if strings.Contains(c.out.String(), "succeeded") {
		t.Fatalf("it was over before it was killed: %s", c.out)
	}
}

// under waits until somebody of a wave is changed or watched, and answers the rollout as it is then.
func (r *rolling) under(wave int32) *registryv1.Rollout {
	r.t.Helper()
	states := []registryv1.RolloutTenantState{registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING, registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING}
	var now *registryv1.Rollout
	within(r.t, 2*time.Minute, func() error {
		now = r.newest()
		if slices.ContainsFunc(now.GetTenants(), func(x *registryv1.RolloutTenant) bool {
			return x.GetWave() == wave && slices.Contains(states, x.GetState())
		}) {
			return nil
		}
		return fmt.Errorf("nobody of wave %d is under way: the rollout is %s", wave, now.GetState())
	})
	return now
}
