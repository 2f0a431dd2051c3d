package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

func newRolling(t *testing.T) *rolling {
	t.Helper()
	dir := t.TempDir()
	p, err := newPlane(filepath.Join(dir, "plane"), "A3_TENANTS=acme,globex", "A3_UNIX_TENANTS=none")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.remove(); err != nil {
			t.Error(err)
		}
	})
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

func (r *rolling) plan(version string, more ...string) string {
	r.t.Helper()
	args := append([]string{"rollout", "plan", "--release", version, "--tenant", "acme", "--tenant", "globex", "--wave-size", "1",
		"--reason", "the test rolls it out", "-o", "json"}, more...)
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

// Row F32: the canary of a bad release fails; it is halted, the canary goes back and works, and nobody else was touched. A good release
// then goes through, with the program that carries it out killed in each wave.
func TestRolloutHaltsWithItsCanaryAndAGoodOneOutlivesItsOperator(t *testing.T) {
	full(t)
	r := newRolling(t)
	first := r.runs("acme")
	r.register("1.1.0", broken)
	good := r.register("1.2.0", otherDigest)
	s := r.fleet("release", "register", "--version", "1.2.0", "--artefact", "accessos="+filepath.Join(r.dir, "accessos-1.1.0"))
	if s.code == 0 || !strings.Contains(s.err, "give the new one a version of its own") {
		t.Errorf("the version of another release: %s", s)
	}

	untouched := r.processesOf("globex")
	s = r.fleet("apply", r.plan("1.1.0", "--bake", "0s", "--samples", "0"))
	if s.code == 0 {
		t.Fatalf("a bad release went through: %s", s)
	}
	halted := r.newest()
	if halted.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED || !strings.HasPrefix(halted.GetDetail(), "acme: ") {
		t.Fatalf("the rollout is %s: %s\n%s", halted.GetState(), halted.GetDetail(), s)
	}
	for _, x := range halted.GetTenants() {
		want := registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
		if x.GetSlug() == "globex" {
			want = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING
		}
		if x.GetState() != want {
			t.Errorf("%s is %s, want %s", x.GetSlug(), x.GetState(), want)
		}
	}
	if now := r.processesOf("globex"); len(untouched) == 0 || !maps.Equal(untouched, now) {
		t.Errorf("globex was touched: its processes were %v and are %v", untouched, now)
	}
	if is := r.runs("acme"); is != first {
		t.Errorf("the canary is at %s, it was at %s", is, first)
	}
	r.answers("acme")
	r.must("rollout", "abort", halted.GetId(), "--reason", "the release is bad")

	hash := r.plan("1.2.0", "--bake", "1s", "--samples", "5")
	for _, slug := range []string{"acme", "globex"} {
		r.killedWhile(hash, slug)
	}
	r.must("apply", hash)
	done := r.newest()
	if done.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		t.Fatalf("the good one is %s: %s", done.GetState(), done.GetDetail())
	}
	for _, x := range done.GetTenants() {
		if x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED || x.GetSamples() < 5 || x.GetAttempts() != 1 {
			t.Errorf("%s: %v", x.GetSlug(), x)
		}
		if is := r.runs(x.GetSlug()); is != good {
			t.Errorf("%s runs %s, want %s", x.GetSlug(), is, good)
		}
		r.answers(x.GetSlug())
	}
	t.Attr("row", "F32 1")
}

// answers sees that a tenant's users are let in.
func (r *rolling) answers(slug string) {
	r.t.Helper()
	r.a3(r.t, slug+"-admin", "workspace", "list")
}

// killedWhile kills who carries a rollout out while a tenant is under way.
func (r *rolling) killedWhile(hash, slug string) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "fleet"), "apply", hash)
	cmd.Env = r.environ
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	under := []registryv1.RolloutTenantState{registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING, registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING}
	within(r.t, 2*time.Minute, func() error {
		for _, x := range r.newest().GetTenants() {
			if x.GetSlug() == slug && slices.Contains(under, x.GetState()) {
				return nil
			}
		}
		return fmt.Errorf("%s is not under way", slug)
	})
	_ = cmd.Process.Kill() // SIGKILL
	_ = cmd.Wait()
	if strings.Contains(out.String(), "succeeded") {
		r.t.Fatalf("it was over before it was killed: %s", out.String())
	}
}
