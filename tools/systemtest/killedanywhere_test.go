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

// killed is a plane of a small product whose fleet is killed.
type killed struct {
	*rolling
	program  []byte
	releases int
}

// Row F33, at a small product, for which there is time for every point: fleet is killed in each step of bringing a plane up, at each point of each step
// of a tenant's operations between its first and its last, and wherever a rollout may be cut off. Each time the same command, or who takes it up, comes to
// where it comes when nobody is killed.
func TestFleetKilledAnywhereEndsAsIfNever(t *testing.T) {
	full(t)
	t.Parallel()
	file := notestest.Product(t)
	dir := walkable(t)
	p := planeIn(t, dir, "A3_TENANTS=acme,globex,calm,hurried", "A3_UNIX_TENANTS=none", "A3_BLUEPRINT="+file)
	p.programs = fleetWithFailpoints(t, "")
	program, err := os.ReadFile(filepath.Join(filepath.Dir(file), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	k := &killed{rolling: &rolling{plane: p, t: t, dir: dir}, program: program}
	kills := k.broughtUp()
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	kills += k.operations()
	kills += k.rollouts()
	t.Attr("row", fmt.Sprint("F33 ", kills))
}

// broughtUp brings the plane up, killed after its first step, then after its second, and so on until it is up.
func (k *killed) broughtUp() (kills int) {
	k.t.Helper()
	up := *k.plane
	for {
		up.environ = append(slices.Clone(k.environ), fmt.Sprintf("A3_FAILPOINT=fleet.plane.after-step kill %d", kills+1))
		s, err := up.command(k.t.Context(), "fleet", "plane", "up")
		if err != nil {
			k.t.Fatal(err)
		}
		if s.code == 0 {
			break
		}
		if s.code != -1 {
			k.t.Fatalf("to be killed after step %d it ended with: %s", kills+1, s)
		}
		kills++
	}
	const least = 5
	if kills < least {
		k.t.Errorf("a plane is brought up in %d steps: this shows less than it says", kills)
	}
	return kills
}

// operations has a tenant go through its operations, killed at each point of each step, beside one that nobody disturbs.
func (k *killed) operations() (kills int) {
	k.t.Helper()
	first, later := k.runs("calm"), k.release()
	for _, o := range []struct {
		kind registryv1.OperationKind
		to   string
	}{{upgrade, later}, {downgrade, first}, {suspend, ""}, {resume, ""}} {
		began := time.Now()
		k.apply(k.t, k.plan(k.t, o.kind, "calm", o.to))
		kills += k.killedThrough(k.t, o.kind, k.plan(k.t, o.kind, "hurried", o.to), true)
		want, got := k.world(k.t, "calm", k.idOf(k.t, "calm")), k.world(k.t, "hurried", k.idOf(k.t, "hurried"))
		if want != got {
			k.t.Fatalf("%s: what there is of a tenant differs from what there is of one that was not disturbed:\n%s", o.kind, difference(want, got))
		}
		status, _ := k.notes("calm", "")
		if again, _ := k.notes("hurried", ""); again != status {
			k.t.Errorf("%s: it answers %d, and who was not disturbed %d", o.kind, again, status)
		}
		k.t.Logf("%s, killed at each point: %s", o.kind, time.Since(began).Round(time.Second))
	}
	return kills
}

// rollouts are carried out by who is killed before a tenant is begun, within its operation, when it was brought to the release and that is not on record,
// and when it is; on the way there, and on the way back. Each tenant is changed once, and taken back once.
func (k *killed) rollouts() (kills int) {
	k.t.Helper()
	for _, way := range []struct {
		carried func(line string) string
		// killedAt are lines of failpoints. Both tenants pass a point on the way there, and then on the way back.
		killedAt []string
	}{
		{k.forth, []string{"fleet.rollout.before-begin kill 2", "fleet.own.leased kill", "fleet.own.before-finish kill", "fleet.rollout.brought kill", "fleet.rollout.recorded kill"}},
		{k.back, []string{"fleet.rollout.before-back kill", "fleet.own.leased kill 3", "fleet.own.before-finish kill 3", "fleet.rollout.brought kill 3", "fleet.rollout.recorded kill 3"}},
	} {
		want := way.carried("")
		for _, line := range way.killedAt {
			began := time.Now()
			if got := way.carried(line); got != want {
				k.t.Errorf("%s: what there is in the end differs from what there is when nobody is killed:\n%s", line, difference(want, got))
			}
			kills++
			k.t.Logf("%s: %s", line, time.Since(began).Round(time.Second))
		}
	}
	return kills
}

// release registers one more and answers its version.
func (k *killed) release() (version string) {
	k.t.Helper()
	k.releases++
	version = fmt.Sprintf("1.%d.0", k.releases)
	file := filepath.Join(k.dir, "notes-"+version)
	if err := os.WriteFile(file, fmt.Append(slices.Clone(k.program), version), 0o755); err != nil {
		k.t.Fatal(err)
	}
	k.must("release", "register", "--version", version, "--artefact", "notes="+file)
	return version
}

// next plans a rollout of one more release to two tenants, one after the other.
func (k *killed) next(more ...string) (hash string) {
	k.t.Helper()
	return k.rollout(k.release(), append([]string{"--tenant", "acme", "--tenant", "globex", "--samples", "0", "--p99-factor", "0", "--max-parallel", "1", "--rollback", "wave"}, more...)...)
}

// carried has a plan be carried out by a fleet that a line of failpoints, where there is one, has end within it, during which do is done.
func (k *killed) carried(line, hash string, do func(*carrying)) (killed bool, c *carrying) {
	k.t.Helper()
	killing := *k.rolling
	at := *k.plane
	killing.plane = &at
	if line != "" {
		at.environ = append(slices.Clone(at.environ), "A3_FAILPOINT="+line)
	}
	c = killing.carry(hash)
	do(c)
	err := c.cmd.Wait()
	if killed = err != nil && strings.Contains(err.Error(), "signal: killed"); killed != (line != "") {
		k.t.Fatalf("%q: it ended with %v: %s", line, err, c.out)
	}
	return killed, c
}

// forth carries one out that succeeds, killed where line says and applied again.
func (k *killed) forth(line string) string {
	k.t.Helper()
	hash := k.next("--bake", "0s")
	if killed, _ := k.carried(line, hash, func(*carrying) {}); killed {
		k.must("apply", hash)
	}
	return k.ended()
}

// back carries one out that halts while both are watched, and goes back, killed where line says and taken up.
func (k *killed) back(line string) string {
	k.t.Helper()
	hash := k.next("--bake", "10m")
	killed, c := k.carried(line, hash, func(c *carrying) {
		within(k.t, 3*time.Minute, func() error {
			for _, x := range k.newest().GetTenants() {
				if x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING {
					return fmt.Errorf("%s is %s\n%s", x.GetSlug(), x.GetState(), c.out)
				}
			}
			return nil
		})
		kill(k.t, k.processesOf("globex")[k.tenants["globex"].id+"/web"])
	})
	said := c.out.String()
	id := k.newest().GetId()
	if killed {
		said = k.fleet("rollout", "carry", id).String()
	}
	if !strings.Contains(said, "restarts since the change") {
		k.t.Errorf("%q: whoever carried out what halted said: %s", line, said)
	}
	k.must("rollout", "abort", id, "--reason", "enough was seen of it")
	return k.ended()
}

// ended is all that there is of the newest rollout and of its tenants, with what is another each time by its role.
func (k *killed) ended() string {
	k.t.Helper()
	var res registryv1.GetRolloutResponse
	if err := protojson.Unmarshal([]byte(k.must("rollout", "status", k.newest().GetId(), "-o", "json")), &res); err != nil {
		k.t.Fatal(err)
	}
	r := res.GetRollout()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	add("rollout %s", r.GetState())
	names := []string{r.GetRelease(), "RELEASE"}
	for _, x := range r.GetTenants() {
		add("rollout of %s: %s, tries %d", x.GetSlug(), x.GetState(), x.GetAttempts())
		names = append(names, x.GetReleaseFrom(), "BEFORE", x.GetTenantId(), x.GetSlug())
		for _, line := range strings.Split(k.world(k.t, x.GetSlug(), x.GetTenantId()), "\n") {
			// Those of rollouts before are no matter.
			if !strings.HasPrefix(line, "operation ") {
				add("%s: %s", x.GetSlug(), line)
			}
		}
		status, _ := k.notes(x.GetSlug(), "")
		add("%s answers %d", x.GetSlug(), status)
	}
	var all registryv1.ListOperationsResponse
	if err := protojson.Unmarshal([]byte(k.must("operation", "list", "-o", "json")), &all); err != nil {
		k.t.Fatal(err)
	}
	for _, op := range all.GetOperations() {
		if op.GetRolloutId() == r.GetId() {
			line := fmt.Sprintf("%s: operation %s %s", op.GetTenantId(), op.GetKind(), op.GetState())
			for _, s := range op.GetSteps() {
				line += " " + s.GetName() + " " + s.GetState().String()
			}
			add("%s", line)
		}
	}
	// What is done with each, in its order; repeated where it is done twice.
	moves := 0
	for _, e := range res.GetEvents() {
		if strings.HasPrefix(e.GetAction(), "tenant.") {
			moves++
			add("move %d: %s %s", moves, e.GetAction(), e.GetTenantId())
		}
	}
	return strings.NewReplacer(names...).Replace(strings.Join(out, "\n"))
}
