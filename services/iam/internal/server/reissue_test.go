package server_test

import (
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/server"
	"a3os.app/services/iam/internal/setup"
)

func reissue(t *testing.T, e *iamtest.Env, user id.User, endSessions bool) *iamv1.ReissueSetupCodeResponse {
	t.Helper()
	res, err := e.Users.ReissueSetupCode(e.AsAdmin(t), connect.NewRequest(&iamv1.ReissueSetupCodeRequest{UserId: user.String(), Reason: why, EndSessions: endSessions}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg
}

func TestPersonWithoutASessionGetsInAgainWithAllTheyHad(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	w := e.Workspace(t, "finance", ada)
	open := e.Session(t, ada)
	code := reissue(t, e, ada, false)
	if code.GetEndedSessions() != 0 {
		t.Errorf("%d sessions ended unasked", code.GetEndedSessions())
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.setup_codes WHERE code_hash = $1", setup.Hash(code.GetSetupCode())); n != 1 {
		t.Errorf("%d hashes of the code are stored, want its own alone", n)
	}
	in, err := redeem(t.Context(), e, code.GetSetupCode())
	if err != nil {
		t.Fatal(err)
	}
	if in.GetUser().GetId() != ada.String() || in.GetUser().GetState() != iamv1.UserState_USER_STATE_ACTIVE {
		t.Errorf("got in as %v", in.GetUser())
	}
	token := e.Exchange(t, e.Refresh(t, in.GetRefreshToken()).AccessToken, w).AccessToken
	if c := e.Claims(t, token); c.Workspace != w || c.Principal.User() != ada {
		t.Errorf("the new session is %v", c)
	}
	if res := e.Refresh(t, open); res.Status != 200 {
		t.Errorf("what was open before ended: %+v", res)
	}
	if _, err := redeem(t.Context(), e, code.GetSetupCode()); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("the code works twice: %v", err)
	}
	events := e.Events(t, "iam.setup_code.reissued")
	if len(events) != 1 || events[0].GetReason() != why || events[0].GetTarget() != ada.String() || events[0].GetActor() != e.Admin.String() {
		t.Errorf("the record has %v", events)
	}
	if after := events[0].GetAfter().GetFields(); after["setup_code"] != nil {
		t.Error("the code is on the record")
	}
	if n := len(e.Events(t, "iam.user.activated")); n != 0 {
		t.Error("somebody who was active is on the record as activated")
	}
}

func TestReissuedCodeEndsWhatWasOpenWhereAsked(t *testing.T) {
	e := iamtest.New(t)
	ada := e.User(t, "ada@example.com", "")
	stolen := []string{e.Session(t, ada), e.Session(t, ada)}
	access := e.Refresh(t, stolen[0]).AccessToken
	before := e.Claims(t, access)
	code := reissue(t, e, ada, true)
	if code.GetEndedSessions() != 2 {
		t.Errorf("%d sessions ended, want 2", code.GetEndedSessions())
	}
	for _, token := range stolen {
		if res := e.Refresh(t, token); res.Error != "invalid_grant" {
			t.Errorf("a session lives on: %+v", res)
		}
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE principal = $1 AND sequence > $2", ada.String(), before.Revision); n != 1 {
		t.Errorf("%d revocations make the access token worthless", n)
	}
	in, err := redeem(t.Context(), e, code.GetSetupCode())
	if err != nil {
		t.Fatal(err)
	}
	if res := e.Refresh(t, in.GetRefreshToken()); res.Status != 200 {
		t.Errorf("the new session does not work: %+v", res)
	}
}

func TestReissuedCodeKeepsTheRulesOfEveryCode(t *testing.T) {
	e := iamtest.New(t)
	ada, gone := e.User(t, "ada@example.com", ""), e.User(t, "gone@example.com", "")
	first := reissue(t, e, ada, false).GetSetupCode()
	second := reissue(t, e, ada, false).GetSetupCode()
	if _, err := redeem(t.Context(), e, first); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("a code that was replaced: %v", err)
	}
	e.Clock.Advance(setup.Life)
	if _, err := redeem(t.Context(), e, second); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("a code of 15 minutes: %v", err)
	}
	left := reissue(t, e, gone, false).GetSetupCode()
	if _, err := e.Users.DeactivateUser(e.AsAdmin(t), connect.NewRequest(&iamv1.DeactivateUserRequest{UserId: gone.String()})); err != nil {
		t.Fatal(err)
	}
	if _, err := redeem(t.Context(), e, left); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("a code of somebody who was deactivated since: %v", err)
	}
	_, err := e.Users.ReissueSetupCode(e.AsAdmin(t), connect.NewRequest(&iamv1.ReissueSetupCodeRequest{UserId: gone.String(), Reason: why}))
	if !errors.Is(err, server.ErrNotActive) {
		t.Errorf("a deactivated user gets a code: %v", err)
	}
	_, err = e.Users.ReissueSetupCode(e.AsAdmin(t), connect.NewRequest(&iamv1.ReissueSetupCodeRequest{UserId: id.NewUser().String(), Reason: why}))
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("nobody gets a code: %v", err)
	}
	inv := invite(t, e, "new@example.com")
	again := reissue(t, e, inv.user, false)
	e.Clock.Advance(time.Minute)
	if _, err := redeem(t.Context(), e, inv.code); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("the code of the invitation works beside a new one: %v", err)
	}
	if in, err := redeem(t.Context(), e, again.GetSetupCode()); err != nil || in.GetUser().GetState() != iamv1.UserState_USER_STATE_ACTIVE {
		t.Errorf("an invited user's new code: %v, %v", in, err)
	}
}
