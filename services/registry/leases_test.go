package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
)

// wantReason wants a refusal that programs tell by its reason.
func wantReason(t *testing.T, err error, reason, what string) {
	t.Helper()
	if err == nil || !fault.FromRPC(err).(interface{ Is(error) bool }).Is(fault.Declare(fault.Internal, reason, "")) { //nolint:errorlint,forcetypeassert // FromRPC answers a *fault.Error
		t.Errorf("%s: got %v, want %s", what, err, reason)
	}
}

// suspending plans to suspend a tenant that is served, and begins.
func (o operator) suspending(slug string) *registryv1.Operation {
	o.h.t.Helper()
	change := o.change(slug, registryv1.TenantState_TENANT_STATE_SUSPENDED, o.status(slug).GetServiceSet().GetRelease(), "unpublish", "stop")
	return o.begin(o.put(o.h.planned(registryv1.OperationKind_OPERATION_KIND_SUSPEND, change)).GetHash(), change.GetTenantId())
}

// Who did not hear the answer asks again, with the secret that it brought: it is told of the lease that it has, and nobody else is.
func TestLeaseWhoseAnswerWasLostIsAnsweredAgain(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann, ben := h.person(addr, "operator-ann"), h.person(addr, "operator-ben")
	h.create(ann.conn, "acme")
	op, secret := ann.suspending("acme"), strings.Repeat("a", 43)
	take := func(o operator, secret string, insteadOf int64) (*registryv1.TakeLeaseResponse, error) {
		return o.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-1, process 1", LeaseToken: secret, InsteadOf: insteadOf})
	}
	first, err := take(ann, secret, 0)
	if err != nil || first.GetLeaseToken() != secret {
		t.Fatalf("the secret that was brought is %q, %v", first.GetLeaseToken(), err)
	}
	again, err := take(ann, secret, 0)
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("asked again, the answer is %v, %v, and was %v", again, err, first)
	}
	_, err = take(ann, strings.Repeat("b", 43), 0)
	wantReason(t, err, "LEASE_HELD", "a lease that lasts, to who brings another secret")
	_, err = take(ann, "", 0)
	wantReason(t, err, "LEASE_HELD", "a lease that lasts, to who brings none")
	_, err = take(ann, "short", 0)
	wantKind(t, err, fault.InvalidArgument, "a secret that can be guessed")

	// As much where it was taken in place of that of a process that is gone.
	fence, other := first.GetOperation().GetLease().GetFence(), strings.Repeat("c", 43)
	instead, err := take(ann, other, fence)
	if err != nil || instead.GetOperation().GetLease().GetFence() != fence+1 {
		t.Fatalf("the lease in place of another is %v, %v", instead, err)
	}
	if again, err := take(ann, other, fence); err != nil || !proto.Equal(instead, again) {
		t.Errorf("asked again, the answer is %v, %v, and was %v", again, err, instead)
	}
	// What somebody took over is not given back.
	h.db.Exec(t, "UPDATE registry.operations SET lease_expires_at = now() - interval '1 second'")
	ben.take(op.GetId())
	_, err = take(ann, other, 0)
	wantReason(t, err, "LEASE_HELD", "a lease that was lost, to who had it")
	taken := column(t, h, "SELECT actor FROM registry.operations_log WHERE action = 'registry.operation.lease_taken' ORDER BY id")
	if len(taken) != 3 {
		t.Errorf("the operations log has leases of %q, want two of ann and one of ben", taken)
	}
}

