package registry_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/workload"
)

const why = "a test of operators"

// fingerprint is a key as records have it.
func fingerprint(s *workload.Source) string {
	sum := sha256.Sum256(s.Leaf().RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// added puts an operator on record in the plane's first operator's name; key is empty where the plane's machine holds it.
func (h *harness) added(addr, service, key string) *registryv1.Operator {
	h.t.Helper()
	res, err := registryv1.NewOperatorWriteServiceClient(h.as(addr, workload.Operator)).AddOperator(h.t.Context(), &registryv1.AddOperatorRequest{
		Name: strings.TrimPrefix(service, workload.OperatorPrefix), KeyFingerprint: key, Reason: why})
	if err != nil {
		h.t.Fatal(err)
	}
	return res.GetOperator()
}

// ownPerson connects as an operator who is on record with a key of their own; another's word may be waited for.
func (h *harness) ownPerson(addr, service string) (operator, *workload.Source) {
	h.t.Helper()
	s, _ := source(h.t, h.issuer, workload.Identity{Plane: h.plane, Service: service})
	h.added(addr, service, fingerprint(s))
	return h.at(service, h.dial(addr, s)), s
}

func (o operator) writes() registryv1.OperatorWriteServiceClient {
	return registryv1.NewOperatorWriteServiceClient(o.conn)
}

func (o operator) add(name, key string) (*registryv1.Operator, error) {
	res, err := o.writes().AddOperator(o.h.t.Context(), &registryv1.AddOperatorRequest{Name: name, KeyFingerprint: key, Reason: why})
	return res.GetOperator(), err
}

func (o operator) confirm(name, key string) error {
	_, err := o.writes().ConfirmOperator(o.h.t.Context(), &registryv1.ConfirmOperatorRequest{Name: name, KeyFingerprint: key, Reason: why})
	return err
}

func (o operator) remove(name string) error {
	_, err := o.writes().RemoveOperator(o.h.t.Context(), &registryv1.RemoveOperatorRequest{Name: name, Reason: why})
	return err
}

func (o operator) approve(hash string) (*registryv1.StoredPlan, error) {
	res, err := o.plans.ApprovePlan(o.h.t.Context(), &registryv1.ApprovePlanRequest{Hash: hash, Reason: why})
	return res.GetPlan(), err
}

// calls is a call that every operator may make.
func (o operator) calls() error {
	_, err := registryv1.NewTenantServiceClient(o.conn).ListTenants(o.h.t.Context(), &registryv1.ListTenantsRequest{})
	return err
}

// On both planes a certificate of the plane's authority alone makes no operator: the record does, and the key that stands in it.
func TestOperatorIsWhoIsOnRecord(t *testing.T) {
	for _, plane := range []string{"dev", "prod"} {
		t.Run(plane, func(t *testing.T) {
			h := newPlane(t, plane)
			addr, _ := h.start()
			first := h.at(workload.Operator, h.as(addr, workload.Operator))
			if err := first.calls(); err != nil {
				t.Errorf("the plane's first operator: %v", err)
			}
			ann := h.at("operator-ann", h.as(addr, "operator-ann"))
			err := ann.calls()
			wantReason(t, err, "OPERATOR_NOT_ADMITTED", "a certificate of nobody on record")
			wantKind(t, err, fault.PermissionDenied, "a certificate of nobody on record")
			_, err = ann.add("mallory", "")
			wantReason(t, err, "OPERATOR_NOT_ADMITTED", "whoever is not on record adds somebody")

			h.added(addr, "operator-ann", "")
			if err := ann.calls(); err != nil {
				t.Errorf("on record: %v", err)
			}
			ben, _ := h.ownPerson(addr, "operator-ben")
			if err := ben.calls(); err != nil {
				t.Errorf("on record with a key of their own: %v", err)
			}
			another := h.at("operator-ben", h.as(addr, "operator-ben"))
			wantReason(t, another.calls(), "OPERATOR_NOT_ADMITTED", "a certificate of the plane's, over another key than the one on record")

			stream, err := another.reads.WatchOperation(t.Context(), &registryv1.WatchOperationRequest{OperationId: "opr_01h455vb4pex5vsknk084sn02q"})
			if err == nil {
				_, err = stream.Recv()
			}
			wantReason(t, err, "OPERATOR_NOT_ADMITTED", "a stream of another key")

			if err := ann.remove("ben"); err != nil {
				t.Fatal(err)
			}
			wantReason(t, ben.calls(), "OPERATOR_NOT_ADMITTED", "the call after the removal, over the same connection")
			if err := ann.remove("ben"); err != nil {
				t.Errorf("removed again: %v", err)
			}
			wantReason(t, ann.remove("nobody"), "NO_OPERATOR", "removing who never was")
			wantKind(t, ann.remove(""), fault.InvalidArgument, "removing the plane's first operator")
			lines := column(t, h, "SELECT action || ' ' || target || ' ' || actor FROM registry.operations_log WHERE action LIKE 'registry.operator.%' ORDER BY id")
			want := []string{"added ann spiffe://plane." + plane + ".a3os/operator", "added ben spiffe://plane." + plane + ".a3os/operator", "removed ben spiffe://plane." + plane + ".a3os/operator-ann"}
			if got := strings.Join(lines, "|"); got != "registry.operator."+strings.Join(want, "|registry.operator.") {
				t.Errorf("the operations log says %q", lines)
			}
		})
	}
}

// A name whose key was the plane's machine's comes again with another key: a certificate of the earlier one, copied while it was there, is nobody's.
func TestCertificateOfBeforeTheRecordIsNobodys(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	first := h.at(workload.Operator, h.as(addr, workload.Operator))
	pair, err := h.issuer.IssueKeypair(workload.Identity{Plane: h.plane, Service: "operator-ann"}, time.Now().Add(-10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := workload.NewSource(pair)
	if err != nil {
		t.Fatal(err)
	}
	thief := h.at("operator-ann", h.dial(addr, copied))
	h.added(addr, "operator-ann", "")
	h.db.Exec(t, "UPDATE registry.operators SET added_at = now() - interval '1 hour'")
	if err := thief.calls(); err != nil {
		t.Fatalf("the certificate while its record stands: %v", err)
	}
	if err := first.remove("ann"); err != nil {
		t.Fatal(err)
	}
	ann := h.person(addr, "operator-ann")
	if err := ann.calls(); err != nil {
		t.Errorf("on record again, with another certificate: %v", err)
	}
	wantReason(t, thief.calls(), "OPERATOR_NOT_ADMITTED", "the certificate of the earlier record")
}

func TestOperatorsAreAddedOnceAndOneKeyIsOneName(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	first := h.at(workload.Operator, h.as(addr, workload.Operator))
	one, two := strings.Repeat("1", 64), strings.Repeat("2", 64)
	for range 2 {
		o, err := first.add("ann", one)
		if err != nil || !o.GetOwnKey() || o.GetConfirmedAt() == nil || o.GetAddedBy() != "spiffe://plane.dev.a3os/operator" {
			t.Fatalf("added: %v, %v", o, err)
		}
	}
	for what, key := range map[string]string{"another key": two, "a key of the plane's machine": ""} {
		if _, err := first.add("ann", key); fault.KindOf(fault.FromRPC(err)) != fault.FailedPrecondition || !strings.Contains(fmt.Sprint(err), "fleet operator remove ann") {
			t.Errorf("%s for who is there: %v", what, err)
		}
	}
	_, err := first.add("anna", one)
	wantKind(t, err, fault.FailedPrecondition, "one key for two names")
	for range 2 {
		if _, err := first.add("ben", ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.remove("ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.add("ann", two); err != nil {
		t.Errorf("a name comes again: %v", err)
	}
	for _, bad := range []string{"", "Ann", "-ann", "ann-", strings.Repeat("a", 24), "ann/x"} {
		_, err := first.add(bad, "")
		wantKind(t, err, fault.InvalidArgument, bad)
	}
	var got []string
	req := &registryv1.ListOperatorsRequest{PageSize: 2}
	for {
		res, err := registryv1.NewOperatorServiceClient(first.conn).ListOperators(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range res.GetOperators() {
			state := "present"
			if o.GetRemovedAt() != nil {
				state = "removed by " + o.GetRemovedBy() + ": " + o.GetRemovalReason()
			}
			got = append(got, o.GetName()+" "+state)
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if want := "ann present|ben present|ann removed by spiffe://plane.dev.a3os/operator: " + why; strings.Join(got, "|") != want {
		t.Errorf("listed are %q", got)
	}
}

// In prod whoever is added after somebody has a key of their own may do nothing before another operator's word, which no one machine's keys can
// give alone.
func TestOperatorOfProdWaitsForAnothersWord(t *testing.T) {
	h := newPlane(t, "prod")
	addr, _ := h.start()
	first := h.at(workload.Operator, h.as(addr, workload.Operator))
	ann := h.person(addr, "operator-ann")
	ben, _ := h.ownPerson(addr, "operator-ben")
	if err := ben.calls(); err != nil {
		t.Fatalf("the first with a key of their own: %v", err)
	}

	carol, key := h.ownPerson(addr, "operator-carol")
	wantReason(t, carol.calls(), "OPERATOR_NOT_ADMITTED", "who waits")
	if err := carol.calls(); !strings.Contains(fmt.Sprint(err), "fleet operator confirm carol") {
		t.Errorf("who waits is told: %v", err)
	}
	wantReason(t, carol.confirm("carol", fingerprint(key)), "OPERATOR_NOT_ADMITTED", "who waits confirms themselves")
	wantKind(t, first.confirm("carol", fingerprint(key)), fault.PermissionDenied, "who added confirms")
	wantReason(t, ann.confirm("carol", fingerprint(key)), "OPERATOR_WITHOUT_OWN_KEY", "another key of the plane's machine confirms what that machine added")
	wantKind(t, ben.confirm("carol", strings.Repeat("0", 64)), fault.FailedPrecondition, "a word for another key")
	wantReason(t, ben.confirm("nobody", ""), "NO_OPERATOR", "a word for nobody")
	for range 2 {
		if err := ben.confirm("carol", fingerprint(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := carol.calls(); err != nil {
		t.Errorf("confirmed: %v", err)
	}

	// Of who adds and who confirms, one has a key of their own.
	if _, err := carol.add("dave", ""); err != nil {
		t.Fatal(err)
	}
	wantKind(t, carol.confirm("dave", ""), fault.PermissionDenied, "who added confirms")
	if err := first.confirm("dave", ""); err != nil {
		t.Errorf("the first operator confirms whom carol added: %v", err)
	}

	// That nobody with a key of their own is left makes nobody active at once.
	for _, name := range []string{"ben", "carol", "dave"} {
		if err := ann.remove(name); err != nil {
			t.Fatal(err)
		}
	}
	mallory, _ := h.ownPerson(addr, "operator-mallory")
	wantReason(t, mallory.calls(), "OPERATOR_NOT_ADMITTED", "who is added once all others were removed")
}

// An approval counts when it was given with a key of one's own, and as long as who gave it is an operator by the same record.
func TestApprovalOfProdIsWorthItsOperator(t *testing.T) {
	h := newPlane(t, "prod")
	addr, _ := h.start()
	ann, dan := h.person(addr, "operator-ann"), h.person(addr, "operator-dan")
	ben, key := h.ownPerson(addr, "operator-ben")
	first := h.at(workload.Operator, h.as(addr, workload.Operator))
	h.db.Exec(t, "INSERT INTO registry.releases (name, version, payload, envelope, key_ids, actor) VALUES ('"+older+"', '1.0.0', '', '', '{}', 'test')")
	stored := ann.put(h.provision("acme"))
	begin := func() error {
		_, err := ann.ops.BeginOperation(t.Context(), &registryv1.BeginOperationRequest{PlanHash: stored.GetHash(), Tenant: "acme"})
		return err
	}
	for what, o := range map[string]operator{"a named operator whose key the plane's machine holds": dan, "the plane's first operator": first} {
		_, err := o.approve(stored.GetHash())
		wantReason(t, err, "OPERATOR_WITHOUT_OWN_KEY", what)
		if !strings.Contains(fmt.Sprint(err), "fleet operator request") {
			t.Errorf("%s is not told what to do: %v", what, err)
		}
	}
	got, err := ben.approve(stored.GetHash())
	if err != nil || len(got.GetApprovals()) != 1 || got.GetApprovals()[0].GetKeyFingerprint() != fingerprint(key) || got.GetApprovals()[0].GetVoid() != "" {
		t.Fatalf("approved: %v, %v", got, err)
	}
	if err := ann.remove("ben"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, begin(), "PLAN_NOT_APPROVED", "the word of who was removed")
	if err := begin(); !strings.Contains(fmt.Sprint(err), "was removed at") {
		t.Errorf("it is not said why: %v", err)
	}

	// The same person, with the same key, on record again: what was approved before stays void until it is approved again.
	h.added(addr, "operator-ben", fingerprint(key))
	dana, own := h.ownPerson(addr, "operator-dana")
	if err := dana.calls(); err == nil {
		t.Error("who waits was admitted")
	}
	// Nobody is left who can give the word; who owns the database can.
	h.db.Exec(t, "UPDATE registry.operators SET confirmed_at = now(), confirmed_by = 'owner of the database' WHERE name = 'ben' AND removed_at IS NULL")
	wantReason(t, begin(), "PLAN_NOT_APPROVED", "the earlier word of who is on record again")
	read, err := registryv1.NewPlanServiceClient(ben.conn).GetPlan(t.Context(), &registryv1.GetPlanRequest{Hash: stored.GetHash()})
	if err != nil || read.GetPlan().GetApprovals()[0].GetVoid() == "" {
		t.Errorf("the plan doesn't say that its approval is void: %v, %v", read.GetPlan(), err)
	}
	if got, err := ben.approve(stored.GetHash()); err != nil || len(got.GetApprovals()) != 1 || got.GetApprovals()[0].GetVoid() != "" {
		t.Errorf("approved again: %v, %v", got, err)
	}
	// An approval of before there were records names none.
	h.db.Exec(t, "UPDATE registry.plan_approvals SET operator_id = NULL")
	wantReason(t, begin(), "PLAN_NOT_APPROVED", "a word of nobody on record")
	if err := ben.confirm("dana", fingerprint(own)); err != nil {
		t.Fatal(err)
	}
	if _, err := dana.approve(stored.GetHash()); err != nil {
		t.Fatal(err)
	}
	if err := begin(); err != nil {
		t.Errorf("approved by who has a key of their own: %v", err)
	}
}

// A rollout whose approval became void begins nobody more, and says what brings it on.
func TestRolloutBeginsNobodyByAVoidApproval(t *testing.T) {
	h := newPlane(t, "prod")
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	ben, _ := h.ownPerson(addr, "operator-ben")
	h.db.Exec(t, "INSERT INTO registry.releases (name, version, payload, envelope, key_ids, actor) VALUES ('"+older+"', '1.0.0', '', '', '{}', 'test')")
	ann.registerNewer()
	provision := ann.put(h.provision("acme"))
	if _, err := ben.approve(provision.GetHash()); err != nil {
		t.Fatal(err)
	}
	lease := ann.take(ann.begin(provision.GetHash(), "acme").GetId())
	acme := lease.GetOperation().GetTenantId()
	_, err := registryv1.NewTenantWriteServiceClient(ann.conn).PutServiceSet(t.Context(), &registryv1.PutServiceSetRequest{TenantId: acme, ServiceSet: h.place(acme), Lease: proof(lease)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range lease.GetOperation().GetSteps() {
		ann.step(lease, s.GetName())
	}
	if _, err := ann.finish(lease); err != nil {
		t.Fatal(err)
	}
	rollout := func(reason string) *registryv1.StoredPlan {
		plan := h.planned(upgradeKind, ann.change("acme", activeState, newer, "fetch", "start", "confirm"))
		plan.Reason = reason
		plan.Rollout = &registryv1.RolloutPolicy{MaxParallel: 1, Bake: durationpb.New(0), Gates: &registryv1.Gates{}, Rollback: registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE,
			Waves: []*registryv1.Wave{{Name: "all", TenantIds: []string{acme}}}}
		return ann.put(plan)
	}
	rolls := registryv1.NewRolloutWriteServiceClient(ann.conn)
	approved := rollout("a rollout that ben approves")
	if _, err := ben.approve(approved.GetHash()); err != nil {
		t.Fatal(err)
	}
	begun, err := rolls.BeginRollout(t.Context(), &registryv1.BeginRolloutRequest{PlanHash: approved.GetHash()})
	if err != nil {
		t.Fatal(err)
	}
	id := begun.GetRollout().GetId()
	token := strings.Repeat("a", 43)
	if _, err := rolls.TakeRolloutLease(t.Context(), &registryv1.TakeRolloutLeaseRequest{RolloutId: id, Place: "host-1", LeaseToken: token}); err != nil {
		t.Fatal(err)
	}
	other := rollout("another rollout that ben approves")
	if _, err := ben.approve(other.GetHash()); err != nil {
		t.Fatal(err)
	}
	if err := ann.remove("ben"); err != nil {
		t.Fatal(err)
	}
	_, err = rolls.RecordRolloutTenant(t.Context(), &registryv1.RecordRolloutTenantRequest{RolloutId: id, LeaseToken: token, TenantId: acme,
		State: registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING})
	wantReason(t, err, "ROLLOUT_NOT_NOW", "a tenant by the word of who was removed")
	if !strings.Contains(fmt.Sprint(err), "fleet rollout retarget "+id) {
		t.Errorf("it is not said what brings it on: %v", err)
	}
	if _, err := rolls.PauseRollout(t.Context(), &registryv1.PauseRolloutRequest{RolloutId: id, Reason: why}); err != nil {
		t.Fatal(err)
	}
	_, err = rolls.RetargetRollout(t.Context(), &registryv1.RetargetRolloutRequest{RolloutId: id, PlanHash: other.GetHash(), Reason: why})
	wantReason(t, err, "PLAN_NOT_APPROVED", "another plan by the same word")
	if _, err := rolls.AbortRollout(t.Context(), &registryv1.AbortRolloutRequest{RolloutId: id, Reason: why}); err != nil {
		t.Fatal(err)
	}
	_, err = rolls.BeginRollout(t.Context(), &registryv1.BeginRolloutRequest{PlanHash: other.GetHash()})
	wantReason(t, err, "PLAN_NOT_APPROVED", "a rollout by the word of who was removed")
}

// What an operator who is removed watches ends within seconds, and says why.
func TestStreamOfWhoIsRemovedEnds(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann, ben := h.person(addr, "operator-ann"), h.person(addr, "operator-ben")
	h.create(ann.conn, "acme")
	op := ann.suspending("acme")
	stream, err := ben.reads.WatchOperation(t.Context(), &registryv1.WatchOperationRequest{OperationId: op.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := ann.remove("ben"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for err == nil {
		_, err = stream.Recv()
	}
	wantReason(t, err, "OPERATOR_NOT_ADMITTED", "the open stream")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it ended after %s", took)
	}
}
