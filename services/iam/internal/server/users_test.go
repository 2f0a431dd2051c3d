package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/server"
)

type invitation struct {
	user id.User
	code string
}

func invite(t *testing.T, e *iamtest.Env, email string) invitation {
	t.Helper()
	res, err := e.Users.InviteUser(e.AsAdmin(t), connect.NewRequest(&iamv1.InviteUserRequest{Email: email, DisplayName: email}))
	if err != nil {
		t.Fatal(err)
	}
	u, err := id.ParseUser(res.Msg.GetUser().GetId())
	if err != nil {
		t.Fatal(err)
	}
	return invitation{u, res.Msg.GetSetupCode()}
}

func redeem(ctx context.Context, e *iamtest.Env, code string) (*iamv1.RedeemSetupCodeResponse, error) {
	res, err := e.Setup.RedeemSetupCode(ctx, connect.NewRequest(&iamv1.RedeemSetupCodeRequest{Code: code}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func TestSetupCodeLetsAPersonInOnce(t *testing.T) {
	e := iamtest.New(t)
	inv := invite(t, e, "Ada@Example.com")
	if n := e.Int(t, "SELECT count(*) FROM iam.setup_codes WHERE position(convert_to($1, 'UTF8') IN code_hash) > 0", inv.code); n != 0 {
		t.Error("the code is stored in clear")
	}
	for _, ev := range e.Events(t, "iam.user.invited") {
		if strings.Contains(ev.String(), inv.code) {
			t.Error("the code is on the record")
		}
	}
	var mu sync.Mutex
	var in []*iamv1.RedeemSetupCodeResponse
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			res, err := redeem(t.Context(), e, inv.code)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in = append(in, res)
			} else if fault.KindOf(err) != fault.Unauthenticated {
				t.Errorf("a loser was told %v", err)
			}
		})
	}
	wg.Wait()
	if len(in) != 1 {
		t.Fatalf("%d of 6 got in", len(in))
	}
	if in[0].GetUser().GetState() != iamv1.UserState_USER_STATE_ACTIVE || in[0].GetUser().GetEmail() != "ada@example.com" {
		t.Errorf("user is %v", in[0].GetUser())
	}
	if res := e.Refresh(t, in[0].GetRefreshToken()); res.Status != 200 || e.Claims(t, res.AccessToken).Principal.User() != inv.user {
		t.Errorf("the session does not work: %+v", res)
	}
	if n := len(e.Events(t, "iam.session.started")); n != 1 {
		t.Errorf("%d sessions on the record", n)
	}
}

func TestSetupCodeThatDoesNotWorkSaysNothingMore(t *testing.T) {
	e := iamtest.New(t)
	old := invite(t, e, "old@example.com")
	replaced := invite(t, e, "ada@example.com")
	fresh := invite(t, e, "ada@example.com")
	e.Clock.Advance(14 * time.Minute)
	late := invite(t, e, "late@example.com")
	if _, err := redeem(t.Context(), e, fresh.code); err != nil {
		t.Errorf("a code of 14 minutes: %v", err)
	}
	e.Clock.Advance(time.Minute + time.Second)
	if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: late.user.String()})); err != nil {
		t.Fatal(err)
	}
	var said []string
	for name, code := range map[string]string{
		"expired": old.code, "replaced": replaced.code, "used": fresh.code, "of a deactivated user": late.code, "never was": "AAAAAAAAAAAAAAAAAAAAAAAAAA",
	} {
		_, err := redeem(t.Context(), e, code)
		if fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: %v", name, err)
			continue
		}
		said = append(said, err.Error())
	}
	for _, s := range said {
		if s != said[0] {
			t.Errorf("answers differ: %q", said)
		}
	}
	if err := e.Denials.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if events := e.Events(t, "iam.setup_code.denied"); len(events) != 1 || events[0].GetAfter().GetFields()["count"].GetNumberValue() != 5 {
		t.Errorf("the record has %v", events)
	}
}

func TestGuessingSetupCodesIsLimited(t *testing.T) {
	e := iamtest.New(t)
	inv := invite(t, e, "ada@example.com")
	limited := 0
	for i := range 30 {
		if _, err := redeem(t.Context(), e, fmt.Sprintf("GUESS%021d", i)); fault.KindOf(err) == fault.ResourceExhausted {
			limited++
		}
	}
	if limited < 15 {
		t.Errorf("only %d of 30 guesses were refused unseen", limited)
	}
	if _, err := redeem(t.Context(), e, inv.code); fault.KindOf(err) != fault.ResourceExhausted {
		t.Errorf("the guesser's source goes on: %v", err)
	}
}

func TestOwnerIsNotDeactivatedAndLearnsWhatToTransfer(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	first, second := e.Workspace(t, "Research", ada), e.Workspace(t, "Sales", ada)
	deactivate := func() error {
		_, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: ada.String(), Reason: "left"}))
		return err
	}
	err := deactivate()
	if !errors.Is(err, server.ErrOwnsWorkspaces) {
		t.Fatalf("answered %v", err)
	}
	for _, want := range []string{`"Research"`, `"Sales"`, first.String(), second.String(), "ada@example.com"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal does not name %s: %v", want, err)
		}
	}
	for _, w := range []id.Workspace{first, second} {
		if _, err := transfer(e.AsAdmin(t), e, w, ada, e.Admin); err != nil {
			t.Fatal(err)
		}
	}
	refresh := e.Session(t, ada)
	if err := deactivate(); err != nil {
		t.Fatal(err)
	}
	if res := e.Refresh(t, refresh); res.Error != "invalid_grant" {
		t.Errorf("the session goes on: %+v", res)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.members WHERE user_id = $1", ada); n != 0 {
		t.Errorf("%d memberships are left", n)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE principal = $1 AND session_id IS NULL AND workspace_id IS NULL", ada.String()); n != 1 {
		t.Errorf("%d revocations of all of the user's tokens", n)
	}
	if ev := e.Events(t, "iam.user.deactivated"); len(ev) != 1 || ev[0].GetReason() != "left" {
		t.Errorf("the record has %v", ev)
	}
}