func TestOfTwoOperatorsOneWorksAndTheOtherIsToldWho(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann, ben := h.person(addr, "operator-ann"), h.person(addr, "operator-ben")
	h.create(ann.conn, "acme")
	ann.registerNewer()

	op := ann.suspending("acme")
	change := ben.change("acme", registryv1.TenantState_TENANT_STATE_ACTIVE, newer, "start")
	change.AfterOperation = op.GetId()
	plan := h.planned(registryv1.OperationKind_OPERATION_KIND_UPGRADE, change)
	_, err := ben.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: ben.put(plan).GetHash(), Tenant: change.GetTenantId()})
	wantReason(t, err, "OPERATION_UNFINISHED", "a second operation on the tenant")

	first := ann.take(op.GetId())
	_, err = ben.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-2"})
	wantReason(t, err, "LEASE_HELD", "a lease that somebody holds")
	_, err = ben.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-2", InsteadOf: first.GetOperation().GetLease().GetFence()})
	wantReason(t, err, "LEASE_HELD", "somebody else's lease in place of it")
	_, err = ben.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: op.GetId(), Reason: "it takes too long"})
	wantReason(t, err, "LEASE_LOST", "giving up what somebody works on")
	ann.step(first, "unpublish")

	// The lease ends and ben takes it: what ann's process still sends comes too late.
	h.db.Exec(t, "UPDATE registry.operations SET lease_expires_at = now() - interval '1 second'")
	second := ben.take(op.GetId())
	if a, b := first.GetOperation().GetLease().GetFence(), second.GetOperation().GetLease().GetFence(); b <= a || first.GetLeaseToken() == second.GetLeaseToken() {
		t.Errorf("the fence went from %d to %d", a, b)
	}
	wantReason(t, ann.record(first, "stop", registryv1.StepState_STEP_STATE_BEGUN), "LEASE_LOST", "a step under an earlier lease")
	_, err = ann.finish(first)
	wantReason(t, err, "LEASE_LOST", "finishing under an earlier lease")
	_, err = ann.ops.RenewLease(t.Context(), &registryv1.RenewLeaseRequest{OperationId: op.GetId(), LeaseToken: first.GetLeaseToken()})
	wantReason(t, err, "LEASE_LOST", "renewing an earlier lease")
	_, err = registryv1.NewTenantWriteServiceClient(ann.conn).SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{
		TenantId: op.GetTenantId(), State: registryv1.TenantState_TENANT_STATE_SUSPENDED, Lease: proof(first)})
	wantReason(t, err, "LEASE_LOST", "the tenant's state under an earlier lease")

	// ben's own process was killed, and he knows: he need not wait. Nor need anybody once he gave the lease back.
	res, err := ben.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-2", InsteadOf: second.GetOperation().GetLease().GetFence()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ben.ops.ReleaseLease(t.Context(), &registryv1.ReleaseLeaseRequest{OperationId: op.GetId(), LeaseToken: res.GetLeaseToken()}); err != nil {
		t.Fatal(err)
	}
	last := ann.take(op.GetId())
	ann.step(last, "stop")
	if _, err := ann.finish(last); err != nil {
		t.Error(err)
	}
	_, err = ann.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-1"})
	wantReason(t, err, "OPERATION_ENDED", "a lease of what has ended")
}

func TestOfManyWhoBeginAndTakeAtOnceOneDoes(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	change := ann.change("acme", registryv1.TenantState_TENANT_STATE_SUSPENDED, older, "stop")
	hash := ann.put(h.planned(registryv1.OperationKind_OPERATION_KIND_SUSPEND, change)).GetHash()
	var mu sync.Mutex
	var wg sync.WaitGroup
	begun, taken := map[string]bool{}, 0
	for range 8 {
		wg.Go(func() {
			res, err := ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: hash, Tenant: change.GetTenantId()})
			if err != nil {
				t.Error(err)
				return
			}
			_, err = ann.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: res.GetOperation().GetId(), Place: "host-1"})
			mu.Lock()
			defer mu.Unlock()
			begun[res.GetOperation().GetId()] = true
			if err == nil {
				taken++
			}
		})
	}
	wg.Wait()
	if len(begun) != 1 || taken != 1 {
		t.Errorf("%d operations were begun and %d leases taken, want one each", len(begun), taken)
	}
}

// A step begins in the moment in which the one before it is done, or neither is on record: out of turn, unknown, done already, or after what is
// not done.
func TestNextStepBeginsWithTheEndOfTheOneBefore(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	lease := ann.take(ann.suspending("acme").GetId())
	began, done, failed := registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_DONE, registryv1.StepState_STEP_STATE_FAILED
	say := func(step string, state registryv1.StepState, next string) ([]*registryv1.Step, error) {
		res, err := ann.ops.RecordStep(t.Context(), &registryv1.RecordStepRequest{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken(), Step: step, State: state, ThenBegin: next})
		return res.GetOperation().GetSteps(), err
	}
	if err := ann.record(lease, "unpublish", began); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		state registryv1.StepState
		next  string
		want  fault.Kind
	}{{failed, "stop", fault.InvalidArgument}, {began, "stop", fault.InvalidArgument}, {done, "nonesuch", fault.InvalidArgument}, {done, "unpublish", fault.FailedPrecondition}} {
		_, err := say("unpublish", c.state, c.next)
		wantKind(t, err, c.want, fmt.Sprintf("%s, and then %s", c.state, c.next))
	}
	steps, err := say("unpublish", done, "stop")
	if err != nil || steps[0].GetState() != done || steps[0].GetAttempts() != 1 || steps[1].GetState() != began || steps[1].GetAttempts() != 1 {
		t.Fatalf("the steps are %v, %v", steps, err)
	}
	if steps, err = say("stop", done, ""); err != nil || steps[1].GetState() != done {
		t.Errorf("the steps are %v, %v", steps, err)
	}
}

