package server_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/server"
)

func TestOwnerStaysAMember(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	w := e.Workspace(t, "Research", ada)
	ctx := e.Ctx(t, e.Admin.String(), w, authz.WorkspaceAdmin)
	if _, err := e.Members.RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: ada.String()})); !errors.Is(err, server.ErrOwnerStays) {
		t.Errorf("remove: %v", err)
	}
	viewer := iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER
	if _, err := e.Members.SetMemberRole(ctx, connect.NewRequest(&iamv1.SetMemberRoleRequest{PrincipalId: ada.String(), Role: viewer})); !errors.Is(err, server.ErrOwnerStays) {
		t.Errorf("set role: %v", err)
	}
	bob := e.User(t, "bob@example.com", "")
	owner := iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER
	if _, err := e.Members.AddMember(ctx, connect.NewRequest(&iamv1.AddMemberRequest{Principal: bob.String(), Role: owner})); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("add an owner: %v", err)
	}
	e.Member(t, w, bob.String(), viewer)
	if _, err := e.Members.SetMemberRole(ctx, connect.NewRequest(&iamv1.SetMemberRoleRequest{PrincipalId: bob.String(), Role: owner})); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("make an owner: %v", err)
	}
}

func TestMemberChangesRevokeTheTokensOfThatWorkspaceAlone(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	w, other := e.Workspace(t, "Research", e.Admin), e.Workspace(t, "Sales", e.Admin)
	viewer := iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER
	e.Member(t, w, "ADA@example.com", viewer)
	e.Member(t, other, ada.String(), viewer)
	ctx := e.Ctx(t, e.Admin.String(), w, authz.WorkspaceAdmin)
	res, err := e.Members.SetMemberRole(ctx, connect.NewRequest(&iamv1.SetMemberRoleRequest{PrincipalId: ada.String(), Role: iamv1.WorkspaceRole_WORKSPACE_ROLE_ADMIN}))
	if err != nil || res.Msg.GetRole() != iamv1.WorkspaceRole_WORKSPACE_ROLE_ADMIN {
		t.Fatalf("%v, %v", res, err)
	}
	if _, err := e.Members.RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: ada.String()})); err != nil {
		t.Fatal(err)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE principal = $1 AND workspace_id = $2 AND session_id IS NULL", ada.String(), w); n != 2 {
		t.Errorf("%d revocations for the workspace", n)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE principal = $1 AND workspace_id IS DISTINCT FROM $2", ada.String(), w); n != 0 {
		t.Errorf("%d revocations reach further", n)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.members WHERE workspace_id = $1 AND user_id = $2", other, ada); n != 1 {
		t.Error("the membership of the other workspace is gone")
	}
	for _, action := range []string{"iam.member.added", "iam.member.role_changed", "iam.member.removed"} {
		events := e.Events(t, action)
		if len(events) == 0 || events[0].GetTarget() != ada.String() || events[0].GetWorkspaceId() != w.String() {
			t.Errorf("%s: %v", action, events)
		}
	}
}

func TestMembersOfAnotherWorkspaceAreNotThere(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	mine, theirs := e.Workspace(t, "Research", e.Admin), e.Workspace(t, "Sales", ada)
	ctx := e.Ctx(t, e.Admin.String(), mine, authz.WorkspaceAdmin)
	var said []string
	for _, p := range []string{ada.String(), id.NewUser().String(), id.NewServiceAccount().String()} {
		_, err := e.Members.RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: p}))
		if fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v", p, err)
		}
		said = append(said, fmt.Sprint(err))
	}
	if len(slices.Compact(said)) != 1 {
		t.Errorf("answers differ: %q", said)
	}
	res, err := e.Members.ListMembers(ctx, connect.NewRequest(&iamv1.ListMembersRequest{}))
	if err != nil || len(res.Msg.GetMembers()) != 1 || res.Msg.GetMembers()[0].GetPrincipalId() != e.Admin.String() {
		t.Errorf("members are %v, %v", res, err)
	}
	ws, err := e.Workspaces.GetWorkspace(ctx, connect.NewRequest(&iamv1.GetWorkspaceRequest{}))
	if err != nil || ws.Msg.GetId() != mine.String() || ws.Msg.GetYourRole() != iamv1.WorkspaceRole_WORKSPACE_ROLE_OWNER {
		t.Errorf("workspace is %v, %v", ws, err)
	}
	_ = theirs
}

func TestServiceAccountIsAMemberAndNeverAnOwner(t *testing.T) {
	e := iamtest.New(t)
	a := e.Account(t, "ci", iamv1.TenantRole_TENANT_ROLE_ADMIN)
	w := e.Workspace(t, "Research", e.Admin)
	e.Member(t, w, a.ID.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER)
	if res := e.Exchange(t, e.SignIn(t, a), w); res.Status != 200 {
		t.Errorf("exchange: %+v", res)
	}
	ctx := e.Ctx(t, a.ID.String(), id.Workspace{}, authz.TenantAdmin)
	if _, err := e.Workspaces.CreateWorkspace(ctx, connect.NewRequest(&iamv1.CreateWorkspaceRequest{Name: "Robots"})); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("own by itself: %v", err)
	}
	if _, err := e.Super.Exec(t.Context(), "UPDATE iam.members SET role = 'owner' WHERE service_account_id = $1", a.ID); err == nil {
		t.Error("the database takes a service account as an owner")
	}
}

