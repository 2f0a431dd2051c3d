package registry_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
)

// putting is a plan that is begun as it is put, under a lease whose secret the caller chose.
func (o operator) putting(plan *registryv1.Plan, token string) (*registryv1.PutPlanResponse, error) {
	return o.plans.PutPlan(o.h.t.Context(), &registryv1.PutPlanRequest{Plan: plan, BeginAt: "host-1, process 1", LeaseToken: token})
}

// A plan that is begun as it is put: who did not hear the answer gets it again, and whoever brings another secret gets nothing of the lease.
func TestPlanIsPutBegunAndLeasedInOneWord(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann, ben := h.person(addr, "operator-ann"), h.person(addr, "operator-ben")
	plan, token, other := h.provision("acme"), strings.Repeat("a", 43), strings.Repeat("b", 43)

	_, err := ann.putting(plan, "")
	wantKind(t, err, fault.InvalidArgument, "a plan that is begun without a secret of its lease")
	two := proto.CloneOf(plan)
	two.Tenants = append(two.Tenants, h.provision("globex").GetTenants()...)
	_, err = ann.putting(two, token)
	wantKind(t, err, fault.InvalidArgument, "a plan of two tenants that is begun as it is put")

	res, err := ann.putting(plan, token)
	if err != nil {
		t.Fatal(err)
	}
	op := res.GetOperation()
	if first := op.GetSteps()[0]; op.GetLease().GetFence() != 1 || first.GetState() != registryv1.StepState_STEP_STATE_BEGUN || op.GetLease().GetPlace() != "host-1, process 1" {
		t.Errorf("it was begun as %v", op)
	}
	if s := res.GetTenant().GetTenant(); s.GetId() != op.GetTenantId() || s.GetSlug() != "acme" || s.GetState() != registryv1.TenantState_TENANT_STATE_PROVISIONING || s.GetLastOperation() != op.GetId() {
		t.Errorf("its tenant is answered as %v", s)
	}
	again, err := ann.putting(plan, token)
	if err != nil || !proto.Equal(again.GetOperation(), op) || !proto.Equal(again.GetPlan(), res.GetPlan()) {
		t.Errorf("asked again, the answer is %v, %v, and was %v", again, err, res)
	}
	for who, p := range map[string]operator{"the same operator": ann, "another one": ben} {
		if got, err := p.putting(plan, other); err != nil || got.GetOperation() != nil || got.GetPlan().GetHash() != op.GetPlanHash() {
			t.Errorf("%s, who brings another secret, is answered %v, %v", who, got, err)
		}
	}
	_, err = ben.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-2"})
	wantReason(t, err, "LEASE_HELD", "the lease of what was begun with its plan")
	logged := column(t, h, "SELECT action FROM registry.operations_log WHERE action LIKE 'registry.operation.%' OR action = 'registry.plan.put' ORDER BY id")
	if want := []string{"registry.plan.put", "registry.operation.begun", "registry.operation.lease_taken", "registry.operation.step_begun"}; !slices.Equal(logged, want) {
		t.Errorf("the operations log has %q, want %q", logged, want)
	}

	lease := &registryv1.TakeLeaseResponse{Operation: op, LeaseToken: token}
	wantReason(t, ann.record(&registryv1.TakeLeaseResponse{Operation: op, LeaseToken: other}, "identity", registryv1.StepState_STEP_STATE_DONE), "LEASE_LOST", "a step under another secret")
	if err := ann.record(lease, "identity", registryv1.StepState_STEP_STATE_DONE); err != nil {
		t.Errorf("the step that was begun with the plan: %v", err)
	}
	// What somebody took over is not given back to who asks once more.
	h.db.Exec(t, "UPDATE registry.operations SET lease_expires_at = now() - interval '1 second'")
	ben.take(op.GetId())
	if got, err := ann.putting(plan, token); err != nil || got.GetOperation() != nil {
		t.Errorf("who lost the lease asks again, and is answered %v, %v", got, err)
	}
}

// In plane prod nothing is begun that nobody else spoke for, however it is asked for, and nothing of it stays behind.
func TestPlanOfProdIsNotBegunAsItIsPut(t *testing.T) {
	h := newPlane(t, "prod")
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.db.Exec(t, "INSERT INTO registry.releases (name, version, payload, envelope, key_ids, actor) VALUES ('"+older+"', '1.0.0', '', '', '{}', 'test')")
	_, err := ann.putting(h.provision("acme"), strings.Repeat("a", 43))
	wantReason(t, err, "PLAN_NOT_APPROVED", "a plan that is begun before a second person saw it")
	if left := column(t, h, "SELECT hash FROM registry.plans UNION ALL SELECT slug FROM registry.tenants"); len(left) > 0 {
		t.Errorf("what was refused left %q behind", left)
	}
}

