package systemtest

import (
	"strings"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"

	"a3os.app/libs/fault"
)

// Row D33 for what comes in by the thousand: an upload is taken as it stands, or refused with what is wrong in which line, and nothing
// of it is kept.
func TestBadUploadIsNamedByLineAndNotHalfTaken(t *testing.T) {
	full(t)
	t.Parallel()
	owner := acme().invite(t)
	const head, good = "account,email,app,right\n", "ann,ann@example.com,payroll,admin\n"
	bad := map[string]string{
		"NUL":                    "bo\x00b,bob@example.com,payroll,admin\n",
		"invalid UTF-8":          "bo\xff\xfeb,bob@example.com,payroll,admin\n",
		"too few columns":        "bob,bob@example.com\n",
		"too many columns":       "bob,bob@example.com,payroll,admin,more\n",
		"a lone quote":           "b\"ob,bob@example.com,payroll,admin\n",
		"an open quote":          "\"bob,bob@example.com,payroll,admin\n",
		"no account":             ",bob@example.com,payroll,admin\n",
		"a name of 1 MB":         strings.Repeat("b", 1<<20) + ",bob@example.com,payroll,admin\n",
		"a right without an app": "bob,bob@example.com,,admin\n",
	}
	w := acme().workspace(t, owner).GetId()
	integration := owner.uploads(t, w)
	write := client(owner, w, integrationsv1connect.NewIntegrationWriteServiceClient)
	for what, row := range bad {
		said := refused(t, fault.InvalidArgument, write.UploadContent,
			&integrationsv1.UploadContentRequest{IntegrationId: integration.GetId(), Content: []byte(head + good + row + good)})
		if !strings.Contains(said, "line 3") {
			t.Errorf("%s: the line is not named: %.300q", what, said)
		}
		if len(said) > 2000 {
			t.Errorf("%s: %d bytes are said of it", what, len(said))
		}
	}
	// Nothing of them is kept: there is nothing to discover, and the good upload that comes then is the first.
	if run := owner.discoverAnyhow(t, w, integration.GetId()); run.GetState() != integrationsv1.RunState_RUN_STATE_FAILED {
		t.Errorf("a run without an upload ended as %s", run.GetState())
	}
	ask(t, write.UploadContent, &integrationsv1.UploadContentRequest{IntegrationId: integration.GetId(), Content: []byte(head + good)})
	owner.discover(t, w, integration.GetId())
	if taken := ask(t, client(owner, w, discoveryv1connect.NewAccessServiceClient).ListGrants, &discoveryv1.ListGrantsRequest{}).GetGrants(); len(taken) != 1 {
		t.Errorf("after one good row there is %v", taken)
	}
	odd := map[string]string{"quotes": `"O'Brien ""Bob"" \ ; --"`, "other alphabets": "名前 𝒳", "markup": "<b>{{.}}</b>"}
	for what, name := range odd {
		w := acme().workspace(t, owner).GetId()
		integration := owner.upload(t, w, head+name+",,payroll,admin\n")
		owner.discover(t, w, integration.GetId())
		taken := ask(t, client(owner, w, discoveryv1connect.NewAccessServiceClient).ListGrants, &discoveryv1.ListGrantsRequest{}).GetGrants()
		want := strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`)
		if len(taken) != 1 || taken[0].GetPrincipal().GetExternalId() != want {
			t.Errorf("%s: %q was uploaded, and there is %v", what, want, taken)
		}
	}
	held(t, len(bad)+len(odd), "D33")
}
