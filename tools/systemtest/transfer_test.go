package systemtest

import (
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/fault"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// endsWithin is how soon a right that was taken away is gone in every service.
const endsWithin = 5 * time.Second

// sealedWithin is how soon what happened is on the record, with room for a slow machine.
const sealedWithin = 30 * time.Second

func TestTransferIsOnTheRecord(t *testing.T) {
	full(t)
	t.Parallel()
	before, after := acme().invite(t), acme().invite(t)
	w := acme().workspace(t, before)
	// A token from when the workspace was still theirs.
	old := before.token(t, w.GetId())
	const reason = "the owner left the company at the end of the quarter"
	var done iamv1.TransferWorkspaceOwnerResponse
	out := shared.a3(t, "acme-admin", "-o", "json", "workspace", "transfer", w.GetId(), "--to", after.email, "--reason", reason)
	transferredAt := time.Now()
	if err := unmarshal(out, &done); err != nil {
		t.Fatal(err)
	}
	if done.GetPreviousOwnerUserId() != before.id || done.GetWorkspace().GetOwnerUserId() != after.id {
		t.Errorf("the answer is %v", &done)
	}
	acme().refusesWithin(t, old, endsWithin-time.Since(transferredAt))
	// What is left is an admin's, and the new owner's is the owner's.
	for who, role := range map[*person]iamv1.WorkspaceRole{before: iamv1.WorkspaceRole_WORKSPACE_ROLE_ADMIN, after: iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER} {
		got := ask(t, client(who, w.GetId(), iamv1connect.NewWorkspaceServiceClient).GetWorkspace, &iamv1.GetWorkspaceRequest{})
		if got.GetYourRole() != role {
			t.Errorf("%s is %s and should be %s", who.email, got.GetYourRole(), role)
		}
	}
	var event *auditv1.Event
	within(t, sealedWithin, func() error {
		var list auditv1.ListEventsResponse
		out := shared.a3(t, "acme-admin", "-o", "json", "audit", "list", "--target", w.GetId(), "--action", "iam.workspace.owner_transferred")
		if err := unmarshal(out, &list); err != nil {
			t.Fatal(err)
		}
		if len(list.GetEvents()) == 0 {
			return fault.New(fault.NotFound, "the transfer is not on the record")
		}
		event = list.GetEvents()[0].GetEvent()
		return nil
	})
	if event.GetReason() != reason || event.GetActor() != acme().admin(t).id || event.GetOutcome() != auditv1.Outcome_OUTCOME_SUCCEEDED ||
		!strings.Contains(event.GetBefore().String(), before.id) || !strings.Contains(event.GetAfter().String(), after.id) {
		t.Errorf("on the record is %v", event)
	}
	if out := shared.a3(t, "acme-admin", "audit", "verify"); !strings.Contains(out, "whole") {
		t.Errorf("audit verify says %s", out)
	}
}

func unmarshal(text string, into proto.Message) error { return protojson.Unmarshal([]byte(text), into) }

func TestTransferWithOneKeyIsDoneOnce(t *testing.T) {
	full(t)
	t.Parallel()
	before, after := acme().invite(t), acme().invite(t)
	w := acme().workspace(t, before)
	admin := client(acme().admin(t), "", iamv1connect.NewAdminWorkspaceServiceClient)
	key := name("key")
	transfer := func() (*connect.Response[iamv1.TransferWorkspaceOwnerResponse], error) {
		req := connect.NewRequest(&iamv1.TransferWorkspaceOwnerRequest{
			WorkspaceId: w.GetId(), ExpectedOwnerUserId: before.id, ToUserId: after.id, Reason: "asked twice, because the first answer was lost",
		})
		req.Header().Set("Idempotency-Key", key)
		return admin.TransferWorkspaceOwner(t.Context(), req)
	}
	first, err := transfer()
	if err != nil {
		t.Fatal(err)
	}
	second, err := transfer()
	if err != nil || second.Msg.GetTransferId() != first.Msg.GetTransferId() || !second.Msg.GetTransferredAt().AsTime().Equal(first.Msg.GetTransferredAt().AsTime()) {
		t.Errorf("first %v, then %v, %v", first.Msg, second, err)
	}
	// Another key is another transfer, and that one expects what is no more.
	key = name("key")
	if _, err := transfer(); fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), after.id) && !strings.Contains(err.Error(), after.email) {
		t.Errorf("a transfer from someone who isn't the owner any more has to name the present one, %s: %v", after.id, err)
	}
}

func TestOfTwoTransfersAtOnceOneWins(t *testing.T) {
	full(t)
	t.Parallel()
	owner, rivals := acme().invite(t), []*person{acme().invite(t), acme().invite(t)}
	w := acme().workspace(t, owner)
	admin := client(acme().admin(t), "", iamv1connect.NewAdminWorkspaceServiceClient)
	results := make([]error, len(rivals))
	var wg sync.WaitGroup
	for i, rival := range rivals {
		wg.Go(func() {
			_, results[i] = admin.TransferWorkspaceOwner(t.Context(), connect.NewRequest(&iamv1.TransferWorkspaceOwnerRequest{
				WorkspaceId: w.GetId(), ExpectedOwnerUserId: owner.id, ToUserId: rival.id, Reason: "both were told to take it over"}))
		})
	}
	wg.Wait()
	won, lost := 0, 1
	if results[1] == nil {
		won, lost = 1, 0
	}
	if results[won] != nil || fault.KindOf(results[lost]) != fault.FailedPrecondition {
		t.Fatalf("the two ended with %v", results)
	}
	got := ask(t, client(rivals[won], w.GetId(), iamv1connect.NewWorkspaceServiceClient).GetWorkspace, &iamv1.GetWorkspaceRequest{})
	if got.GetOwnerUserId() != rivals[won].id {
		t.Errorf("the owner is %s", got.GetOwnerUserId())
	}
}

// A transfer is for tenant admins, and the record keeps those who tried.
func TestTransferByAnyoneElseIsDeniedAndOnTheRecord(t *testing.T) {
	full(t)
	t.Parallel()
	owner, other := acme().invite(t), acme().invite(t)
	w := acme().workspace(t, owner)
	admin := client(owner, "", iamv1connect.NewAdminWorkspaceServiceClient)
	refused(t, fault.PermissionDenied, admin.TransferWorkspaceOwner, &iamv1.TransferWorkspaceOwnerRequest{
		WorkspaceId: w.GetId(), ExpectedOwnerUserId: owner.id, ToUserId: other.id, Reason: "an owner is no tenant admin"})
	audit := client(acme().admin(t), "", auditv1connect.NewAuditServiceClient)
	within(t, sealedWithin, func() error {
		events := ask(t, audit.ListEvents, &auditv1.ListEventsRequest{Actor: owner.id, Outcome: auditv1.Outcome_OUTCOME_DENIED})
		if len(events.GetEvents()) == 0 {
			return fault.New(fault.NotFound, "the denial is not on the record")
		}
		return nil
	})
}
