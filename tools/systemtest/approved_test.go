package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
	"a3os.app/tools/systemtest/notes/notestest"
)

// approved is a plane of another product, which is small, and whose blueprint a test may change.
type approved struct {
	*rolling
	blueprint string
	cases     int
}

// refused is a command that says why it does nothing.
func (a *approved) refused(what string, says []string, args ...string) {
	a.t.Helper()
	s := a.fleet(args...)
	for _, says := range says {
		if s.code == 0 || !strings.Contains(s.err, says) {
			a.t.Errorf("%s: it is to be refused with %q: %s", what, says, s)
		}
	}
	a.cases++
}

// otherBlueprint has do done while the blueprint is another one, of the same product.
func (a *approved) otherBlueprint(do func()) {
	a.t.Helper()
	text := readFile(a.t, a.blueprint)
	write := func(text string) {
		if err := os.WriteFile(a.blueprint, []byte(text), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	write(text + "# as of a later release\n")
	do()
	write(text)
}

// Row F52, of rollouts: what was planned, and approved, is begun in the world that it was planned in or not at all, is given to a rollout under
// way as little, and is carried on by nobody whose blueprint is another. What is half done can be given up then, and be gone on with where it
// was begun.
func TestRolloutIsCarriedOutAsItWasPlannedOrNotAtAll(t *testing.T) {
	full(t)
	t.Parallel()
	file := notestest.Product(t)
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex,initech", "A3_UNIX_TENANTS=none", "A3_BLUEPRINT="+file)
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := &approved{rolling: &rolling{plane: p, t: t, dir: dir}, blueprint: file}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(file), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, "notes-1.1.0")
	if err := os.WriteFile(second, otherDigest(program), 0o755); err != nil {
		t.Fatal(err)
	}
	a.must("release", "register", "--version", "1.1.0", "--artefact", "notes="+second)
	a.must("tenant", "label", "acme", "ring=canary")
	a.must("tenant", "label", "initech", "ring=canary")
	p.apply(t, p.plan(t, suspend, "initech", ""))

	a.planned()
	a.underWay()
	a.wayBack()
	t.Attr("row", fmt.Sprint("F52 ", a.cases))
}

// planned is what was planned and is not begun any more.
func (a *approved) planned() {
	a.t.Helper()
	plan := []string{"rollout", "plan", "--release", "1.1.0", "--reason", "the test rolls it out"}
	s := a.fleet(append(plan, "--label", "ring=canary", "-o", "json")...)
	if s.code != 0 || !strings.Contains(s.err, "left out: initech is suspended") {
		a.t.Errorf("a label that has a suspended tenant: %s", s)
	}
	var canary registryv1.StoredPlan
	if err := protojson.Unmarshal([]byte(s.out), &canary); err != nil {
		a.t.Fatal(err)
	}
	a.refused("a label of nobody", []string{`"ring=early" chooses no tenant`}, append(plan, "--label", "ring=canary", "--label", "ring=early")...)
	a.refused("a wave of nobody", []string{`"ring=early" chooses no tenant`}, append(plan, "--wave", "canary", "--wave", "early")...)
	a.refused("a suspended tenant by name", []string{"initech is suspended"}, append(plan, "--tenant", "initech")...)
	named, wave := a.rollout("1.1.0", "--tenant", "acme"), a.rollout("1.1.0", "--wave", "canary")

	a.must("tenant", "label", "acme", "ring=general")
	a.must("tenant", "label", "globex", "ring=canary")
	a.refused("others have the label", []string{"the selectors don't choose tenant acme any more", "the selectors choose tenant globex too"}, "apply", canary.GetHash())
	a.refused("others are in the wave", []string{"the selectors don't choose tenant acme any more", "the selectors choose tenant globex too"}, "apply", wave)
	a.refused("the ring is another", []string{"the ring of tenant acme is general, the plan has canary"}, "apply", named)
	a.otherBlueprint(func() {
		a.refused("the blueprint is another", []string{"the plan is for a blueprint with the digest"}, "apply", named)
	})
	if r := a.newest(); r != nil {
		a.t.Errorf("a rollout was begun: %v", r)
	}
}

// underWay is a rollout, and an operation, that are under way when the world changes.
func (a *approved) underWay() {
	a.t.Helper()
	never := []string{"--deny", "mon-sun 00:00-24:00", "--tenant", "globex"}
	hash, other := a.rollout("1.1.0", append(never, "--tenant", "acme")...), a.rollout("1.1.0", append(never, "--tenant", "acme", "--wave-size", "1")...)
	c := a.carry(hash)
	within(a.t, time.Minute, func() error {
		if r := a.newest(); !strings.HasPrefix(r.GetWaitsFor(), "the end of the window") {
			return fmt.Errorf("it does not wait: %v\n%s", r, c.out)
		}
		return nil
	})
	c.killed(a.t)
	id := a.newest().GetId()
	// What moved on since it was begun is no matter, for it was begun: it is taken up as it is.
	a.must("tenant", "label", "acme", "ring=early")
	a.must("rollout", "pause", id, "--reason", "the world is to change")
	a.refused("another plan whose world is gone", []string{"the ring of tenant acme is early, the plan has general"}, "rollout", "retarget", id, strings.TrimPrefix(other, "sha256:"), "--reason", "it is to be refused")
	a.otherBlueprint(func() {
		says := []string{"the plan is for a blueprint with the digest", "fleet rollout retarget " + id, "fleet rollout abort " + id}
		a.refused("taken up under another blueprint", says, "rollout", "carry", id)
		a.refused("applied again under another blueprint", says, "apply", hash)
	})
	fence := a.newest().GetLease().GetFence()
	again := a.carry(hash)
	within(a.t, time.Minute, func() error {
		if r := a.newest(); r.GetLease().GetFence() == fence || r.GetId() != id {
			return fmt.Errorf("it is not taken up: %v\n%s", r, again.out)
		}
		return nil
	})
	a.must("rollout", "abort", id, "--reason", "enough was seen of it")
	if err := again.cmd.Wait(); err == nil || strings.Contains(again.out.String(), "differ") {
		a.t.Errorf("who took it up ended with %v: %s", err, again.out)
	}

	// An operation that nobody works on, as one that was cut off is.
	resuming, initech := a.plan(a.t, resume, "initech", ""), a.tenants["initech"].id
	begun, err := registryv1.NewOperationWriteServiceClient(a.operator(a.t)).BeginOperation(a.t.Context(), &registryv1.BeginOperationRequest{PlanHash: resuming, Tenant: initech})
	if err != nil {
		a.t.Fatal(err)
	}
	operation := begun.GetOperation().GetId()
	a.otherBlueprint(func() {
		says := []string{"operation " + operation + " is not taken up here", "the plan is for a blueprint with the digest", "fleet operation abort " + operation}
		a.refused("an operation under another blueprint", says, "operation", "resume", operation)
	})
	a.watched(operation, func() { a.must("operation", "resume", operation) })
}

// watched has an operation watched by another than who takes it up, from before that on and until it ends.
func (a *approved) watched(operation string, takeUp func()) {
	a.t.Helper()
	watching := a.start("operation", "show", operation, "--watch")
	shows := func(what string) func() error {
		return func() error {
			if shown := watching.out.String(); !strings.Contains(shown, what) {
				return fmt.Errorf("who watches is not shown %q: %q", what, shown)
			}
			return nil
		}
	}
	within(a.t, time.Minute, shows("nobody works on it"))
	takeUp()
	if err := watching.cmd.Wait(); err != nil {
		a.t.Errorf("who watched ended with %v: %s", err, watching.out)
	}
	for _, what := range []string{"works on it", "done", "succeeded"} {
		if err := shows(what)(); err != nil {
			a.t.Error(err)
		}
	}
}

// wayBack is a wave of three that goes back, of which one is worked on at a time: its history is that of who was on the way back when.
func (a *approved) wayBack() {
	a.t.Helper()
	for _, slug := range []string{"acme", "globex", "initech"} {
		a.must("tenant", "label", slug, "ring=general")
	}
	c := a.carry(a.rollout("1.1.0", "--label", "ring=general", "--bake", "10m", "--samples", "0", "--p99-factor", "0", "--max-parallel", "1", "--rollback", "wave"))
	within(a.t, 3*time.Minute, func() error {
		for _, x := range a.newest().GetTenants() {
			if x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING {
				return fmt.Errorf("%s is %s\n%s", x.GetSlug(), x.GetState(), c.out)
			}
		}
		return nil
	})
	kill(a.t, a.processesOf("globex")[a.tenants["globex"].id+"/web"])
	if err := c.cmd.Wait(); err == nil || !strings.Contains(c.out.String(), "restarts since the change") {
		a.t.Errorf("who carried out what halted ended with %v: %s", err, c.out)
	}
	id := a.newest().GetId()
	var res registryv1.GetRolloutResponse
	if err := protojson.Unmarshal([]byte(a.must("rollout", "status", id, "-o", "json")), &res); err != nil {
		a.t.Fatal(err)
	}
	var way []string
	for _, e := range res.GetEvents() {
		if slices.Contains([]string{"tenant.rolling_back", "tenant.rolled_back"}, e.GetAction()) {
			way = append(way, e.GetAction())
		}
	}
	if want := slices.Repeat([]string{"tenant.rolling_back", "tenant.rolled_back"}, 3); !slices.Equal(way, want) { //nolint:mnd // of three tenants
		a.t.Errorf("the way back is %q, want one after the other", way)
	}
	a.must("rollout", "abort", id, "--reason", "enough was seen of it")
}
