package registry_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/services/registry/internal/store"
)

// The keys of a tenant that leaves are kept for as long as its plan says, from when the export was made, whoever takes the operation up how often:
// until then it can be given up, and nobody is woken because nobody works on it.
func TestOffboardingWaitsBetweenTheExportAndTheKeys(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	x := h.create(ann.conn, "acme")
	h.setState(registryv1.NewTenantWriteServiceClient(ann.conn), x, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	const wait = 720 * time.Hour
	waiting := func() *registryv1.Operation {
		t.Helper()
		change := ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", "stop", "export", "wait", "shred", "delete")
		plan := h.planned(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, change)
		plan.Wait = durationpb.New(wait)
		lease := ann.take(ann.begin(ann.put(plan).GetHash(), change.GetTenantId()).GetId())
		ann.step(lease, "stop")
		ann.step(lease, "export")
		for range 2 {
			if err := ann.record(lease, "wait", registryv1.StepState_STEP_STATE_BEGUN); err != nil {
				t.Fatal(err)
			}
			wantReason(t, ann.record(lease, "wait", registryv1.StepState_STEP_STATE_DONE), "OPERATION_WAITS", "the wait's end")
			_, err := ann.ops.RecordStep(t.Context(), &registryv1.RecordStepRequest{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken(),
				Step: "wait", State: registryv1.StepState_STEP_STATE_DONE, ThenBegin: "shred"})
			wantReason(t, err, "OPERATION_WAITS", "the keys with the wait's end")
			if err == nil || !strings.Contains(err.Error(), "fleet operation abort "+lease.GetOperation().GetId()) {
				t.Errorf("it does not say how to give it up: %v", err)
			}
			if _, err := ann.ops.ReleaseLease(t.Context(), &registryv1.ReleaseLeaseRequest{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken()}); err != nil {
				t.Fatal(err)
			}
			lease = ann.take(lease.GetOperation().GetId())
		}
		op := lease.GetOperation()
		exported := op.GetSteps()[1].GetEndedAt().AsTime()
		if until := op.GetWaitsUntil().AsTime(); !until.Equal(exported.Add(wait)) {
			t.Errorf("exported at %s it waits until %s", exported, until)
		}
		if _, err := ann.ops.ReleaseLease(t.Context(), &registryv1.ReleaseLeaseRequest{OperationId: op.GetId(), LeaseToken: lease.GetLeaseToken()}); err != nil {
			t.Fatal(err)
		}
		return op
	}
	abandoned := func() (n int64) {
		t.Helper()
		rows, err := store.New(h.db.Pool(t)).UnfinishedOperations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Abandoned {
				n += r.Operations
			}
		}
		return n
	}

	given := waiting()
	if n := abandoned(); n != 0 {
		t.Errorf("%d operations are said to be abandoned while one waits", n)
	}
	if _, err := ann.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: given.GetId(), Reason: "the customer stays"}); err != nil {
		t.Errorf("it can't be given up while it waits: %v", err)
	}

	op := waiting()
	h.db.Exec(t, "UPDATE registry.operation_steps SET ended_at = ended_at - interval '720 hours' WHERE name = 'export'")
	if n := abandoned(); n != 1 {
		t.Errorf("%d operations are abandoned after the wait", n)
	}
	lease := ann.take(op.GetId())
	for _, s := range []string{"wait", "shred", "delete"} {
		ann.step(lease, s)
	}
	if _, err := ann.finish(lease); err != nil {
		t.Error(err)
	}
}

// A plan that waits says from when and until what: a registry that could not hold anybody to it does not keep it.
func TestPlanThatCouldNotWaitIsRefused(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	x := h.create(ann.conn, "acme")
	put := func(kind registryv1.OperationKind, change *registryv1.TenantChange) error {
		plan := h.planned(kind, change)
		plan.Wait = durationpb.New(time.Hour)
		_, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: plan})
		return err
	}
	suspend := ann.change("acme", registryv1.TenantState_TENANT_STATE_SUSPENDED, x.set.GetRelease(), "export", "wait", "shred")
	wantKind(t, put(registryv1.OperationKind_OPERATION_KIND_SUSPEND, suspend), fault.InvalidArgument, "a suspension that waits")
	for _, steps := range [][]string{{"export", "shred"}, {"wait", "shred"}, {"export", "wait"}, {"wait", "export", "shred"}, {"export", "shred", "wait"}, {"shred", "export", "wait"}} {
		change := ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", steps...)
		wantKind(t, put(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, change), fault.InvalidArgument, strings.Join(steps, " "))
	}
	if err := put(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", "export", "wait", "shred")); err != nil {
		t.Error(err)
	}
}
