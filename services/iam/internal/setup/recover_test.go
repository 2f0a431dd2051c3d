package setup_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/fault"

	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/setup"
)

const reason = "her laptop was stolen, identity checked by video"

func letIn(t *testing.T, e *iamtest.Env, email, code string) error {
	t.Helper()
	return setup.Recover(t.Context(), e.TenantDB, setup.Recovery{Email: email, CodeHash: hex.EncodeToString(setup.Hash(code)), Reason: reason}, e.Clock.Now())
}

func TestLastAdminWithoutASessionIsLetInOnTheRecord(t *testing.T) {
	e := iamtest.New(t)
	stolen := e.Session(t, e.Admin)
	if err := letIn(t, e, " Admin@Example.com", code); err != nil {
		t.Fatal(err)
	}
	events := e.Events(t, "iam.admin.recovered")
	if len(events) != 1 || events[0].GetActor() != "workload:operator" || events[0].GetReason() != reason ||
		events[0].GetTarget() != e.Admin.String() || events[0].GetOutcome() != auditv1.Outcome_OUTCOME_SUCCEEDED {
		t.Fatalf("before the code was used the record has %v", events)
	}
	if res := e.Refresh(t, stolen); res.Error != "invalid_grant" {
		t.Errorf("what was open before lives on: %+v", res)
	}
	if u := in(t, e, code); u.GetId() != e.Admin.String() {
		t.Fatalf("the code lets %v in", u)
	}
	if u := in(t, e, code); u != nil {
		t.Error("the code works twice")
	}
	if err := letIn(t, e, "admin@example.com", code); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("a code that was used is made young again: %v", err)
	}
}

func TestRecoveryIsRefusedWhereTheTenantCanHelpItselfOrNobodyIsAnAdmin(t *testing.T) {
	e := iamtest.New(t)
	other := e.User(t, "other@example.com", "admin")
	auditor := e.User(t, "auditor@example.com", "auditor")
	e.Session(t, auditor)
	e.DB.Exec(t, "INSERT INTO iam.users (id, email, display_name, state, tenant_role) VALUES (gen_random_uuid(), 'gone@example.com', 'gone', 'deactivated', 'admin')")
	refused := 0
	refuse := func(email string, kind fault.Kind, mention string) {
		t.Helper()
		err := letIn(t, e, email, code)
		if fault.KindOf(err) != kind || !strings.Contains(err.Error(), mention) {
			t.Errorf("%s: %v", email, err)
		}
		refused++
		if u := in(t, e, code); u != nil {
			t.Errorf("%s: refused, and the code lets %v in", email, u)
		}
	}
	refuse("nobody@example.com", fault.NotFound, "no user")
	refuse("auditor@example.com", fault.FailedPrecondition, "no tenant admin")
	refuse("gone@example.com", fault.FailedPrecondition, "no tenant admin")
	session := e.Session(t, other)
	refuse("admin@example.com", fault.FailedPrecondition, "other@example.com")
	e.Clock.Advance(23 * time.Hour)
	session = e.Refresh(t, session).RefreshToken
	e.Clock.Advance(23 * time.Hour)
	refuse("admin@example.com", fault.FailedPrecondition, "other@example.com")
	events := e.Events(t, "iam.admin.recovered")
	if len(events) != refused {
		t.Errorf("%d of %d refusals are on the record", len(events), refused)
	}
	for _, ev := range events {
		if ev.GetOutcome() != auditv1.Outcome_OUTCOME_DENIED || ev.GetReason() != reason {
			t.Errorf("the record has %v", ev)
		}
	}
	// Nobody has been at work for a day.
	e.Clock.Advance(2 * time.Hour)
	if err := letIn(t, e, "admin@example.com", code); err != nil {
		t.Fatal(err)
	}
	if res := e.Refresh(t, session); res.Status != 200 {
		t.Errorf("the other admin lost their session: %+v", res)
	}
}

func TestRecoveryWithoutAReasonOrACodeDoesNothing(t *testing.T) {
	e := iamtest.New(t)
	good := hex.EncodeToString(setup.Hash(code))
	for _, r := range []setup.Recovery{
		{Email: "admin@example.com", CodeHash: good}, {Email: "admin@example.com", CodeHash: good, Reason: "  short  "},
		{Email: "admin@example.com", CodeHash: good, Reason: strings.Repeat("x", 501)},
		{Email: "admin@example.com", Reason: reason}, {Email: "admin@example.com", CodeHash: code, Reason: reason},
	} {
		if err := setup.Recover(t.Context(), e.TenantDB, r, e.Clock.Now()); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.setup_codes"); n != 0 {
		t.Errorf("%d codes", n)
	}
}
