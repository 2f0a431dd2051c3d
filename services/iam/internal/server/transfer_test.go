package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/server"
)

const why = "the former owner left the company"

func transfer(ctx context.Context, e *iamtest.Env, w id.Workspace, from, to id.User) (*iamv1.TransferWorkspaceOwnerResponse, error) {
	res, err := e.Workspaces.TransferWorkspaceOwner(ctx, connect.NewRequest(&iamv1.TransferWorkspaceOwnerRequest{
		WorkspaceId: w.String(), ExpectedOwnerUserId: from.String(), ToUserId: to.String(), Reason: why,
	}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func TestTransferMovesOwnershipOnTheRecord(t *testing.T) {
	e := iamtest.New(t)
	ada, bob := e.User(t, "ada@example.com", ""), e.User(t, "bob@example.com", "")
	w := e.Workspace(t, "Research", ada)
	before := e.Int(t, "SELECT sequence FROM iam.revocation_head")
	old := e.Exchange(t, e.Refresh(t, e.Session(t, ada)).AccessToken, w).AccessToken

	res, err := transfer(e.AsAdmin(t), e, w, ada, bob)
	if err != nil {
		t.Fatal(err)
	}
	if res.GetWorkspace().GetOwnerUserId() != bob.String() || res.GetWorkspace().GetOwnerEmail() != "bob@example.com" ||
		res.GetPreviousOwnerUserId() != ada.String() || res.GetTransferredAt().AsTime().IsZero() {
		t.Errorf("answered %v", res)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.members WHERE workspace_id = $1 AND user_id = $2 AND role = 'admin'", w, ada); n != 1 {
		t.Error("the former owner did not stay as an admin")
	}
	events := e.Events(t, "iam.workspace.owner_transferred")
	if len(events) != 1 {
		t.Fatalf("%d transfers on the record", len(events))
	}
	ev := events[0]
	if ev.GetReason() != why || ev.GetTransferId() != res.GetTransferId() || ev.GetWorkspaceId() != w.String() || ev.GetActor() != e.Admin.String() ||
		ev.GetBefore().GetFields()["owner_user_id"].GetStringValue() != ada.String() ||
		ev.GetAfter().GetFields()["owner_user_id"].GetStringValue() != bob.String() {
		t.Errorf("the record says %v", ev)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE workspace_id = $1 AND principal IN ($2, $3) AND sequence > $4", w, ada.String(), bob.String(), before); n != 2 {
		t.Errorf("%d revocations, want the old owner's and the new one's", n)
	}
	if again := e.Exchange(t, old, w); again.Error != "invalid_grant" {
		t.Errorf("the old owner's token still buys %+v", again)
	}
	token := e.Exchange(t, e.Refresh(t, e.Session(t, bob)).AccessToken, w).AccessToken
	c := e.Claims(t, token)
	if c.Transfer.String() != res.GetTransferId() {
		t.Errorf("the new owner's token carries the transfer %q, want %q", c.Transfer, res.GetTransferId())
	}
}

func TestConcurrentTransfersHaveOneWinnerAndLosersLearnTheOwner(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	w := e.Workspace(t, "Research", ada)
	const n = 12
	heirs := make([]id.User, n)
	for i := range heirs {
		heirs[i] = e.User(t, string(rune('a'+i))+"@heirs.example.com", "")
	}
	var mu sync.Mutex
	var winner id.User
	var losers []error
	var wg sync.WaitGroup
	for _, to := range heirs {
		wg.Go(func() {
			_, err := transfer(e.AsAdmin(t), e, w, ada, to)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				losers = append(losers, err)
				return
			}
			if !winner.IsZero() {
				t.Errorf("%s and %s both won", winner, to)
			}
			winner = to
		})
	}
	wg.Wait()
	if winner.IsZero() || len(losers) != n-1 {
		t.Fatalf("winner %s, %d losers: %v", winner, len(losers), losers)
	}
	for _, err := range losers {
		if !errors.Is(err, server.ErrOwnerChanged) || !strings.Contains(err.Error(), winner.String()) {
			t.Errorf("a loser was told %v, want the present owner %s", err, winner)
		}
	}
	if got := e.Int(t, "SELECT count(*) FROM iam.members WHERE workspace_id = $1 AND role = 'owner'", w); got != 1 {
		t.Errorf("%d owners", got)
	}
	if got := len(e.Events(t, "iam.workspace.owner_transferred")); got != 1 {
		t.Errorf("%d transfers on the record", got)
	}
}

func TestTransferThatMustNotBeIsRefused(t *testing.T) {
	e := iamtest.New(t)
	ada, bob, gone := e.User(t, "ada@example.com", ""), e.User(t, "bob@example.com", ""), e.User(t, "gone@example.com", "")
	w := e.Workspace(t, "Research", ada)
	if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: gone.String()})); err != nil {
		t.Fatal(err)
	}
	invited := invite(t, e, "new@example.com").user
	tests := map[string]struct {
		w        id.Workspace
		from, to id.User
		kind     fault.Kind
		is       error
	}{
		"another owner expected":   {w, bob, bob, fault.FailedPrecondition, server.ErrOwnerChanged},
		"to a deactivated user":    {w, ada, gone, fault.FailedPrecondition, server.ErrNotActive},
		"to an invited user":       {w, ada, invited, fault.FailedPrecondition, server.ErrNotActive},
		"to nobody":                {w, ada, id.NewUser(), fault.NotFound, nil},
		"to the owner":             {w, ada, ada, fault.InvalidArgument, nil},
		"of a workspace that isnt": {id.NewWorkspace(), ada, bob, fault.NotFound, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := transfer(e.AsAdmin(t), e, tc.w, tc.from, tc.to)
			if fault.KindOf(err) != tc.kind || (tc.is != nil && !errors.Is(err, tc.is)) {
				t.Errorf("answered %v (%s)", err, fault.KindOf(err))
			}
		})
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.transfers"); n != 0 {
		t.Errorf("%d transfers are stored", n)
	}
}