func TestStepsGoInOrderAndWhatIsDoneStaysDone(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	op := ann.suspending("acme")
	lease := ann.take(op.GetId())
	began, done, failed := registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_DONE, registryv1.StepState_STEP_STATE_FAILED
	wantKind(t, ann.record(lease, "stop", began), fault.FailedPrecondition, "the second step before the first")
	wantKind(t, ann.record(lease, "unpublish", done), fault.FailedPrecondition, "the end of a step that was not begun")
	wantKind(t, ann.record(lease, "nonesuch", began), fault.InvalidArgument, "a step that the plan doesn't have")
	for _, s := range []registryv1.StepState{began, failed, began} {
		if err := ann.record(lease, "unpublish", s); err != nil {
			t.Fatal(err)
		}
	}
	// Begun under one lease, it can't be ended under the next: it may have been cut off anywhere.
	res, err := ann.ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: op.GetId(), Place: "host-1", InsteadOf: lease.GetOperation().GetLease().GetFence()})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, ann.record(res, "unpublish", done), fault.FailedPrecondition, "the end of a step that an earlier lease began")
	ann.step(res, "unpublish")
	if err := ann.record(res, "unpublish", done); err != nil {
		t.Errorf("done again: %v", err)
	}
	wantKind(t, ann.record(res, "unpublish", began), fault.FailedPrecondition, "a step that is done, again")
	got, err := ann.reads.GetOperation(t.Context(), &registryv1.GetOperationRequest{OperationId: op.GetId()})
	if s := got.GetOperation().GetSteps(); err != nil || s[0].GetState() != done || s[0].GetAttempts() != 3 || s[1].GetAttempts() != 0 {
		t.Errorf("the steps are %v, %v", s, err)
	}
	gone, err := ann.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: op.GetId(), LeaseToken: res.GetLeaseToken(), Reason: "the customer changed their mind"})
	if err != nil || gone.GetOperation().GetAbortedBy() == "" || ann.status("acme").GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_ACTIVE {
		t.Errorf("given up it is %v, %v", gone, err)
	}
	if again := ann.suspending("acme"); again.GetId() == op.GetId() {
		t.Error("planned again, the operation that was given up came back")
	}
}

