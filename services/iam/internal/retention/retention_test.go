package retention_test

import (
	"testing"
	"time"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/retention"
	"a3os.app/services/iam/internal/session"
)

func TestWhatCanNotMatterIsDroppedAndNothingElse(t *testing.T) {
	e := iamtest.New(t)
	job := retention.Job{Workspace: e.WorkspaceDB, Tenant: e.TenantDB, Keys: e.Keys.Maintain, Now: e.Clock.Now}
	once := func() {
		t.Helper()
		if err := job.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a := e.Account(t, "ci", 0)
	e.SignIn(t, a)
	used := e.Session(t, e.Admin)
	live := e.Refresh(t, used).RefreshToken
	e.DB.Exec(t, `INSERT INTO a3.idempotency_keys (service, principal, workspace, method, key, request_digest, created_at)
		SELECT r, 'usr_x', '', 'm', r || age, '', now() - age::interval FROM unnest($1::text[]) r, unnest('{1 hour,3 days}'::text[]) age`,
		[]string{e.DB.RoleName(e.URLs["role_iam"]), e.DB.RoleName(e.URLs["role_iam_tenant"]), e.DB.RoleName(e.URLs["role_discovery"])})
	e.DB.Exec(t, "INSERT INTO iam.revocations (sequence, principal, created_at) VALUES (1, 'usr_old', now() - interval '2 hours'), (2, 'usr_new', now() - interval '20 minutes')")

	counts := func() [5]int {
		return [5]int{
			e.Int(t, "SELECT count(*) FROM iam.assertions"), e.Int(t, "SELECT count(*) FROM iam.refresh_tokens"), e.Int(t, "SELECT count(*) FROM iam.sessions"),
			e.Int(t, "SELECT count(*) FROM iam.revocations"), e.Int(t, "SELECT count(*) FROM a3.idempotency_keys"),
		}
	}
	once()
	// Of the keys the other service's stay, and the young ones.
	if got, want := counts(), [5]int{1, 2, 1, 1, 4}; got != want {
		t.Errorf("at once: %v are left, want %v", got, want)
	}
	e.Clock.Advance(5 * time.Minute)
	once()
	if got := counts()[0]; got != 0 {
		t.Errorf("%d assertions that could no longer be replayed are left", got)
	}
	e.Clock.Advance(8 * 24 * time.Hour)
	once()
	if got := counts()[1]; got != 1 {
		t.Errorf("%d refresh tokens are left, want the live one", got)
	}
	if res := e.Refresh(t, live); res.Status != 200 {
		t.Errorf("the session does not go on: %+v", res)
	}
	if res := e.Refresh(t, used); res.Error != "invalid_grant" {
		t.Errorf("a forgotten token was answered %+v", res)
	}
	e.Clock.Advance(session.Life)
	once()
	if got := counts(); got[1] != 0 || got[2] != 0 {
		t.Errorf("a session that is over is left: %v", got)
	}
}