func TestTransferToAMemberKeepsOneMembership(t *testing.T) {
	e := iamtest.New(t)
	ada, bob := e.User(t, "ada@example.com", ""), e.User(t, "bob@example.com", "")
	w := e.Workspace(t, "Research", ada)
	e.Member(t, w, bob.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER)
	if _, err := transfer(e.AsAdmin(t), e, w, ada, bob); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer(e.AsAdmin(t), e, w, bob, ada); err != nil {
		t.Fatal(err)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.members WHERE workspace_id = $1", w); n != 2 {
		t.Errorf("%d members", n)
	}
	// A role given anew rests on no transfer any more.
	ctx := e.Ctx(t, ada.String(), w, authz.WorkspaceOwner)
	if _, err := e.Members.SetMemberRole(ctx, connect.NewRequest(&iamv1.SetMemberRoleRequest{PrincipalId: bob.String(), Role: iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER})); err != nil {
		t.Fatal(err)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.members WHERE user_id = $1 AND transfer_id IS NULL", bob); n != 1 {
		t.Error("a role that was given anew still names the transfer")
	}
}

func TestRecipientCanNotBeDeactivatedIntoOwnership(t *testing.T) {
	e := iamtest.New(t)
	for round := range 8 {
		ada, bob := e.User(t, fmt.Sprintf("ada%d@example.com", round), ""), e.User(t, fmt.Sprintf("bob%d@example.com", round), "")
		w := e.Workspace(t, fmt.Sprintf("Research %d", round), ada)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = transfer(e.AsAdmin(t), e, w, ada, bob) })
		wg.Go(func() {
			_, _ = e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: bob.String()}))
		})
		wg.Wait()
		if n := e.Int(t, "SELECT count(*) FROM iam.workspaces w JOIN iam.users u ON u.id = w.owner_user_id WHERE u.state <> 'active'"); n != 0 {
			t.Fatalf("round %d: a workspace is owned by a deactivated user", round)
		}
	}
}
