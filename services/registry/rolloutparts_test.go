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
