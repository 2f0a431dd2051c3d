package record_test

import (
	"strings"
	"testing"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
)

func TestEventSaysWhoFromTheScopeAndNoSecret(t *testing.T) {
	s := scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: id.NewWorkspace(), Principal: "usr_a", Transfer: id.NewTransfer()}
	e := record.Build(t.Context(), s, record.Event{Action: "x", After: &iamv1.InviteUserResponse{SetupCode: "canary-4711", User: &iamv1.User{Email: "a@example.org"}}})
	if e.GetActor() != "usr_a" || e.GetWorkspaceId() != s.Workspace.String() || e.GetTransferId() != s.Transfer.String() {
		t.Errorf("event is %v", e)
	}
	if strings.Contains(e.String(), "canary") {
		t.Errorf("the secret is in the event: %v", e)
	}
	if !strings.Contains(e.String(), "a@example.org") {
		t.Errorf("what is no secret is gone: %v", e)
	}
}

func TestThingTooLargeForTheRecordIsNamedByItsSize(t *testing.T) {
	big := &integrationsv1.Integration{Name: strings.Repeat("n", 300<<10)}
	e := record.Build(t.Context(), scope.Scope{}, record.Event{Action: "x", After: big})
	if n := e.GetAfter().GetFields()["omitted_bytes"].GetNumberValue(); n < 300<<10 {
		t.Errorf("the event says %v", e.GetAfter())
	}
}
