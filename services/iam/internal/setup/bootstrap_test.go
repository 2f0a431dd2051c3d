package setup_test

import (
	"encoding/hex"
	"testing"
	"time"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/setup"
)

const (
	email  = "First@Example.com"
	code   = "THEPLATFORMMADETHISCODE234"
	second = "THEPLATFORMMADEANOTHERONE5"
)

// empty is an iam in which nobody has ever been.
func empty(t *testing.T) *iamtest.Env {
	e := iamtest.New(t)
	e.DB.Exec(t, "DELETE FROM iam.users")
	return e
}

func start(t *testing.T, e *iamtest.Env, code string) {
	t.Helper()
	if err := setup.Bootstrap(t.Context(), e.TenantDB, email, hex.EncodeToString(setup.Hash(code)), e.Clock.Now()); err != nil {
		t.Fatal(err)
	}
}

func in(t *testing.T, e *iamtest.Env, code string) *iamv1.User {
	t.Helper()
	res, err := e.Setup.RedeemSetupCode(t.Context(), connect.NewRequest(&iamv1.RedeemSetupCodeRequest{Code: code}))
	if err != nil {
		return nil
	}
	return res.Msg.GetUser()
}

func TestFirstAdminGetsInWithThePlatformsCode(t *testing.T) {
	e := empty(t)
	start(t, e, code)
	u := in(t, e, code)
	if u.GetEmail() != "first@example.com" || u.GetTenantRole() != iamv1.TenantRole_TENANT_ROLE_ADMIN || u.GetState() != iamv1.UserState_USER_STATE_ACTIVE {
		t.Fatalf("got in as %v", u)
	}
	for _, c := range []string{code, second} {
		start(t, e, c)
		if u := in(t, e, c); u != nil {
			t.Errorf("a restart lets %v in again", u)
		}
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.users"); n != 1 {
		t.Errorf("%d users", n)
	}
}

func TestRestartMakesAnOldCodeNoYounger(t *testing.T) {
	e := empty(t)
	start(t, e, code)
	e.Clock.Advance(setup.Life - time.Minute)
	start(t, e, code)
	e.Clock.Advance(2 * time.Minute)
	if u := in(t, e, code); u != nil {
		t.Fatalf("the code of a quarter of an hour ago lets %v in", u)
	}
	start(t, e, code)
	if u := in(t, e, code); u != nil {
		t.Fatalf("a restart made the code young again")
	}
	start(t, e, second)
	if u := in(t, e, second); u.GetEmail() != "first@example.com" {
		t.Errorf("a new code does not work: %v", u)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.users"); n != 1 {
		t.Errorf("%d users", n)
	}
}

func TestTenantThatHasUsersTakesNoCodeOfThePlatform(t *testing.T) {
	e := iamtest.New(t)
	start(t, e, code)
	if u := in(t, e, code); u != nil {
		t.Errorf("let in %v", u)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.users"); n != 1 {
		t.Errorf("%d users", n)
	}
}

func TestBootstrapThatIsHalfConfiguredIsRefused(t *testing.T) {
	e := iamtest.New(t)
	good := hex.EncodeToString(setup.Hash(code))
	for _, c := range [][2]string{{"", good}, {email, ""}, {email, "xyz"}, {email, good[:40]}, {"nobody", good}} {
		if err := setup.Bootstrap(t.Context(), e.TenantDB, c[0], c[1], e.Clock.Now()); err == nil {
			t.Errorf("%q was taken", c)
		}
	}
	if err := setup.Bootstrap(t.Context(), e.TenantDB, "", "", e.Clock.Now()); err != nil {
		t.Errorf("none at all: %v", err)
	}
}
