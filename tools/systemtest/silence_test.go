package systemtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

// Row T11, its other half: nobody hears of the issuer, so nobody can know who was removed. What changes something, an admin's call
// too, is refused after 10 s, what reads after 60 s, and not before; with the issuer back, both go on. The issuer is stopped as it is, so that it takes connections
// and never answers.
func TestServicesThatHearNothingOfTheIssuerRefuseWritesAndThenReads(t *testing.T) {
	full(t)
	t.Parallel()
	// One of its own: who waited for the spare one meanwhile would wait for a minute.
	x := another(t, "silent")
	owner := x.person(t, iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED)
	w := ask(t, client(x.plane.as(t, x, "silent-admin"), "", iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace,
		&iamv1.CreateWorkspaceRequest{Name: name("workspace"), OwnerUserId: owner.id}).GetId()
	token, admins := owner.token(t, w), x.plane.as(t, x, "silent-admin").token(t, "")
	cases := []struct {
		component, method, body string
		early, late             time.Duration
	}{
		{"discovery", "/a3os.discovery.v1.AdminDeadLetterService/DropDeadLetter", `{"deadLetterId":"dlt_01h455vb4pex5vsknk084sn02q","reason":"nobody can know who asks"}`, 5 * time.Second, 10 * time.Second},
		{"integrations", "/a3os.integrations.v1.IntegrationWriteService/DeleteIntegration", `{"integrationId":"int_01h455vb4pex5vsknk084sn02q"}`, 5 * time.Second, 10 * time.Second},
		{"discovery", "/a3os.discovery.v1.RunWriteService/StartRun", `{"integrationId":"int_01h455vb4pex5vsknk084sn02q"}`, 5 * time.Second, 10 * time.Second},
		{"integrations", "/a3os.integrations.v1.IntegrationService/ListIntegrations", `{}`, 50 * time.Second, 60 * time.Second},
		{"discovery", "/a3os.discovery.v1.RunService/ListRuns", `{}`, 50 * time.Second, 60 * time.Second},
		{"audit", "/a3os.audit.v1.AuditService/ListEvents", `{}`, 50 * time.Second, 60 * time.Second},
	}
	const silent = "has not been heard of"
	as := func(component, method string) caller {
		if strings.Contains(method, ".Admin") {
			return past(t, x, component).bearer(admins)
		}
		return past(t, x, component).bearer(token)
	}
	resume := x.pause(t, "iam")
	began := time.Now()
	var wg sync.WaitGroup
	for _, c := range cases {
		call := as(c.component, c.method)
		m := methodNamed(t, c.method)
		wg.Go(func() {
			// The last word may have come up to the moment of the stop; the rest is room for a slow machine.
			const room = 3 * time.Second
			took, ended := call.ends(t, m, c.body, began, 200*time.Millisecond, c.late+room, func(a answer) bool {
				return a.code == "unavailable" && strings.Contains(a.message, silent)
			})
			if ended && took < c.early {
				t.Errorf("%s is refused after %s already", c.method, took)
			}
			if ended {
				t.Logf("%s: refused after %s", c.method, took.Round(100*time.Millisecond))
			}
		})
	}
	wg.Wait()
	resume()
	for _, c := range cases {
		m := methodNamed(t, c.method)
		within(t, backWithin, func() error {
			if a := as(c.component, c.method).call(t, m, nil); strings.Contains(a.message, silent) {
				return fmt.Errorf("%s, with the issuer back: %s", c.method, a)
			}
			return nil
		})
	}
	t.Attr("row", fmt.Sprintf("T11 %d", len(cases)))
}
