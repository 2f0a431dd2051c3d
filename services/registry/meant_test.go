package registry_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/workload"
)

// What an operation, a restore or another release starts anew is no process that keeps ending: who is called for it would undo what was just done.
// A second start within the same operation is, and so is every one that nothing explains.
func TestStartsThatWereMeantAreToldApart(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	ann.registerNewer()
	acme := h.create(ann.conn, "acme")
	ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_SUSPEND, ann.change("acme", registryv1.TenantState_TENANT_STATE_SUSPENDED, older, "stop")), acme.id.String())
	s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: "audit"})
	set := registryv1.NewReportServiceClient(h.dial(addr, s))
	starts := func(what, release string, at time.Time, restarts, unmeant int32) {
		t.Helper()
		req := counted(at, 1, 0)
		req.Components[0].Release = release
		if _, err := set.Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		res, err := registryv1.NewTenantServiceClient(ann.conn).GetTenant(t.Context(), &registryv1.GetTenantRequest{Tenant: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		if c := res.GetStatus().GetReports()[0]; c.GetRestarts() != restarts || c.GetUnmeantRestarts() != unmeant {
			t.Errorf("%s: %d restarts, %d of them not meant; want %d, %d", what, c.GetRestarts(), c.GetUnmeantRestarts(), restarts, unmeant)
		}
	}
	began := time.Now()
	starts("the first of all", older, began.Add(-time.Hour), 0, 0)
	starts("by itself", older, began.Add(-time.Minute), 1, 1)
	lease := ann.take(ann.begin(ann.put(h.planned(registryv1.OperationKind_OPERATION_KIND_RESUME, ann.change("acme", registryv1.TenantState_TENANT_STATE_ACTIVE, older, "start"))).GetHash(), acme.id.String()).GetId())
	starts("by an operation", older, time.Now(), 2, 1)
	starts("by itself, while that goes on", older, time.Now(), 3, 2)
	starts("with another release", newer, time.Now(), 4, 2)
	ann.step(lease, "start")
	if _, err := ann.finish(lease); err != nil {
		t.Fatal(err)
	}
	restored := &registryv1.RecordRestoreRequest{TenantId: acme.id.String(), Backup: "20260901T030000Z-aaaaaa", TakenAt: timestamppb.New(began), Reason: "the disk was lost"}
	if _, err := registryv1.NewBackupWriteServiceClient(ann.conn).RecordRestore(t.Context(), restored); err != nil {
		t.Fatal(err)
	}
	starts("by a restore", newer, time.Now(), 5, 2)
	starts("by itself, after it", newer, time.Now(), 6, 3)

	f, err := registryv1.NewFigureServiceClient(ann.conn).BatchGetFigures(t.Context(), &registryv1.BatchGetFiguresRequest{TenantIds: []string{acme.id.String()}, From: timestamppb.New(began.Add(-time.Hour))})
	if err != nil || f.GetFigures()[0].GetComponents()[0].GetRestarts() != 6 || f.GetFigures()[0].GetComponents()[0].GetUnmeantRestarts() != 3 {
		t.Errorf("in figures: %v, %v", f, err)
	}
}
