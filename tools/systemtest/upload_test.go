package systemtest

import (
	"strings"
	"testing"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// Row D33 for what comes in by the thousand: an upload is read as it stands, or the run says what is wrong with which line and takes
// nothing of it.
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
	for what, row := range bad {
		w := acme().workspace(t, owner).GetId()
		integration := owner.upload(t, w, head+good+row+good)
		run := owner.discoverAnyhow(t, w, integration.GetId())
		taken := ask(t, client(owner, w, discoveryv1connect.NewAccessServiceClient).ListGrants, &discoveryv1.ListGrantsRequest{}).GetGrants()
		said := run.GetError()
		for _, gap := range run.GetGaps() {
			said += " " + gap.GetReason()
		}
		if run.GetState() == integrationsv1.RunState_RUN_STATE_COMPLETE {
			t.Errorf("%s: the run is said to be complete", what)
		}
		if !strings.Contains(said, "line 3") {
			t.Errorf("%s: the line is not named: %.300q", what, said)
		}
		if run.GetState() == integrationsv1.RunState_RUN_STATE_FAILED && len(taken) > 0 {
			t.Errorf("%s: the run failed, and %d grants were taken", what, len(taken))
		}
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
