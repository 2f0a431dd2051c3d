package registry_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
)

const (
	toChanging    = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING
	toBaking      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING
	toPassed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED
	toFailed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED
	toRollingBack = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK
	toRolledBack  = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
)

// waved is a plane with tenants that run the older release, and a newer one that is registered.
type waved struct {
	operator
	t       *testing.T
	addr    string
	rolls   registryv1.RolloutWriteServiceClient
	watches registryv1.RolloutServiceClient
	tenants map[string]tenant
	sets    map[string]registryv1.ReportServiceClient
	lease   *registryv1.TakeRolloutLeaseResponse
}

func newWaved(t *testing.T, slugs ...string) *waved {
	t.Helper()
	h := newHarness(t)
	addr, _ := h.start()
	w := &waved{operator: h.person(addr, "operator-ann"), t: t, addr: addr, tenants: map[string]tenant{}, sets: map[string]registryv1.ReportServiceClient{}}
	w.rolls, w.watches = registryv1.NewRolloutWriteServiceClient(w.conn), registryv1.NewRolloutServiceClient(w.conn)
	w.register("1.1.0", newer[strings.Index(newer, "@")+1:])
	writes := registryv1.NewTenantWriteServiceClient(w.conn)
	for _, slug := range slugs {
		x := h.create(w.conn, slug)
		x.set.Release = older
		h.put(writes, x)
		s, _ := source(t, x.issuer, workload.Identity{Plane: "dev", Tenant: x.id, Service: "audit"})
		w.tenants[slug], w.sets[slug] = x, registryv1.NewReportServiceClient(h.dial(addr, s))
	}
	return w
}

func (w *waved) register(version, digest string) {
	w.t.Helper()
	m := manifest("dev", version, "")
	m.Artefacts[0].Digest = digest
	_, err := registryv1.NewReleaseWriteServiceClient(w.conn).RegisterRelease(w.t.Context(), &registryv1.RegisterReleaseRequest{Envelope: sign(w.t, w.h.releaseSigner, m)})
	if err != nil {
		w.t.Fatal(err)
	}
}

// planned is a rollout of a release in waves, each a list of slugs divided by blanks.
func (w *waved) planned(release string, waves ...string) *registryv1.Plan {
	w.t.Helper()
	policy := &registryv1.RolloutPolicy{MaxParallel: 1, Bake: durationpb.New(0), Gates: &registryv1.Gates{}, Rollback: registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE}
	plan := &registryv1.Plan{}
	for i, slugs := range waves {
		wave := &registryv1.Wave{Name: "wave-" + string(rune('a'+i))}
		for _, slug := range strings.Fields(slugs) {
			c := w.change(slug, registryv1.TenantState_TENANT_STATE_ACTIVE, release, "fetch", "start", "confirm")
			wave.TenantIds = append(wave.TenantIds, c.GetTenantId())
			if len(plan.GetTenants()) == 0 {
				plan = w.h.planned(registryv1.OperationKind_OPERATION_KIND_UPGRADE, c)
			} else {
				plan.Tenants = append(plan.Tenants, c)
			}
		}
		policy.Waves = append(policy.Waves, wave)
	}
	slices.SortFunc(plan.Tenants, func(a, b *registryv1.TenantChange) int { return strings.Compare(a.GetTenantId(), b.GetTenantId()) })
	plan.Rollout = policy
	return plan
}

func (w *waved) roll(plan *registryv1.Plan) (*registryv1.Rollout, error) {
	w.t.Helper()
	res, err := w.rolls.BeginRollout(w.t.Context(), &registryv1.BeginRolloutRequest{PlanHash: w.put(plan).GetHash()})
	return res.GetRollout(), err
}

// begun is a rollout that the caller holds the lease of.
func (w *waved) begun(plan *registryv1.Plan) *registryv1.Rollout {
	w.t.Helper()
	r, err := w.roll(plan)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.lease, err = w.rolls.TakeRolloutLease(w.t.Context(), &registryv1.TakeRolloutLeaseRequest{RolloutId: r.GetId(), Place: "host-1, process 1"}); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *waved) move(slug string, to registryv1.RolloutTenantState, detail string) (*registryv1.Rollout, error) {
	res, err := w.rolls.RecordRolloutTenant(w.t.Context(), &registryv1.RecordRolloutTenantRequest{
		RolloutId: w.lease.GetRollout().GetId(), LeaseToken: w.lease.GetLeaseToken(), TenantId: w.tenants[slug].id.String(), State: to, Detail: detail})
	return res.GetRollout(), err
}

