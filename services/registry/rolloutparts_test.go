package registry_test

import (
	"slices"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// part begins what a rollout does to one of its tenants, as whoever holds its lease does: by a plan of the tenant as it is now.
func (w *waved) part(lease *registryv1.TakeRolloutLeaseResponse, kind registryv1.OperationKind, slug, release string, steps ...string) (*registryv1.Operation, error) {
	w.t.Helper()
	if len(steps) == 0 {
		steps = []string{"start"}
	}
	plan := w.h.planned(kind, w.change(slug, activeState, release, steps...))
	res, err := w.ops.BeginOperation(w.t.Context(), &registryv1.BeginOperationRequest{
		PlanHash: w.put(plan).GetHash(), Tenant: w.tenants[slug].id.String(), RolloutId: w.lease.GetRollout().GetId(), RolloutLeaseToken: lease.GetLeaseToken()})
	return res.GetOperation(), err
}

// nobodyElseBegins holds that a part whose turn it is can't be begun but under the rollout's lease.
func (w *waved) nobodyElseBegins(slug, release string) {
	w.t.Helper()
	for what, token := range map[string]string{"no lease": "", "a lease that is another": strings.Repeat("b", 43)} {
		op, err := w.part(&registryv1.TakeRolloutLeaseResponse{LeaseToken: token}, upgradeKind, slug, release)
		wantReason(w.t, err, "LEASE_LOST", "a part under "+what)
		if op != nil {
			w.t.Errorf("under %s operation %s was begun", what, op.GetId())
		}
	}
}

// A part of a rollout needs no approval of its own, for the rollout was approved. It is no way around one: nobody begins a part who doesn't carry the
// rollout out, not even where nobody does.
func TestPartOfARolloutIsBegunUnderItsLease(t *testing.T) {
	t.Parallel()
	w := newWaved(t, "acme")
	r := w.begun(w.planned(newer, "acme"))
	w.moved("acme", toChanging, "")
	w.h.db.Exec(t, "UPDATE registry.rollouts SET lease_token_hash = NULL, lease_expires_at = now()")
	w.nobodyElseBegins("acme", newer)
	var err error
	if w.lease, err = w.rolls.TakeRolloutLease(t.Context(), &registryv1.TakeRolloutLeaseRequest{RolloutId: r.GetId(), Place: "host-1, process 1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.part(w.lease, upgradeKind, "acme", newer); err != nil {
		t.Errorf("a part under the lease: %v", err)
	}
}

// A plan does what its kind says, and nothing that only another one does: who reads `upgrade` has read that no keys are destroyed.
func TestStepOfAnotherKindIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	h.setState(registryv1.NewTenantWriteServiceClient(ann.conn), h.create(ann.conn, "globex"), suspendState)
	const (
		provision = registryv1.OperationKind_OPERATION_KIND_PROVISION
		downgrade = registryv1.OperationKind_OPERATION_KIND_DOWNGRADE
		resume    = registryv1.OperationKind_OPERATION_KIND_RESUME
		offboard  = registryv1.OperationKind_OPERATION_KIND_OFFBOARD
	)
	// What fleets of this release and of earlier ones plan.
	has := map[registryv1.OperationKind][]string{
		provision:   {"fetch", "identity", "database", "migrate", "mark", "start", "publish", "answer"},
		upgradeKind: {"fetch", "migrate", "start", "confirm"}, downgrade: {"fetch", "start", "confirm"}, suspendKind: {"unpublish", "stop"},
		resume: {"identity", "database", "start", "publish", "answer"}, offboard: {"unpublish", "export", "stop", "wait", "shred", "delete", "remains"},
	}
	change := func(kind registryv1.OperationKind, steps ...string) *registryv1.TenantChange {
		switch kind {
		case provision:
			c := h.provision("initech").GetTenants()[0]
			c.Steps = steps
			return c
		case suspendKind:
			return ann.change("acme", suspendState, older, steps...)
		case resume:
			return ann.change("globex", activeState, older, steps...)
		case offboard:
			return ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", steps...)
		default:
			return ann.change("acme", activeState, newer, steps...)
		}
	}
	all := map[string]bool{"obliterate": true}
	for _, steps := range has {
		for _, s := range steps {
			all[s] = true
		}
	}
	for kind, steps := range has {
		if _, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: h.planned(kind, change(kind, steps...))}); err != nil {
			t.Errorf("%s with its own steps: %v", kind, err)
		}
		for s := range all {
			if slices.Contains(steps, s) {
				continue
			}
			_, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: h.planned(kind, change(kind, steps[0], s))})
			wantKind(t, err, fault.InvalidArgument, kind.String()+" with the step "+s)
			if err != nil && !strings.Contains(err.Error(), "step "+s) {
				t.Errorf("%s with the step %s: %v does not name it", kind, s, err)
			}
		}
	}
}

// fixed brings a tenant to another release than the rollout's, by a plan of its own, as somebody does who can't wait for the rollout.
func (w *waved) fixed(slug string) string {
	w.t.Helper()
	digest := "sha256:" + strings.Repeat("5", 64)
	w.register("1.5.0", digest)
	change := w.change(slug, activeState, "1.5.0@"+digest, "start")
	w.carry(w.h.planned(upgradeKind, change), change.GetTenantId())
	return "1.5.0@" + digest
}

// suspended suspends a tenant by a plan of its own.
func (w *waved) suspended(slug string) {
	w.t.Helper()
	change := w.change(slug, suspendState, w.status(slug).GetServiceSet().GetRelease(), "stop")
	w.carry(w.h.planned(suspendKind, change), change.GetTenantId())
}