// The last step and the end of its operation are on record in one moment, or neither is.
func TestLastStepEndsItsOperation(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	acme := h.create(ann.conn, "acme")
	lease := ann.take(ann.suspending("acme").GetId())
	began, done, failed := registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_DONE, registryv1.StepState_STEP_STATE_FAILED
	end := func(ops registryv1.OperationWriteServiceClient, step, next string, state registryv1.StepState) (*registryv1.Operation, error) {
		res, err := ops.RecordStep(t.Context(), &registryv1.RecordStepRequest{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken(), Step: step, State: state, ThenBegin: next, ThenFinish: true})
		return res.GetOperation(), err
	}
	if err := ann.record(lease, "unpublish", began); err != nil {
		t.Fatal(err)
	}
	_, err := end(ann.ops, "unpublish", "", failed)
	wantKind(t, err, fault.InvalidArgument, "an end with a step that failed")
	_, err = end(ann.ops, "unpublish", "stop", done)
	wantKind(t, err, fault.InvalidArgument, "an end with another step's beginning")
	_, err = end(ann.ops, "unpublish", "", done)
	wantKind(t, err, fault.FailedPrecondition, "an end with a step that is not the last")
	if err := ann.record(lease, "unpublish", done); err != nil {
		t.Fatalf("the step that did not end the operation can't be done any more: %v", err)
	}
	_, err = end(ann.ops, "stop", "", done)
	wantKind(t, err, fault.FailedPrecondition, "an end with a step that was not begun")
	if err := ann.record(lease, "stop", began); err != nil {
		t.Fatal(err)
	}
	who, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: workload.Provisioner})
	_, err = end(registryv1.NewOperationWriteServiceClient(h.dial(addr, who)), "stop", "", done)
	wantKind(t, err, fault.PermissionDenied, "an end by the tenant's own provisioner")
	if s := ann.status("acme").GetTenant().GetState(); s != registryv1.TenantState_TENANT_STATE_ACTIVE {
		t.Errorf("the tenant is %s before its operation has ended", s)
	}
	op, err := end(ann.ops, "stop", "", done)
	if err != nil || op.GetState() != registryv1.OperationState_OPERATION_STATE_SUCCEEDED || op.GetSteps()[1].GetState() != done {
		t.Fatalf("it ended as %v, %v", op, err)
	}
	if s := ann.status("acme").GetTenant().GetState(); s != registryv1.TenantState_TENANT_STATE_SUSPENDED {
		t.Errorf("the tenant is %s", s)
	}
	if again, err := end(ann.ops, "stop", "", done); err != nil || !proto.Equal(again, op) {
		t.Errorf("said again, the answer is %v, %v", again, err)
	}
}

// A move of a tenant that is a step of its operation is on record as that step in one moment, or neither is.
func TestMoveIsOnRecordAsItsStep(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	acme := h.create(ann.conn, "acme")
	move := func(step, next string, lease *registryv1.LeaseProof) (*registryv1.SetTenantStateResponse, error) {
		return registryv1.NewTenantWriteServiceClient(ann.conn).SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{
			TenantId: acme.id.String(), State: registryv1.TenantState_TENANT_STATE_SUSPENDED, Lease: lease, Step: step, ThenBegin: next})
	}
	_, err := move("unpublish", "", nil)
	wantKind(t, err, fault.InvalidArgument, "a step without an operation")
	lease := ann.take(ann.suspending("acme").GetId())
	_, err = move("unpublish", "stop", proof(lease))
	wantKind(t, err, fault.FailedPrecondition, "a step that was not begun")
	if err := ann.record(lease, "unpublish", registryv1.StepState_STEP_STATE_BEGUN); err != nil {
		t.Fatal(err)
	}
	_, err = move("unpublish", "nonesuch", proof(lease))
	wantKind(t, err, fault.InvalidArgument, "a next step that is none")
	if s := ann.status("acme").GetTenant().GetState(); s != registryv1.TenantState_TENANT_STATE_ACTIVE {
		t.Errorf("the tenant is %s after moves that were refused", s)
	}
	// Another tenant's provisioner that came by the lease moves neither this tenant nor, with its step, its own.
	globex := h.create(ann.conn, "globex")
	who, _ := source(t, globex.issuer, workload.Identity{Plane: "dev", Tenant: globex.id, Service: workload.Provisioner})
	stranger := registryv1.NewTenantWriteServiceClient(h.dial(addr, who))
	for _, tenant := range []string{acme.id.String(), globex.id.String()} {
		if _, err := stranger.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: tenant, State: registryv1.TenantState_TENANT_STATE_SUSPENDED,
			Lease: proof(lease), Step: "unpublish", ThenBegin: "stop"}); err == nil {
			t.Errorf("a stranger's provisioner moved %s with the step of another's operation", tenant)
		}
	}
	for _, slug := range []string{"acme", "globex"} {
		if s := ann.status(slug).GetTenant().GetState(); s != registryv1.TenantState_TENANT_STATE_ACTIVE {
			t.Errorf("%s is %s after a stranger's word", slug, s)
		}
	}
	res, err := move("unpublish", "stop", proof(lease))
	if err != nil || res.GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_SUSPENDED {
		t.Fatalf("it was moved to %v, %v", res, err)
	}
	if steps := res.GetOperation().GetSteps(); steps[0].GetState() != registryv1.StepState_STEP_STATE_DONE || steps[1].GetState() != registryv1.StepState_STEP_STATE_BEGUN {
		t.Errorf("the steps are %v", steps)
	}
}