func TestLastTenantAdminStays(t *testing.T) {
	e := iamtest.New(t)
	invitedAdmin, err := e.Users.InviteUser(e.AsAdmin(t), connect.NewRequest(&iamv1.InviteUserRequest{
		Email: "soon@example.com", DisplayName: "Soon", TenantRole: iamv1.TenantRole_TENANT_ROLE_ADMIN,
	}))
	if err != nil {
		t.Fatal(err)
	}
	e.Account(t, "robot", iamv1.TenantRole_TENANT_ROLE_ADMIN)
	if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: e.Admin.String()})); !errors.Is(err, server.ErrLastAdmin) {
		t.Errorf("deactivate: %v (an invited admin and a program can't sign in for the tenant)", err)
	}
	if _, err := e.Users.SetTenantRole(e.AsAdmin(t), connect.NewRequest(&iamv1.SetTenantRoleRequest{UserId: e.Admin.String()})); !errors.Is(err, server.ErrLastAdmin) || !strings.Contains(err.Error(), e.Admin.String()) {
		t.Errorf("take the role: %v", err)
	}
	if _, err := redeem(t.Context(), e, invitedAdmin.Msg.GetSetupCode()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Users.SetTenantRole(e.AsAdmin(t), connect.NewRequest(&iamv1.SetTenantRoleRequest{UserId: e.Admin.String()})); err != nil {
		t.Errorf("with another admin: %v", err)
	}
}

func TestTwoAdminsCanNotRemoveEachOther(t *testing.T) {
	e := iamtest.New(t)
	for round := range 10 {
		e.DB.Exec(t, "UPDATE iam.users SET tenant_role = NULL WHERE id <> $1", e.Admin)
		e.DB.Exec(t, "UPDATE iam.users SET tenant_role = 'admin' WHERE id = $1", e.Admin)
		other := e.User(t, fmt.Sprintf("admin%d@example.com", round), "admin")
		var wg sync.WaitGroup
		for _, u := range []id.User{e.Admin, other} {
			wg.Go(func() {
				_, err := e.Users.SetTenantRole(e.AsAdmin(t), connect.NewRequest(&iamv1.SetTenantRoleRequest{UserId: u.String()}))
				if err != nil && !errors.Is(err, server.ErrLastAdmin) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := e.Int(t, "SELECT count(*) FROM iam.users WHERE tenant_role = 'admin' AND state = 'active'"); n != 1 {
			t.Fatalf("round %d: %d admins are left", round, n)
		}
	}
}

func TestInvitedAgainMeansOneNewCode(t *testing.T) {
	e := iamtest.New(t)
	first := invite(t, e, "ada@example.com")
	second := invite(t, e, "ADA@example.com ")
	if first.user != second.user || first.code == second.code {
		t.Errorf("first %v, second %v", first, second)
	}
	if _, err := redeem(t.Context(), e, second.code); err != nil {
		t.Fatal(err)
	}
	_, err := e.Users.InviteUser(e.AsAdmin(t), connect.NewRequest(&iamv1.InviteUserRequest{Email: "ada@example.com", DisplayName: "Ada"}))
	if fault.KindOf(err) != fault.AlreadyExists {
		t.Errorf("an active user: %v", err)
	}
	w := e.Workspace(t, "Research", e.Admin)
	e.Member(t, w, first.user.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_ADMIN)
	if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: first.user.String()})); err != nil {
		t.Fatal(err)
	}
	back := invite(t, e, "ada@example.com")
	res, err := redeem(t.Context(), e, back.code)
	if err != nil || back.user != first.user {
		t.Fatalf("a user who comes back: %v %v", back, err)
	}
	if a := e.Exchange(t, e.Refresh(t, res.GetRefreshToken()).AccessToken, w); a.Error != "invalid_target" {
		t.Errorf("they came back with their membership: %+v", a)
	}
}

func TestSelfSaysWhoCalls(t *testing.T) {
	e := iamtest.New(t)
	a := e.Account(t, "ci", 0)
	for principal, name := range map[string]string{e.Admin.String(): "admin@example.com", a.ID.String(): "ci"} {
		w := id.NewWorkspace()
		res, err := e.Identity.GetSelf(e.Ctx(t, principal, w, authz.WorkspaceViewer), connect.NewRequest(&iamv1.GetSelfRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		m := res.Msg
		if m.GetDisplayName() != name || m.GetPrincipalId() != principal || m.GetTenantId() != e.Tenant.String() || m.GetTenantSlug() != "acme" ||
			m.GetWorkspaceId() != w.String() || m.GetPlane() != iamtest.Plane || len(m.GetPermissions()) == 0 {
			t.Errorf("answered %v", m)
		}
	}
}