func (w *waved) skip(slug string) error {
	_, err := w.rolls.SkipRolloutTenant(w.t.Context(), &registryv1.SkipRolloutTenantRequest{
		RolloutId: w.lease.GetRollout().GetId(), TenantId: w.tenants[slug].id.String(), Reason: "somebody else changed it"})
	return err
}

func (w *waved) resume() *registryv1.Rollout {
	w.t.Helper()
	res, err := w.rolls.ResumeRollout(w.t.Context(), &registryv1.ResumeRolloutRequest{RolloutId: w.lease.GetRollout().GetId(), Reason: "the others are well"})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetRollout()
}

// A tenant that somebody else changed since the plan was approved is left as it is, and nobody goes back because of it.
func TestTenantThatSomebodyElseChangedIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWaved(t, "acme", "globex")
	w.begun(w.planned(newer, "acme globex"))
	w.changed("acme", newer)
	w.moved("acme", toPassed, "")
	is := w.fixed("globex")
	w.moved("globex", toChanging, "")
	_, err := w.part(w.lease, upgradeKind, "globex", newer)
	wantKind(t, err, fault.FailedPrecondition, "a part of whom somebody else changed")
	if err == nil {
		t.FailNow()
	}
	for _, says := range []string{"globex runs " + is, "from " + older + " to " + newer, "fleet rollout skip " + w.lease.GetRollout().GetId() + " globex"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the refusal does not say %q: %v", says, err)
		}
	}
	if r := w.moved("globex", toFailed, err.Error()); r.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED {
		t.Errorf("the rollout is %s", r.GetState())
	}
	w.notNow("globex", toRollingBack, "")
	w.notNow("acme", toRollingBack, "")
	if err := w.skip("globex"); err != nil {
		t.Fatalf("it can't be left out: %v", err)
	}
	if r := w.resume(); r.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		t.Errorf("without it the rollout is %s", r.GetState())
	}
}

// Whoever was suspended meanwhile is tried again when the rollout is resumed, and left out when somebody says so.
func TestTenantThatWasSuspendedMeanwhileKeepsNobody(t *testing.T) {
	t.Parallel()
	w := newWaved(t, "acme", "globex")
	w.begun(w.planned(newer, "acme", "globex"))
	w.suspended("acme")
	for range 2 {
		w.moved("acme", toChanging, "")
		w.moved("acme", toFailed, "it is suspended")
		w.notNow("acme", toRollingBack, "")
		if x := w.resume().GetTenants()[0]; x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING {
			t.Errorf("resumed, it is %s", x.GetState())
		}
	}
	if err := w.skip("acme"); err != nil {
		t.Fatal(err)
	}
	w.changed("globex", newer)
	if r := w.moved("globex", toPassed, ""); r.GetState() != registryv1.RolloutState_ROLLOUT_STATE_SUCCEEDED {
		t.Errorf("it ended as %s", r.GetState())
	}
}

// Who passed and was changed by somebody else since is not taken back with its wave. It can be left out then, and so can one that is watched: who is as
// the rollout made it can't.
func TestTenantThatSomebodyElseChangedIsNotTakenBack(t *testing.T) {
	t.Parallel()
	w := newWaved(t, "acme", "globex", "initech")
	plan := w.planned(newer, "acme globex initech")
	plan.Rollout.Rollback = registryv1.RollbackScope_ROLLBACK_SCOPE_ALL
	w.begun(plan)
	for _, slug := range []string{"acme", "globex"} {
		w.moved(slug, toChanging, "")
		if _, err := w.part(w.lease, upgradeKind, slug, newer, "fetch", "start"); err != nil {
			t.Fatal(err)
		}
		w.h.db.Exec(t, "UPDATE registry.operations SET state = 'succeeded', ended_at = now() WHERE state = 'unfinished'")
		w.runs(slug, newer)
		w.moved(slug, toBaking, "")
	}
	w.runs("acme", newer)
	w.moved("acme", toPassed, "")
	wantKind(t, w.skip("acme"), fault.FailedPrecondition, "leaving out who passed")
	wantKind(t, w.skip("globex"), fault.FailedPrecondition, "leaving out who is watched")
	w.suspended("globex")
	if err := w.skip("globex"); err != nil {
		t.Errorf("one that is watched and that somebody suspended can't be left out: %v", err)
	}
	w.fixed("acme")
	w.moved("initech", toChanging, "")
	if _, err := w.part(w.lease, upgradeKind, "initech", newer); err != nil {
		t.Fatal(err)
	}
	w.moved("initech", toFailed, "iam answers 503")
	wantKind(t, w.skip("initech"), fault.FailedPrecondition, "leaving out who goes back")
	w.moved("acme", toRollingBack, "")
	_, err := w.part(w.lease, registryv1.OperationKind_OPERATION_KIND_DOWNGRADE, "acme", older)
	wantKind(t, err, fault.FailedPrecondition, "taking back whom somebody else changed")
	if err == nil || !strings.Contains(err.Error(), "acme runs 1.5.0@") {
		t.Errorf("the refusal does not say what differs: %v", err)
	}
	if err := w.skip("acme"); err != nil {
		t.Errorf("it can't be left out: %v", err)
	}
	w.moved("initech", toRollingBack, "")
	w.runs("initech", older)
	w.moved("initech", toRolledBack, "")
	if x := w.resume().GetTenants()[2]; x.GetOperationId() != "" || x.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING {
		t.Errorf("resumed, initech is %s, with operation %q", x.GetState(), x.GetOperationId())
	}
}
