package issuer_test

import (
	"net/url"
	"sync"
	"testing"
	"time"

	"a3os.app/libs/authz"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/session"
)

// over says that a session is over: its refresh token buys nothing and a revocation names it.
func over(t *testing.T, e *iamtest.Env, refresh string) {
	t.Helper()
	if res := e.Refresh(t, refresh); res.Status != 400 || res.Error != "invalid_grant" || res.AccessToken != "" {
		t.Errorf("the session goes on: %+v", res)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE principal = $1 AND session_id IS NOT NULL AND workspace_id IS NULL", e.Admin.String()); n != 1 {
		t.Errorf("%d revocations name the session", n)
	}
}

func TestRefreshTokenBuysAnAccessTokenAndItsSuccessor(t *testing.T) {
	e := iamtest.New(t)
	first := e.Session(t, e.Admin)
	res := e.Refresh(t, first)
	if res.Status != 200 || res.RefreshToken == "" || res.RefreshToken == first || res.TokenType != "Bearer" || res.ExpiresIn < 595 || res.ExpiresIn > 600 {
		t.Fatalf("answered %+v", res)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	c := e.Claims(t, res.AccessToken)
	if c.Principal.User() != e.Admin || c.Session.IsZero() || !c.Workspace.IsZero() {
		t.Errorf("claims are %+v", c)
	}
	want, _ := authz.Permissions([]string{authz.TenantAdmin})
	if len(c.Permissions) != len(want) {
		t.Errorf("permissions are %v", c.Permissions)
	}
	for i := range 5 {
		e.Clock.Advance(9 * time.Minute)
		if res = e.Refresh(t, res.RefreshToken); res.Status != 200 {
			t.Fatalf("refresh %d: %+v", i, res)
		}
	}
}

func TestRefreshTokenUsedTwiceEndsTheWholeSession(t *testing.T) {
	e := iamtest.New(t)
	first := e.Session(t, e.Admin)
	second := e.Refresh(t, first).RefreshToken
	e.Clock.Advance(session.Grace + time.Second)
	if res := e.Refresh(t, first); res.Status != 400 || res.Error != "invalid_grant" {
		t.Fatalf("the copy was answered %+v", res)
	}
	over(t, e, second)
	if n := len(e.Events(t, "iam.session.refresh_reused")); n != 1 {
		t.Errorf("%d reuses on the record", n)
	}
}

func TestReuseWithinTheGraceEndsTheSessionOnceTheSuccessorWasUsed(t *testing.T) {
	e := iamtest.New(t)
	first := e.Session(t, e.Admin)
	second := e.Refresh(t, first).RefreshToken
	third := e.Refresh(t, second).RefreshToken
	if res := e.Refresh(t, first); res.Error != "invalid_grant" {
		t.Fatalf("answered %+v", res)
	}
	over(t, e, third)
}

func TestClientThatLostTheAnswerGetsTheSameSuccessor(t *testing.T) {
	e := iamtest.New(t)
	first := e.Session(t, e.Admin)
	lost := e.Refresh(t, first).RefreshToken
	e.Clock.Advance(session.Grace - time.Second)
	again := e.Refresh(t, first)
	if again.Status != 200 || again.RefreshToken != lost || again.AccessToken == "" {
		t.Fatalf("answered %+v, want the successor %s", again, lost)
	}
	if res := e.Refresh(t, again.RefreshToken); res.Status != 200 {
		t.Errorf("the successor does not work: %+v", res)
	}
}

func TestRefreshesAtOnceAllGetOneSuccessor(t *testing.T) {
	e := iamtest.New(t)
	first := e.Session(t, e.Admin)
	var mu sync.Mutex
	successors := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			res := e.Refresh(t, first)
			mu.Lock()
			defer mu.Unlock()
			successors[res.RefreshToken]++
		})
	}
	wg.Wait()
	if len(successors) != 1 || successors[""] != 0 {
		t.Errorf("successors: %v", successors)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.refresh_tokens"); n != 2 {
		t.Errorf("%d refresh tokens are stored, want 2", n)
	}
}

func TestSessionEndsByItself(t *testing.T) {
	e := iamtest.New(t)
	idle := e.Session(t, e.Admin)
	refreshed := e.Session(t, e.Admin)
	for range 4 {
		e.Clock.Advance(session.Idle - 24*time.Hour)
		if res := e.Refresh(t, refreshed); res.Status == 200 {
			refreshed = res.RefreshToken
			continue
		}
		break
	}
	for _, token := range []string{idle, refreshed} {
		if res := e.Refresh(t, token); res.Error != "invalid_grant" {
			t.Errorf("answered %+v", res)
		}
	}
}

func TestWhatIsNoRefreshTokenIsRefusedAlike(t *testing.T) {
	e := iamtest.New(t)
	access := e.Refresh(t, e.Session(t, e.Admin)).AccessToken
	var answers []string
	for _, token := range []string{"x", "a3r_", "a3r_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", access} {
		res := e.Refresh(t, token)
		if res.Status != 400 || res.Error != "invalid_grant" {
			t.Errorf("%.12s was answered %+v", token, res)
		}
		answers = append(answers, res.ErrorDescription)
	}
	for _, a := range answers {
		if a != answers[0] {
			t.Errorf("answers differ: %q", answers)
		}
	}
}

func TestDatabaseHoldsNothingThatSignsIn(t *testing.T) {
	e := iamtest.New(t)
	first := e.Session(t, e.Admin)
	second := e.Refresh(t, first).RefreshToken
	for _, token := range []string{first, second} {
		n := e.Int(t, `SELECT count(*) FROM iam.refresh_tokens r WHERE position(convert_to($1, 'UTF8') IN r.token_hash || coalesce(r.successor_sealed, '') || coalesce(r.successor_hash, '')) > 0`, token)
		if n != 0 {
			t.Errorf("%d rows hold a refresh token in clear", n)
		}
	}
}

func TestRevokingATokenEndsItsSession(t *testing.T) {
	for name, pick := range map[string]func(access, refresh string) string{
		"refresh token": func(_, refresh string) string { return refresh },
		"access token":  func(access, _ string) string { return access },
	} {
		t.Run(name, func(t *testing.T) {
			e := iamtest.New(t)
			other := e.Session(t, e.Admin)
			res := e.Refresh(t, e.Session(t, e.Admin))
			revoke := url.Values{"token": {pick(res.AccessToken, res.RefreshToken)}}
			for range 2 {
				if a := e.Post(t, "/oauth2/revoke", revoke); a.Status != 200 {
					t.Fatalf("revoke: %+v", a)
				}
			}
			over(t, e, res.RefreshToken)
			if n := len(e.Events(t, "iam.session.ended")); n != 1 {
				t.Errorf("%d ends on the record", n)
			}
			if a := e.Refresh(t, other); a.Status != 200 {
				t.Errorf("the other session ended too: %+v", a)
			}
		})
	}
}

func TestRevokingWhatIsNoTokenSaysNothing(t *testing.T) {
	e := iamtest.New(t)
	for _, token := range []string{"x", "a3r_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "a.b.c"} {
		if a := e.Post(t, "/oauth2/revoke", url.Values{"token": {token}}); a.Status != 200 || a.Error != "" {
			t.Errorf("%s: %+v", token, a)
		}
	}
	account := e.Account(t, "ci", 0)
	if a := e.Post(t, "/oauth2/revoke", url.Values{"token": {e.SignIn(t, account)}}); a.Status != 400 || a.Error != "unsupported_token_type" {
		t.Errorf("a service account's token: %+v", a)
	}
}