func TestMemberIsAddedOnceAndMustExist(t *testing.T) {
	e := iamtest.New(t)
	w := e.Workspace(t, "Research", e.Admin)
	ctx := e.Ctx(t, e.Admin.String(), w, authz.WorkspaceAdmin)
	gone := e.User(t, "gone@example.com", "")
	if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: gone.String()})); err != nil {
		t.Fatal(err)
	}
	for principal, want := range map[string]fault.Kind{
		e.Admin.String(): fault.AlreadyExists, "admin@example.com": fault.AlreadyExists, "nobody@example.com": fault.NotFound,
		id.NewUser().String(): fault.NotFound, id.NewServiceAccount().String(): fault.NotFound, w.String(): fault.NotFound,
		gone.String(): fault.FailedPrecondition,
	} {
		_, err := e.Members.AddMember(ctx, connect.NewRequest(&iamv1.AddMemberRequest{Principal: principal, Role: iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER}))
		if fault.KindOf(err) != want {
			t.Errorf("%s: %v, want %s", principal, err, want)
		}
	}
}

func TestListsPageThroughEverythingOnce(t *testing.T) {
	e := iamtest.New(t)
	for i := range 6 {
		u := e.User(t, fmt.Sprintf("user%d@example.com", i), "")
		e.Workspace(t, fmt.Sprintf("Workspace %d", i), u)
	}
	w := e.Workspace(t, "Mine", e.Admin)
	for i := range 4 {
		e.Member(t, w, e.Account(t, fmt.Sprintf("robot %d", i), 0).ID.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER)
	}
	tenant, inside := e.AsAdmin(t), e.Ctx(t, e.Admin.String(), w, authz.WorkspaceOwner)
	ids := func(next func(token string) ([]string, string, error)) []string {
		t.Helper()
		var all []string
		token := ""
		for {
			page, more, err := next(token)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page...)
			if more == "" {
				return all
			}
			if len(page) != 2 {
				t.Fatalf("a page of %d", len(page))
			}
			token = more
		}
	}
	got := map[string][]string{
		"users": ids(func(token string) ([]string, string, error) {
			res, err := e.Users.ListUsers(tenant, connect.NewRequest(&iamv1.ListUsersRequest{PageSize: 2, PageToken: token}))
			if err != nil {
				return nil, "", err
			}
			var out []string
			for _, u := range res.Msg.GetUsers() {
				out = append(out, u.GetId())
			}
			return out, res.Msg.GetNextPageToken(), nil
		}),
		"accounts": ids(func(token string) ([]string, string, error) {
			res, err := e.Accounts.ListServiceAccounts(tenant, connect.NewRequest(&iamv1.ListServiceAccountsRequest{PageSize: 2, PageToken: token}))
			if err != nil {
				return nil, "", err
			}
			var out []string
			for _, a := range res.Msg.GetServiceAccounts() {
				out = append(out, a.GetId())
			}
			return out, res.Msg.GetNextPageToken(), nil
		}),
		"workspaces": ids(func(token string) ([]string, string, error) {
			res, err := e.Workspaces.ListWorkspaces(tenant, connect.NewRequest(&iamv1.ListWorkspacesRequest{PageSize: 2, PageToken: token}))
			if err != nil {
				return nil, "", err
			}
			var out []string
			for _, w := range res.Msg.GetWorkspaces() {
				out = append(out, w.GetId())
			}
			return out, res.Msg.GetNextPageToken(), nil
		}),
		"members": ids(func(token string) ([]string, string, error) {
			res, err := e.Members.ListMembers(inside, connect.NewRequest(&iamv1.ListMembersRequest{PageSize: 2, PageToken: token}))
			if err != nil {
				return nil, "", err
			}
			var out []string
			for _, m := range res.Msg.GetMembers() {
				out = append(out, m.GetPrincipalId())
			}
			return out, res.Msg.GetNextPageToken(), nil
		}),
	}
	for what, want := range map[string]int{"users": 7, "accounts": 4, "workspaces": 7, "members": 5} {
		all := slices.Clone(got[what])
		slices.Sort(all)
		if len(slices.Compact(all)) != want || len(got[what]) != want {
			t.Errorf("%s: %d on the pages, want %d: %v", what, len(got[what]), want, got[what])
		}
	}
	// Without the permission a caller sees its own workspaces alone, and another's token opens nothing.
	plain := e.Ctx(t, e.Admin.String(), id.Workspace{})
	res, err := e.Workspaces.ListWorkspaces(plain, connect.NewRequest(&iamv1.ListWorkspacesRequest{}))
	if err != nil || len(res.Msg.GetWorkspaces()) != 1 || res.Msg.GetWorkspaces()[0].GetId() != w.String() {
		t.Errorf("own workspaces: %v, %v", res, err)
	}
	first, err := e.Users.ListUsers(tenant, connect.NewRequest(&iamv1.ListUsersRequest{PageSize: 2}))
	if err != nil {
		t.Fatal(err)
	}
	stolen := connect.NewRequest(&iamv1.ListServiceAccountsRequest{PageToken: first.Msg.GetNextPageToken()})
	if _, err := e.Accounts.ListServiceAccounts(tenant, stolen); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("another method's page token: %v", err)
	}
}