// A tenant's provisioner works on that tenant: at the registry no other one is there.
func TestProvisionerOfATenantReachesThatTenantAlone(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	acme, globex := h.create(ann.conn, "acme"), h.create(ann.conn, "globex")
	mine, other := ann.take(ann.suspending("acme").GetId()), ann.take(ann.suspending("globex").GetId())
	who, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: workload.Provisioner})
	conn := h.dial(addr, who)
	ops, writes := registryv1.NewOperationWriteServiceClient(conn), registryv1.NewTenantWriteServiceClient(conn)
	record := func(lease *registryv1.TakeLeaseResponse) error {
		_, err := ops.RecordStep(t.Context(), &registryv1.RecordStepRequest{OperationId: lease.GetOperation().GetId(),
			LeaseToken: lease.GetLeaseToken(), Step: "unpublish", State: registryv1.StepState_STEP_STATE_BEGUN})
		return err
	}
	if err := record(mine); err != nil {
		t.Fatal(err)
	}
	state := func(x tenant, lease *registryv1.LeaseProof) error {
		_, err := writes.SetTenantState(t.Context(), &registryv1.SetTenantStateRequest{TenantId: x.id.String(), State: registryv1.TenantState_TENANT_STATE_SUSPENDED, Lease: lease})
		return err
	}
	wantKind(t, record(other), fault.NotFound, "a step of another tenant")
	_, err := ops.RenewLease(t.Context(), &registryv1.RenewLeaseRequest{OperationId: other.GetOperation().GetId(), LeaseToken: other.GetLeaseToken()})
	wantKind(t, err, fault.NotFound, "the lease of another tenant")
	wantKind(t, state(globex, proof(other)), fault.NotFound, "the state of another tenant")
	wantKind(t, state(globex, proof(mine)), fault.NotFound, "the state of another tenant under its own lease")
	wantKind(t, state(acme, proof(other)), fault.NotFound, "its own state under another tenant's lease")
	wantKind(t, state(globex, nil), fault.NotFound, "whether another tenant is there at all")
	// iam holds an intermediate of the tenant's authority, so a taken-over one can sign itself this name: without the token of a lease,
	// which only the operator's process and its child have, it changes nothing.
	wantReason(t, state(acme, nil), "LEASE_LOST", "its own state under no lease")
	guessed := proof(mine)
	guessed.LeaseToken = strings.Repeat("0", len(guessed.GetLeaseToken()))
	wantReason(t, state(acme, guessed), "LEASE_LOST", "its own state under a lease's token that was guessed")
	_, err = ops.RecordStep(t.Context(), &registryv1.RecordStepRequest{OperationId: mine.GetOperation().GetId(), LeaseToken: guessed.GetLeaseToken(),
		Step: "unpublish", State: registryv1.StepState_STEP_STATE_DONE})
	wantReason(t, err, "LEASE_LOST", "a step under a token that was guessed")
	set := &registryv1.ServiceSet{CaCertificatesPem: string(acme.root.CertificatePEM()), Components: acme.set.GetComponents()}
	fresh, _ := authority(t, h.domain(acme.id))
	set.CaCertificatesPem = string(fresh.CertificatePEM())
	_, err = writes.PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: acme.id.String(), ServiceSet: set, Lease: proof(mine)})
	wantKind(t, err, fault.PermissionDenied, "an authority of its own making")
	for what, call := range map[string]func() error{
		"begin": func() error {
			_, err := ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: mine.GetOperation().GetPlanHash(), Tenant: acme.id.String()})
			return err
		},
		"take": func() error {
			_, err := ops.TakeLease(t.Context(), &registryv1.TakeLeaseRequest{OperationId: mine.GetOperation().GetId(), Place: "x"})
			return err
		},
		"list": func() error {
			_, err := registryv1.NewTenantServiceClient(conn).ListTenants(t.Context(), &registryv1.ListTenantsRequest{})
			return err
		},
	} {
		wantKind(t, call(), fault.PermissionDenied, what)
	}
	if err := state(acme, proof(mine)); err != nil {
		t.Errorf("its own tenant under its own lease: %v", err)
	}
	if s := ann.status("globex").GetTenant().GetState(); s != registryv1.TenantState_TENANT_STATE_ACTIVE {
		t.Errorf("globex is %s", s)
	}
}

// Names of operators and of the provisioner are the plane's to give, each in its own trust domain. Attack row C45.
func TestNamesThatAreAlikeOpenNothing(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	acme := h.create(h.as(addr, "operator"), "acme")
	of := func(service string) *grpc.ClientConn {
		s, _ := source(t, acme.issuer, workload.Identity{Plane: "dev", Tenant: acme.id, Service: service})
		return h.dial(addr, s)
	}
	cases := map[string]*grpc.ClientConn{
		"an operator of the tenant's making":         of("operator"),
		"a named operator of the tenant's making":    of("operator-ann"),
		"operators without a hyphen":                 h.as(addr, "operators"),
		"the plane's provisioner, whom nobody names": h.as(addr, "provisioner"),
		"the plane's set, which there isn't":         h.as(addr, "set"),
	}
	for what, conn := range cases {
		_, err := registryv1.NewTenantServiceClient(conn).ListTenants(t.Context(), &registryv1.ListTenantsRequest{})
		wantKind(t, err, fault.PermissionDenied, what+" reads")
		_, err = registryv1.NewOperationWriteServiceClient(conn).RenewLease(t.Context(), &registryv1.RenewLeaseRequest{})
		wantKind(t, err, fault.PermissionDenied, what+" renews")
		_, err = registryv1.NewReportServiceClient(conn).Report(t.Context(), &registryv1.ReportRequest{})
		wantKind(t, err, fault.PermissionDenied, what+" reports")
	}
	t.Attr("row", fmt.Sprintf("C45 %d", 3*len(cases)))
}

