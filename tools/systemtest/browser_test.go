package systemtest

import (
	"net/http"
	"strings"
	"testing"

	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// frontend is the one origin whose pages may call the tenants of the shared plane.
const frontend = "https://app.example"

// What an operator says by A3_CORS_ORIGINS reaches every service that browsers reach, and no page of another origin may call.
func TestPagesOfNamedOriginsAloneMayCall(t *testing.T) {
	t.Parallel()
	x := acme()
	client := x.client(t)
	token := strings.TrimSpace(shared.a3(t, "acme-admin", "token"))
	answer := func(method, procedure string, header ...string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, shared.urlOf("acme")+procedure, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	for origin, want := range map[string]string{
		frontend: frontend, "https://evil.example": "", "https://app.example.evil.example": "", "http://app.example": "", "https://app.example:8443": "", "null": "",
	} {
		for service, procedure := range map[string]string{
			"audit": auditv1connect.AuditServiceListEventsProcedure, "iam": iamv1connect.IdentityServiceGetSelfProcedure,
			"integrations": integrationsv1connect.IntegrationServiceListIntegrationsProcedure, "discovery": discoveryv1connect.RunServiceListRunsProcedure,
		} {
			res := answer(http.MethodOptions, procedure, "Origin", origin, "Access-Control-Request-Method", "POST",
				"Access-Control-Request-Headers", "authorization,content-type")
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s: a page of %s is told that %q may call, want %q", service, origin, got, want)
			}
			if res.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: cookies would be sent along", service)
			}
		}
		res := answer(http.MethodPost, iamv1connect.IdentityServiceGetSelfProcedure, "Origin", origin, "Content-Type", "application/json", "Authorization", "Bearer "+token)
		if got := res.Header.Get("Access-Control-Allow-Origin"); res.StatusCode != http.StatusOK || got != want {
			t.Errorf("an answer to a page of %s is %s, for %q, want %q", origin, res.Status, got, want)
		}
	}
	for component := range x.addresses {
		if told := shared.environment(t, x.id+"/"+component)["A3_CORS_ORIGINS"]; told == "" {
			t.Errorf("%s is told of the origins %q", component, told)
		}
	}
}