func (w *waved) moved(slug string, to registryv1.RolloutTenantState, detail string) *registryv1.Rollout {
	w.t.Helper()
	r, err := w.move(slug, to, detail)
	if err != nil {
		w.t.Fatalf("%s to %s: %v", slug, to, err)
	}
	return r
}

// notNow is a move that the rules don't allow yet.
func (w *waved) notNow(slug string, to registryv1.RolloutTenantState, because string) {
	w.t.Helper()
	if _, err := w.move(slug, to, ""); fault.KindOf(fault.FromRPC(err)) != fault.FailedPrecondition || !strings.Contains(err.Error(), because) {
		w.t.Errorf("%s to %s: %v, want a refusal because of %q", slug, to, err, because)
	}
}

// says is what a set reports of itself.
func (w *waved) says(slug, release string, health registryv1.Health, components ...string) {
	w.t.Helper()
	req := &registryv1.ReportRequest{}
	for _, name := range components {
		req.Components = append(req.Components, &registryv1.ComponentReport{Name: name, Health: health, Release: release})
	}
	if _, err := w.sets[slug].Report(w.t.Context(), req); err != nil {
		w.t.Fatal(err)
	}
}

func (w *waved) runs(slug, release string) {
	w.t.Helper()
	w.says(slug, release, registryv1.Health_HEALTH_SERVING, "iam", "audit")
}

// changed brings a tenant to a release, as far as the rollout is concerned.
func (w *waved) changed(slug, release string) {
	w.t.Helper()
	w.moved(slug, toChanging, "")
	w.runs(slug, release)
	w.moved(slug, toBaking, "")
	w.runs(slug, release)
}