func TestWatcherSeesEachChangeAlsoAfterTheListeningConnectionIsLost(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	other, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.create(ann.conn, "acme")
	op := ann.suspending("acme")
	stream, err := h.person(other, "operator-ben").reads.WatchOperation(t.Context(), &registryv1.WatchOperationRequest{OperationId: op.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, seen func(*registryv1.Operation) bool) {
		t.Helper()
		for {
			res, err := stream.Recv()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			if seen(res.GetOperation()) {
				return
			}
		}
	}
	lease := ann.take(op.GetId())
	until("the lease", func(o *registryv1.Operation) bool { return o.GetLease() != nil })
	h.db.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'")
	ann.step(lease, "unpublish")
	until("the first step", func(o *registryv1.Operation) bool {
		return o.GetSteps()[0].GetState() == registryv1.StepState_STEP_STATE_DONE
	})
	ann.step(lease, "stop")
	if _, err := ann.finish(lease); err != nil {
		t.Fatal(err)
	}
	until("the end", func(o *registryv1.Operation) bool { return o.GetEndedAt() != nil })
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream went on after the operation had ended")
	}
	_, err = ann.reads.GetOperation(t.Context(), &registryv1.GetOperationRequest{OperationId: "opr_01h455vb4pex5vsknk084sn02q"})
	wantKind(t, err, fault.NotFound, "an operation that never was")
}

// An upgrade that was given up before anything was started anew leaves the set at what it runs, and one that was given up later at what it was
// brought to: what repairs a set brings it to what the registry says.
func TestGivenUpUpgradeLeavesTheSetAtWhatItRuns(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	h.put(registryv1.NewTenantWriteServiceClient(ann.conn), h.create(ann.conn, "acme"))
	ann.registerNewer()
	for _, c := range []struct {
		done, begun []string
		runs        string
	}{
		{nil, nil, older},
		{nil, []string{"fetch"}, older},
		{[]string{"fetch"}, []string{"migrate"}, older},
		{[]string{"fetch", "migrate"}, []string{"start"}, newer},
	} {
		change := ann.change("acme", registryv1.TenantState_TENANT_STATE_ACTIVE, newer, "fetch", "migrate", "start", "confirm")
		lease := ann.take(ann.begin(ann.put(h.planned(registryv1.OperationKind_OPERATION_KIND_UPGRADE, change)).GetHash(), change.GetTenantId()).GetId())
		for _, step := range c.done {
			ann.step(lease, step)
		}
		for _, step := range c.begun {
			for _, state := range []registryv1.StepState{registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_FAILED} {
				if err := ann.record(lease, step, state); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := ann.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken(), Reason: "it fails again and again"}); err != nil {
			t.Fatal(err)
		}
		if is := ann.status("acme").GetServiceSet().GetRelease(); is != c.runs {
			t.Errorf("given up after %v, in %v, it is to run %s, not %s", c.done, c.begun, is, c.runs)
		}
	}
}

// A tenant whose keys were destroyed can't be resumed: nobody is let believe so.
func TestOffboardingIsNotGivenUpOnceTheKeysAreDestroyed(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	x := h.create(ann.conn, "acme")
	h.setState(registryv1.NewTenantWriteServiceClient(ann.conn), x, registryv1.TenantState_TENANT_STATE_SUSPENDED)
	change := ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", "stop", "shred", "delete")
	lease := ann.take(ann.begin(ann.put(h.planned(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, change)).GetHash(), change.GetTenantId()).GetId())
	ann.step(lease, "stop")
	for _, state := range []registryv1.StepState{registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_FAILED} {
		if err := ann.record(lease, "shred", state); err != nil {
			t.Fatal(err)
		}
	}
	_, err := ann.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: lease.GetOperation().GetId(), LeaseToken: lease.GetLeaseToken(), Reason: "the customer stays"})
	wantKind(t, err, fault.FailedPrecondition, "giving up after the keys")
	if err == nil || !strings.Contains(err.Error(), "fleet operation resume "+lease.GetOperation().GetId()) {
		t.Errorf("it does not say how to go on: %v", err)
	}
	ann.step(lease, "shred")
	ann.step(lease, "delete")
	if _, err := ann.finish(lease); err != nil {
		t.Error(err)
	}
}
