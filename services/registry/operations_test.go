package registry_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

const (
	older = "1.0.0@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	newer = "1.1.0@sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// operator is a person at the registry.
type operator struct {
	h     *harness
	name  string
	conn  *grpc.ClientConn
	plans registryv1.PlanWriteServiceClient
	ops   registryv1.OperationWriteServiceClient
	reads registryv1.OperationServiceClient
}

// person connects as an operator with a name, whose key is the plane's machine's, and who is on record at once.
func (h *harness) person(addr, name string) operator {
	h.t.Helper()
	h.added(addr, name, "")
	return h.at(name, h.as(addr, name))
}

func (h *harness) at(name string, conn *grpc.ClientConn) operator {
	return operator{h: h, name: name, conn: conn, plans: registryv1.NewPlanWriteServiceClient(conn),
		ops: registryv1.NewOperationWriteServiceClient(conn), reads: registryv1.NewOperationServiceClient(conn)}
}

// planned is a plan of one tenant's change, with everything that is the same for all.
func (h *harness) planned(kind registryv1.OperationKind, change *registryv1.TenantChange) *registryv1.Plan {
	return &registryv1.Plan{
		Plane: h.plane, Platform: "local", Account: "host-1", Region: "local", Blueprint: "accessos",
		BlueprintDigest: "sha256:" + strings.Repeat("b", 64), Kind: kind, Selectors: []string{"--tenant " + change.GetSlug()},
		Reason: "the customer asked for it", Tenants: []*registryv1.TenantChange{change},
	}
}

// provision is the plan that makes a tenant.
func (h *harness) provision(slug string) *registryv1.Plan {
	return h.planned(registryv1.OperationKind_OPERATION_KIND_PROVISION, &registryv1.TenantChange{
		Slug: slug, DisplayName: slug, IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED,
		StateTo: registryv1.TenantState_TENANT_STATE_ACTIVE, ReleaseTo: older, Steps: []string{"identity", "database", "start"},
		Labels: map[string]string{"ring": "canary"},
	})
}

// change is what a kind of operation does to a tenant as the registry knows it now.
func (o operator) change(slug string, to registryv1.TenantState, release string, steps ...string) *registryv1.TenantChange {
	o.h.t.Helper()
	s := o.status(slug)
	return &registryv1.TenantChange{
		TenantId: s.GetTenant().GetId(), Slug: slug, IsolationTier: s.GetTenant().GetIsolationTier(),
		StateFrom: s.GetTenant().GetState(), StateTo: to, ReleaseFrom: s.GetServiceSet().GetRelease(), ReleaseTo: release,
		AfterOperation: s.GetTenant().GetLastOperation(), Steps: steps,
	}
}

func (o operator) status(tenant string) *registryv1.TenantStatus {
	o.h.t.Helper()
	res, err := registryv1.NewTenantServiceClient(o.conn).GetTenant(o.h.t.Context(), &registryv1.GetTenantRequest{Tenant: tenant})
	if err != nil {
		o.h.t.Fatal(err)
	}
	return res.GetStatus()
}

func (o operator) put(plan *registryv1.Plan) *registryv1.StoredPlan {
	o.h.t.Helper()
	res, err := o.plans.PutPlan(o.h.t.Context(), &registryv1.PutPlanRequest{Plan: plan})
	if err != nil {
		o.h.t.Fatal(err)
	}
	return res.GetPlan()
}

func (o operator) begin(hash, tenant string) *registryv1.Operation {
	o.h.t.Helper()
	res, err := o.ops.BeginOperation(o.h.t.Context(), &registryv1.BeginOperationRequest{PlanHash: hash, Tenant: tenant})
	if err != nil {
		o.h.t.Fatal(err)
	}
	return res.GetOperation()
}

func (o operator) take(operation string) *registryv1.TakeLeaseResponse {
	o.h.t.Helper()
	res, err := o.ops.TakeLease(o.h.t.Context(), &registryv1.TakeLeaseRequest{OperationId: operation, Place: "host-1, process 1"})
	if err != nil {
		o.h.t.Fatal(err)
	}
	return res
}

func (o operator) record(lease *registryv1.TakeLeaseResponse, step string, state registryv1.StepState) error {
	_, err := o.ops.RecordStep(o.h.t.Context(), &registryv1.RecordStepRequest{
		OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken(), Step: step, State: state})
	return err
}

// step carries a step out.
func (o operator) step(lease *registryv1.TakeLeaseResponse, step string) {
	o.h.t.Helper()
	for _, state := range []registryv1.StepState{registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_DONE} {
		if err := o.record(lease, step, state); err != nil {
			o.h.t.Fatal(err)
		}
	}
}

func (o operator) finish(lease *registryv1.TakeLeaseResponse) (*registryv1.Operation, error) {
	res, err := o.ops.FinishOperation(o.h.t.Context(), &registryv1.FinishOperationRequest{
		OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken()})
	return res.GetOperation(), err
}

func proof(lease *registryv1.TakeLeaseResponse) *registryv1.LeaseProof {
	return &registryv1.LeaseProof{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken()}
}

// carry carries a whole plan of one tenant out.
func (o operator) carry(plan *registryv1.Plan, name string) *registryv1.Operation {
	o.h.t.Helper()
	lease := o.take(o.begin(o.put(plan).GetHash(), name).GetId())
	for _, s := range lease.GetOperation().GetSteps() {
		o.step(lease, s.GetName())
	}
	done, err := o.finish(lease)
	if err != nil {
		o.h.t.Fatal(err)
	}
	return done
}

// place is a set for a tenant that an operation makes.
func (h *harness) place(tenantID string) *registryv1.ServiceSet {
	h.t.Helper()
	x := tenant{id: parse(h.t, tenantID)}
	x.root, x.issuer = authority(h.t, h.domain(x.id))
	return &registryv1.ServiceSet{CaCertificatesPem: string(x.root.CertificatePEM()), Release: older, Reporter: "audit",
		Components: []*registryv1.Component{{Name: "iam", Address: freeAddress(h.t)}},
		Database:   &registryv1.DatabasePlace{Server: freeAddress(h.t), Name: "db"}}
}

// registerNewer registers the release that upgrades lead to: only what somebody signed is brought to a tenant.
func (o operator) registerNewer() {
	o.h.t.Helper()
	m := manifest(o.h.plane, "1.1.0", "")
	m.Artefacts[0].Digest = strings.TrimPrefix(newer, "1.1.0@")
	_, err := registryv1.NewReleaseWriteServiceClient(o.conn).RegisterRelease(o.h.t.Context(), &registryv1.RegisterReleaseRequest{Envelope: sign(o.h.t, o.h.releaseSigner, m)})
	if err != nil {
		o.h.t.Fatal(err)
	}
}

func TestPlannedTenantIsMadeServedUpgradedSuspendedAndLeaves(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	w := registryv1.NewTenantWriteServiceClient(ann.conn)
	gateway := h.watch(h.as(addr, "gateway"))

	plan := h.provision("acme")
	stored := ann.put(plan)
	if sum := sha256.Sum256(stored.GetDocument()); stored.GetHash() != "sha256:"+hex.EncodeToString(sum[:]) || stored.GetNeedsApproval() {
		t.Errorf("the plan is stored as %v", stored)
	}
	began := ann.begin(stored.GetHash(), "acme")
	if again := ann.begin(stored.GetHash(), "acme"); !proto.Equal(began, again) {
		t.Errorf("the plan began twice: %v and %v", began, again)
	}
	lease := ann.take(began.GetId())
	ann.step(lease, "identity")
	set := h.place(began.GetTenantId())
	if _, err := w.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: began.GetTenantId(), ServiceSet: set, Lease: proof(lease)}); err != nil {
		t.Fatal(err)
	}
	ann.step(lease, "database")
	_, err := ann.finish(lease)
	wantKind(t, err, fault.FailedPrecondition, "finishing before the last step")
	ann.step(lease, "start")
	done, err := ann.finish(lease)
	if err != nil || done.GetState() != registryv1.OperationState_OPERATION_STATE_SUCCEEDED || done.GetActor() != "spiffe://plane.dev.a3os/operator-ann" {
		t.Fatalf("the operation ended as %v, %v", done, err)
	}
	if again, err := ann.finish(lease); err != nil || !proto.Equal(done, again) {
		t.Errorf("finishing again: %v, %v", again, err)
	}
	gateway.until("acme")
	if labels := ann.status("acme").GetTenant().GetLabels(); labels["ring"] != "canary" {
		t.Errorf("its labels are %v", labels)
	}

	active, suspended := registryv1.TenantState_TENANT_STATE_ACTIVE, registryv1.TenantState_TENANT_STATE_SUSPENDED
	change := ann.change("acme", active, newer, "fetch", "start")
	unknown := ann.put(h.planned(registryv1.OperationKind_OPERATION_KIND_UPGRADE, change))
	_, err = ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: unknown.GetHash(), Tenant: change.GetTenantId()})
	wantKind(t, err, fault.FailedPrecondition, "an upgrade to a release that nobody registered")
	ann.registerNewer()
	ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_UPGRADE, change), change.GetTenantId())
	if is := ann.status("acme").GetServiceSet().GetRelease(); is != newer {
		t.Errorf("after the upgrade the registry has release %s", is)
	}
	change = ann.change("acme", suspended, newer, "stop")
	first := ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_SUSPEND, change), change.GetTenantId())
	gateway.until()
	change = ann.change("acme", active, newer, "start")
	ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_RESUME, change), change.GetTenantId())
	gateway.until("acme")
	// The same words a second time are another plan: something was done to the tenant since.
	change = ann.change("acme", suspended, newer, "stop")
	second := ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_SUSPEND, change), change.GetTenantId())
	if first.GetId() == second.GetId() {
		t.Error("suspending a second time answered the first operation")
	}
	change = ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", "shred", "delete")
	ann.carry(h.planned(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, change), change.GetTenantId())
	if s := ann.status(began.GetTenantId()); s.GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_OFFBOARDED || s.GetServiceSet() != nil {
		t.Errorf("after it left the registry has %v", s)
	}
	all, err := ann.reads.ListOperations(t.Context(), &registryv1.ListOperationsRequest{PageSize: 3})
	if err != nil || len(all.GetOperations()) != 3 || all.GetNextPageToken() == "" || all.GetOperations()[0].GetKind() != registryv1.OperationKind_OPERATION_KIND_OFFBOARD {
		t.Errorf("the newest operations are %v, %v", all, err)
	}
	rest, err := ann.reads.ListOperations(t.Context(), &registryv1.ListOperationsRequest{PageToken: all.GetNextPageToken(), TenantId: began.GetTenantId()})
	if err != nil || len(rest.GetOperations()) != 3 || len(rest.GetOperations()[2].GetSteps()) != 3 {
		t.Errorf("the oldest operations are %v, %v", rest, err)
	}
}