func TestAWaveIsDoneWhenItsTenantsSaySoThemselves(t *testing.T) {
	w := newWaved(t, "acme", "globex")
	r := w.begun(w.planned(newer, "acme", "globex"))
	again, err := w.roll(w.planned(newer, "acme", "globex"))
	if err != nil || again.GetId() != r.GetId() {
		t.Errorf("the plan began twice: %v, %v", again, err)
	}
	w.notNow("globex", toChanging, "wave")
	w.runs("acme", newer) // before it was begun: that says nothing
	w.moved("acme", toChanging, "")
	w.notNow("acme", toBaking, "has not reported since")
	w.notNow("globex", toChanging, "")
	w.says("acme", newer, registryv1.Health_HEALTH_SERVING, "iam")
	w.notNow("acme", toBaking, "audit has not reported")
	w.says("acme", newer, registryv1.Health_HEALTH_NOT_SERVING, "iam", "audit")
	w.notNow("acme", toBaking, "does not serve")
	w.runs("acme", older)
	w.notNow("acme", toBaking, older)
	w.runs("acme", newer)
	w.moved("acme", toBaking, "")
	w.notNow("globex", toChanging, "wave")
	w.runs("acme", newer)
	w.moved("acme", toPassed, "")
	w.changed("globex", newer)
	done := w.moved("globex", toPassed, "")
	if done.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED || done.GetEndedAt() == nil {
		t.Errorf("it ended as %v", done)
	}
	history, err := w.watches.GetRollout(t.Context(), &registryv1.GetRolloutRequest{RolloutId: r.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range history.GetEvents() {
		actions = append(actions, e.GetAction())
		if e.GetActor() != "spiffe://plane.dev.a3os/operator-ann" {
			t.Errorf("%s was done by %s", e.GetAction(), e.GetActor())
		}
	}
	want := "begun lease_taken tenant.changing tenant.baking tenant.passed tenant.changing tenant.baking tenant.passed succeeded"
	if got := strings.Join(actions, " "); got != want {
		t.Errorf("its history is %s", got)
	}
}

// Row F32, at the registry: with the failure of the canary nothing can be begun any more, and only what was touched goes back.
func TestFailedCanaryHaltsTheRolloutInTheSameMoment(t *testing.T) {
	w := newWaved(t, "acme", "globex", "initech")
	r := w.begun(w.planned(newer, "acme globex", "initech"))
	w.changed("acme", newer)
	w.moved("globex", toChanging, "")
	if _, err := w.part(w.lease, upgradeKind, "globex", newer); err != nil {
		t.Fatal(err)
	}
	_, err := w.move("globex", toFailed, "")
	wantKind(t, err, fault.InvalidArgument, "failing without saying why")
	halted := w.moved("globex", toFailed, "iam answers 503")
	if halted.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED || !strings.Contains(halted.GetDetail(), "globex: iam answers 503") {
		t.Fatalf("it is %v: %s", halted.GetState(), halted.GetDetail())
	}
	w.notNow("initech", toChanging, "an operator")
	w.notNow("initech", toRollingBack, "")
	_, err = w.rolls.ResumeRollout(t.Context(), &registryv1.ResumeRolloutRequest{RolloutId: r.GetId(), Reason: "it looks well to me"})
	wantKind(t, err, fault.FailedPrecondition, "resuming before what is broken went back")
	for _, slug := range []string{"acme", "globex"} {
		w.moved(slug, toRollingBack, "")
		w.runs(slug, newer)
		w.notNow(slug, toRolledBack, newer)
		w.runs(slug, older)
		w.moved(slug, toRolledBack, "")
	}
	res, err := w.rolls.ResumeRollout(t.Context(), &registryv1.ResumeRolloutRequest{RolloutId: r.GetId(), Reason: "the cause was elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range res.GetRollout().GetTenants() {
		if x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING {
			t.Errorf("after it was resumed %s is %s", x.GetSlug(), x.GetState())
		}
	}
	t.Attr("row", "F32 2")
}

func TestRolloutIsSteeredWithAReasonOnTheRecord(t *testing.T) {
	w := newWaved(t, "acme", "globex")
	w.register("1.2.0", "sha256:"+strings.Repeat("3", 64))
	newest := "1.2.0@sha256:" + strings.Repeat("3", 64)
	r := w.begun(w.planned(newer, "acme", "globex"))
	ctx, id := t.Context(), r.GetId()
	retarget := func(hash string) error {
		_, err := w.rolls.RetargetRollout(ctx, &registryv1.RetargetRolloutRequest{RolloutId: id, PlanHash: hash, Reason: "1.1.0 has a hole"})
		return err
	}
	other := w.put(w.planned(newest, "acme", "globex")).GetHash()
	wantKind(t, retarget(other), fault.FailedPrecondition, "another target for one that runs")
	if _, err := w.rolls.PauseRollout(ctx, &registryv1.PauseRolloutRequest{RolloutId: id, Reason: "lunch is at noon"}); err != nil {
		t.Fatal(err)
	}
	w.notNow("acme", toChanging, "paused")
	wantKind(t, retarget(w.put(w.planned(newest, "acme")).GetHash()), fault.FailedPrecondition, "a target that forgets a tenant")
	if err := retarget(other); err != nil {
		t.Fatal(err)
	}
	if _, err := w.rolls.SkipRolloutTenant(ctx, &registryv1.SkipRolloutTenantRequest{RolloutId: id, TenantId: w.tenants["acme"].id.String(), Reason: "they have a freeze"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.rolls.ResumeRollout(ctx, &registryv1.ResumeRolloutRequest{RolloutId: id, Reason: "lunch was good"}); err != nil {
		t.Fatal(err)
	}
	w.notNow("acme", toChanging, "")
	w.changed("globex", newest)
	res, err := w.rolls.AbortRollout(ctx, &registryv1.AbortRolloutRequest{RolloutId: id, Reason: "the office burns"})
	if err != nil || res.GetRollout().GetState() != registryv1.RolloutState_ROLLOUT_STATE_ABORTED {
		t.Fatalf("%v, %v", res, err)
	}
	_, err = w.rolls.ResumeRollout(ctx, &registryv1.ResumeRolloutRequest{RolloutId: id, Reason: "it was a drill"})
	wantKind(t, err, fault.FailedPrecondition, "resuming what was given up")
	logged := column(t, w.h, "SELECT action || ' ' || detail FROM registry.operations_log WHERE action LIKE 'registry.rollout.%' ORDER BY id")
	for _, want := range []string{"paused lunch is at noon", "retargeted " + newest + ": 1.1.0 has a hole", "they have a freeze", "resumed lunch was good", "aborted the office burns"} {
		if !slices.ContainsFunc(logged, func(line string) bool { return strings.Contains(line, want) }) {
			t.Errorf("the operations log has no line of %q: %q", want, logged)
		}
	}
	// Whoever gives a rollout up lets go of its tenants.
	if _, err := w.roll(w.planned(newest, "acme")); err != nil {
		t.Errorf("another rollout: %v", err)
	}
}

func TestRolloutIsCarriedOutByOneAndNothingGoesAroundIt(t *testing.T) {
	w := newWaved(t, "acme", "globex")
	plan := w.planned(newer, "acme", "globex")
	hash := w.put(plan).GetHash()
	_, err := w.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: hash, Tenant: w.tenants["acme"].id.String()})
	wantKind(t, err, fault.FailedPrecondition, "a rollout's plan begun without its waves")
	r := w.begun(plan)
	_, err = w.roll(w.planned(newer, "globex"))
	wantKind(t, err, fault.FailedPrecondition, "a tenant in two rollouts")

	part := func(slug, release string) error {
		_, err := w.part(w.lease, upgradeKind, slug, release)
		return err
	}
	wantKind(t, part("acme", newer), fault.FailedPrecondition, "a part before its turn")
	w.moved("acme", toChanging, "")
	wantKind(t, part("globex", newer), fault.FailedPrecondition, "a part of somebody whose turn it isn't")
	w.register("1.3.0", "sha256:"+strings.Repeat("4", 64))
	wantKind(t, part("acme", "1.3.0@sha256:"+strings.Repeat("4", 64)), fault.FailedPrecondition, "a part with another release")
	w.nobodyElseBegins("acme", newer)
	if err := part("acme", newer); err != nil {
		t.Errorf("the part itself: %v", err)
	}

	bob := w.h.person(w.addr, "operator-bob")
	_, err = registryv1.NewRolloutWriteServiceClient(bob.conn).TakeRolloutLease(t.Context(), &registryv1.TakeRolloutLeaseRequest{RolloutId: r.GetId(), Place: "host-2"})
	if fault.KindOf(fault.FromRPC(err)) != fault.FailedPrecondition || !strings.Contains(err.Error(), "operator-ann") {
		t.Errorf("two at once: %v", err)
	}
	stale := w.lease
	if w.lease, err = w.rolls.TakeRolloutLease(t.Context(), &registryv1.TakeRolloutLeaseRequest{
		RolloutId: r.GetId(), Place: "host-1, process 2", InsteadOf: stale.GetRollout().GetLease().GetFence()}); err != nil {
		t.Fatal(err)
	}
	fresh := w.lease
	w.lease = stale
	_, err = w.move("acme", toFailed, "it is late")
	wantKind(t, err, fault.Aborted, "a word under a lease that was taken over")
	_, err = w.part(stale, upgradeKind, "acme", newer, "fetch", "start")
	wantReason(t, err, "LEASE_LOST", "a part under a lease that was taken over")
	w.lease = fresh
	if _, err := w.move("acme", toFailed, "it is time"); err != nil {
		t.Error(err)
	}
}

func TestLeaseOfARolloutWhoseAnswerWasLostIsAnsweredAgain(t *testing.T) {
	w := newWaved(t, "acme")
	r, err := w.roll(w.planned(newer, "acme"))
	if err != nil {
		t.Fatal(err)
	}
	take := func(secret string) (*registryv1.TakeRolloutLeaseResponse, error) {
		return w.rolls.TakeRolloutLease(t.Context(), &registryv1.TakeRolloutLeaseRequest{RolloutId: r.GetId(), Place: "host-1, process 1", LeaseToken: secret})
	}
	first, err := take(strings.Repeat("a", 43))
	if err != nil || first.GetLeaseToken() != strings.Repeat("a", 43) {
		t.Fatalf("the secret that was brought is %q, %v", first.GetLeaseToken(), err)
	}
	if again, err := take(strings.Repeat("a", 43)); err != nil || !proto.Equal(first, again) {
		t.Errorf("asked again, the answer is %v, %v, and was %v", again, err, first)
	}
	for what, secret := range map[string]string{"another secret": strings.Repeat("b", 43), "none": ""} {
		_, err = take(secret)
		wantReason(t, err, "LEASE_HELD", "a lease that lasts, to who brings "+what)
	}
}

// Row F50, at the plan: a rollout is of a release that somebody vouches for, and that fits what is there.
func TestRolloutOfWhatNobodyVouchesForIsRefused(t *testing.T) {
	w := newWaved(t, "acme")
	_, err := w.roll(w.planned("1.9.0@sha256:"+strings.Repeat("9", 64), "acme"))
	wantKind(t, err, fault.NotFound, "a release that nobody registered")
	late := manifest("dev", "2.0.0", "late")
	late.MinimumVersion = "1.5.0"
	res, err := registryv1.NewReleaseWriteServiceClient(w.conn).RegisterRelease(t.Context(), &registryv1.RegisterReleaseRequest{Envelope: sign(t, w.h.releaseSigner, late)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.roll(w.planned(res.GetRelease().GetName(), "acme"))
	wantKind(t, err, fault.FailedPrecondition, "a release that is not reached from here")
	t.Attr("row", "F50 2")
}
