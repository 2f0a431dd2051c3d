package command_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"a3os.app/libs/fault"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/tools/internal/profile"
	"a3os.app/tools/internal/profile/profiletest"
)

func TestExitCodeTellsKindsOfFailureApart(t *testing.T) {
	f := newFake(t)
	for kind, want := range map[fault.Kind]int{
		fault.PermissionDenied: 3, fault.NotFound: 4, fault.InvalidArgument: 2, fault.Internal: 1, fault.Unavailable: 1,
		fault.FailedPrecondition: 1, fault.AlreadyExists: 1, fault.ResourceExhausted: 1, fault.Aborted: 1,
	} {
		f.refuse["ListUsers"] = fault.New(kind, "this and that: do this")
		r := a3(t, "user", "list")
		if r.code != want || r.out != "" {
			t.Errorf("%s: exit code %d, want %d; out %q", kind, r.code, want, r.out)
		}
		said := "this and that: do this"
		if kind == fault.Internal {
			// Of what went wrong on the other side nobody learns more than the request's id, whatever the other side says.
			said = "something went wrong on our side; the request id leads to the cause"
		}
		if want := "a3: " + said + " (request " + requestID + ")\n"; r.err != want {
			t.Errorf("%s is told as %q, want %q", kind, r.err, want)
		}
	}
}

func TestCallerWithoutASessionIsToldToSignIn(t *testing.T) {
	f := newFake(t)
	err := f.store().Update(t.Context(), "admin", func(p *profile.Profile) error {
		p.RefreshToken = "none"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := a3(t, "user", "list"); r.code != 3 || !strings.Contains(r.err, "a3 --profile admin login") {
		t.Errorf("told: %+v", r)
	}
}

func TestTokenThatWasRevokedIsReplacedInTheCourseOfACall(t *testing.T) {
	f := newFake(t)
	if r := a3(t, "workspace", "list"); r.code != 0 {
		t.Fatalf("first: %+v", r)
	}
	f.RevokeAccess()
	if r := a3(t, "workspace", "list"); r.code != 0 || f.Counts().Refreshes != 2 {
		t.Errorf("after the token was revoked: %+v, %+v", r, f.Counts())
	}
}

func TestWrongUseIsExitCodeTwo(t *testing.T) {
	newFake(t)
	for _, args := range [][]string{
		{"nope"}, {"workspace"}, {"workspace", "nope"}, {"workspace", "create"}, {"workspace", "create", "a", "b"}, {"workspace", "list", "--nope"},
		{"-o", "yaml", "workspace", "list"}, {"workspace", "transfer", "operations"}, {"member", "add", "dave@acme.example", "--role", "king"},
		{"member", "set-role", "dave@acme.example", "--role", "owner"}, {"integration", "add", "x", "ldap"}, {"integration", "add", "x", "unix", "--host", "h"},
		{"integration", "add", "x", "csv"}, {"integration", "add", "x", "csv", "--system", "s", "--file", "none.csv", "--column", "Id=account_id"},
		{"access", "who", "x", "--as-of", "yesterday"}, {"access", "who", ""}, {"access", "why", "x", " "}, {"access", "list", "--limit", "-5"},
		{"access", "list", "--type", "Bad Type"}, {"access", "list", "--limit", "99999999999999999999"}, {"integration", "get", ""},
		{"integration", "add", "x", "postgres", "--host", "h", "--user", "u", "--schedule", "1s"}, {"audit", "list", "--outcome", "good"}, {"dead-letter", "list", "--state", "lost"}, {"dead-letter", "retry", "dlt_x"}, {"dead-letter", "drop", "--reason", "because of it"}, {"login", "--url", "https://x.example.com"},
		{"login", "--url", "http://x.example.com", "--setup-code", "x"},
	} {
		r := a3(t, args...)
		if r.code != 2 || r.out != "" || strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "a3: ") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestWhatIsNotThereIsExitCodeFourWithTheNextStep(t *testing.T) {
	f := newFake(t)
	for reason, step := range map[string]string{"NO_RESOURCE": "a3 access list --search", "NO_PERSON": "--accounts"} {
		f.refuse["ListHolders"] = fault.Declare(fault.NotFound, reason, "there is no such thing")
		r := a3(t, "access", "who", "ünï→\u202e☃")
		if r.code != 4 || !strings.HasPrefix(r.err, "a3: there is no such thing: look for") || !strings.Contains(r.err, step) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: %+v", reason, r)
		}
	}
}

func TestPlaneThatIsDownIsTold(t *testing.T) {
	f := newFake(t)
	err := f.store().Update(t.Context(), "admin", func(p *profile.Profile) error {
		p.DialAddress = "127.0.0.1:1"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := a3(t, "workspace", "list"); r.code != 1 || !strings.Contains(r.err, "can't be reached") || !strings.Contains(r.err, "127.0.0.1:1") {
		t.Errorf("told: %+v", r)
	}
}

func TestProfileIsTheOnlyOneOrMustBeNamed(t *testing.T) {
	f := newFake(t)
	if r := a3(t, "-p", "nobody", "whoami"); r.code != 4 || !strings.Contains(r.err, "admin") {
		t.Errorf("a profile that isn't there: %+v", r)
	}
	if err := f.store().Save(f.Profile("dave", dave)); err != nil {
		t.Fatal(err)
	}
	if r := a3(t, "whoami"); r.code != 2 || !strings.Contains(r.err, "admin, dave") {
		t.Errorf("two profiles and none named: %+v", r)
	}
	if r := a3(t, "-p", "admin", "whoami"); r.code != 0 || !strings.Contains(r.out, admin) {
		t.Errorf("one named: %+v", r)
	}
	if r := a3(t, "__complete", "--profile", ""); !strings.HasPrefix(r.out, "admin\ndave\n") {
		t.Errorf("the shell is offered %q", r.out)
	}
	if r := a3(t, "-o", "json", "profile", "list"); strings.Contains(r.out, "refresh") || strings.Count(r.out, `"name"`) != 2 {
		t.Errorf("the list is %s", r.out)
	}
}

func TestSeveralPagesAreOneResponse(t *testing.T) {
	f := newFake(t)
	for i := range 1200 {
		f.users = append(f.users, &iamv1.User{Id: fmt.Sprint(i), Email: fmt.Sprintf("u%d@acme.example", i)})
	}
	r := a3(t, "-o", "json", "user", "list")
	all := &iamv1.ListUsersResponse{}
	if err := protojson.Unmarshal([]byte(r.out), all); err != nil || len(all.GetUsers()) != 1202 || all.GetNextPageToken() != "" {
		t.Fatalf("%d users, token %q, %v", len(all.GetUsers()), all.GetNextPageToken(), err)
	}
	if n := f.calls("ListUsers"); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
	r = a3(t, "-o", "json", "user", "list", "--limit", "700")
	if err := protojson.Unmarshal([]byte(r.out), all); err != nil || len(all.GetUsers()) != 700 || all.GetNextPageToken() != "after-700" {
		t.Errorf("%d users, token %q, %v", len(all.GetUsers()), all.GetNextPageToken(), err)
	}
	if r = a3(t, "user", "list", "--limit", "1"); !strings.Contains(r.err, "there are more") || strings.Count(r.out, "\n") != 2 {
		t.Errorf("a cut table: %+v", r)
	}
}

func TestEmptyListSaysSoOnStandardError(t *testing.T) {
	f := newFake(t)
	f.workspaces = nil
	if r := a3(t, "workspace", "list"); r.code != 0 || r.out != "" || !strings.Contains(r.err, "a3 workspace create") {
		t.Errorf("as a table: %+v", r)
	}
	if r := a3(t, "-o", "json", "workspace", "list"); r.code != 0 || !strings.Contains(r.out, `"workspaces": []`) {
		t.Errorf("as JSON: %+v", r)
	}
	if r := a3(t, "integration", "list"); r.code != 4 || !strings.Contains(r.err, "no workspace yet") {
		t.Errorf("in no workspace: %+v", r)
	}
}

func TestWorkspaceIsTheOnlyOneOrMustBeNamed(t *testing.T) {
	f := newFake(t)
	other := &iamv1.Workspace{Id: "wsp_01h455vb4pex5vsknk084sn02q", Name: "Finance", YourRole: iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER}
	f.workspaces = append(f.workspaces, other)
	f.Join(admin, other.GetId())
	if r := a3(t, "whoami"); r.code != 0 || strings.Contains(r.out, "wsp_") {
		t.Errorf("the tenant as a whole: %+v", r)
	}
	if r := a3(t, "integration", "list"); r.code != 2 || !strings.Contains(r.err, "operations, Finance") {
		t.Errorf("two and none named: %+v", r)
	}
	if r := a3(t, "-w", "finance", "whoami"); r.code != 0 || !strings.Contains(r.out, other.GetId()) {
		t.Errorf("one named: %+v", r)
	}
	if r := a3(t, "-w", "nope", "integration", "list"); r.code != 4 {
		t.Errorf("one that isn't there: %+v", r)
	}
}

func TestTextOfASystemCannotSteerTheTerminal(t *testing.T) {
	f := newFake(t)
	f.resources = []*discoveryv1.ResourceView{{Type: "user", ExternalId: "eve", DisplayName: "\x1b[2Jeve\u202eX\nroot"}}
	r := a3(t, "access", "list")
	if strings.ContainsAny(r.out, "\x1b\u202e") || !strings.Contains(r.out, `\x1b[2Jeve\u202eX\x0aroot`) {
		t.Errorf("shown: %q", r.out)
	}
}

func TestLoginKeepsAProfileThatWorks(t *testing.T) {
	f := newFake(t)
	r := a3With(t, t.Context(), "GOODGOODGOODGOOD\n", "--profile", "dave", "login", "--url", profiletest.URL, "--setup-code", "-")
	if r.code != 0 || !strings.Contains(r.out, `as profile "dave"`) {
		t.Fatalf("login: %+v", r)
	}
	p, err := f.store().Load("dave")
	if err != nil || p.CACert != f.CAFile || p.DialAddress != f.Address || p.Slug != "acme" || p.RefreshToken == "" {
		t.Errorf("the profile is %+v, %v", p, err)
	}
	token := a3(t, "-p", "dave", "token")
	if token.code != 0 || strings.Count(token.out, "\n") != 1 || token.err != "" {
		t.Fatalf("token: %+v", token)
	}
	if g, ok := f.Caller(map[string][]string{"Authorization": {"Bearer " + strings.TrimSpace(token.out)}}); !ok || g.Subject != dave {
		t.Errorf("the token is %+v's", g)
	}
	if r := a3(t, "--profile", "eve", "login", "--url", profiletest.URL, "--setup-code", "BADBADBADBADBAD!"); r.code != 3 {
		t.Errorf("with a bad code: %+v", r)
	}
	if _, err := f.store().Load("eve"); err == nil {
		t.Error("a bad code left a profile")
	}
}

func TestCreatingCallsCarryAKeyThatLetsThemBeRepeated(t *testing.T) {
	f := newFake(t)
	for _, args := range [][]string{{}, {}, {"--idempotency-key", "mine"}} {
		if r := a3(t, append([]string{"workspace", "create", "payroll"}, args...)...); r.code != 0 {
			t.Fatalf("%q: %+v", args, r)
		}
	}
	if k := f.keys; len(k) != 3 || len(k[0]) < 20 || k[0] == k[1] || k[2] != "mine" {
		t.Errorf("the keys are %q", k)
	}
	f.refuse["CreateWorkspace"] = fault.New(fault.Unavailable, "away")
	r := a3(t, "workspace", "create", "payroll")
	if r.code != 1 || !strings.Contains(r.err, "--idempotency-key "+f.keys[3]) {
		t.Errorf("when it isn't known whether it was done: %+v", r)
	}
	f.refuse["CreateWorkspace"] = fault.ErrUnchanged.With("the database takes no writes now; nothing was changed")
	if r := a3(t, "workspace", "create", "payroll"); r.code != 1 || !strings.Contains(r.err, "nothing was changed") || strings.Contains(r.err, "not known") {
		t.Errorf("when it is known that it was not done: %+v", r)
	}
}

func TestTransferNamesTheOwnerItBelievesIn(t *testing.T) {
	f := newFake(t)
	r := a3(t, "workspace", "transfer", "operations", "--to", "dave@acme.example", "--reason", "Dave takes over from here")
	q := last[iamv1.TransferWorkspaceOwnerRequest](t, f, "TransferWorkspaceOwner")
	if r.code != 0 || q.GetWorkspaceId() != workspace || q.GetExpectedOwnerUserId() != admin || q.GetToUserId() != dave || q.GetReason() != "Dave takes over from here" {
		t.Errorf("%+v, asked %v", r, q)
	}
	for _, words := range []string{"xfr_1", "dave@acme.example", "admin@acme.example"} {
		if !strings.Contains(r.out, words) {
			t.Errorf("%q is not in %q", words, r.out)
		}
	}
	if r := a3(t, "workspace", "transfer", "operations", "--to", "nobody@acme.example", "--reason", "Dave takes over from here"); r.code != 4 || f.calls("TransferWorkspaceOwner") != 1 {
		t.Errorf("to nobody: %+v", r)
	}
}

func TestPrivateKeyStaysWhereItWasMade(t *testing.T) {
	f := newFake(t)
	file := filepath.Join(t.TempDir(), "ci.pem")
	if r := a3(t, "service-account", "create", "ci", "--key-out", file); r.code != 0 {
		t.Fatalf("create: %+v", r)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key file: %v, %v", info, err)
	}
	key, err := profile.ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(last[iamv1.CreateServiceAccountRequest](t, f, "CreateServiceAccount").GetPublicKeyPem()))
	if public, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || !key.PublicKey.Equal(public) {
		t.Errorf("another key was registered (%v)", err)
	}
	if r := a3(t, "service-account", "create", "ci", "--key-out", file); r.code != 2 || f.calls("CreateServiceAccount") != 1 {
		t.Errorf("over a key that exists: %+v", r)
	}
	f.refuse["CreateServiceAccount"] = fault.New(fault.AlreadyExists, "exists")
	other := filepath.Join(t.TempDir(), "other.pem")
	if r := a3(t, "service-account", "create", "ci", "--key-out", other); r.code != 1 {
		t.Errorf("refused: %+v", r)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a key that was refused is still there")
	}
}

func TestSecretIsReadFromAFileOrStandardInput(t *testing.T) {
	f := newFake(t)
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte("pass word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := []string{"integration", "add", "shop", "postgres", "--host", "db.acme.example", "--user", "reader", "--schedule", "6h"}
	for _, args := range [][]string{{"--secret-file", file}, {"--secret-stdin"}} {
		r := a3With(t, t.Context(), "pass word\r\n", append(base, args...)...)
		q := last[integrationsv1.CreateIntegrationRequest](t, f, "CreateIntegration")
		if r.code != 0 || q.GetSecret() != "pass word" || q.GetSchedule().AsDuration() != 6*time.Hour || q.GetSettings().GetPostgres().GetSslMode() != "verify-full" {
			t.Errorf("%q: %+v, asked %v", args, r, q)
		}
		if strings.Contains(r.out+r.err, "pass word") {
			t.Errorf("the secret is shown: %+v", r)
		}
	}
}

func TestUploadThatIsRefusedTakesTheIntegrationBack(t *testing.T) {
	f := newFake(t)
	file := filepath.Join(t.TempDir(), "people.csv")
	if err := os.WriteFile(file, []byte("Id,Mail\n1,a@acme.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"integration", "add", "hr", "csv", "--system", "HR", "--file", file, "--column", "Id=account_id", "--column", "Mail=email"}
	if r := a3(t, args...); r.code != 0 || !strings.Contains(r.out, "25 bytes") {
		t.Fatalf("a good file: %+v", r)
	}
	f.refuse["UploadContent"] = fault.New(fault.InvalidArgument, "line 2: the account id is empty")
	if r := a3(t, args...); r.code != 2 || !strings.Contains(r.err, "line 2") || len(f.integrations) != 1 {
		t.Errorf("a bad file: %+v, %d integrations", r, len(f.integrations))
	}
}

func TestAWrongFileIsNamedByLineBeforeAnythingIsMadeOrChanged(t *testing.T) {
	f := newFake(t)
	file := filepath.Join(t.TempDir(), "people.csv")
	if err := os.WriteFile(file, []byte("Id,Mail\n1,nonsense\n2,b@acme.example\n,c@acme.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.integrations = []*integrationsv1.Integration{{Id: "int_1", Name: "hr"}}
	want := "a3: " + file + ": 2 rows of the upload are wrong and nothing was taken: mend them and upload it again\n" +
		"  line 2: the email \"nonsense\" is no address\n  line 4: the account id is empty\n"
	for _, more := range [][]string{nil, {"--replace"}} {
		args := append([]string{"integration", "add", "hr", "csv", "--system", "HR", "--file", file, "--column", "Id=account_id", "--column", "Mail=email"}, more...)
		if r := a3(t, args...); r.code != 2 || r.err != want || r.out != "" {
			t.Errorf("%v: %+v", more, r)
		}
	}
	for _, name := range []string{"CreateIntegration", "UpdateIntegration", "UploadContent"} {
		if n := f.calls(name); n != 0 {
			t.Errorf("%s was asked %d times", name, n)
		}
	}
}

func run(state integrationsv1.RunState, grants int64) *discoveryv1.Run {
	return &discoveryv1.Run{Id: "run_1", IntegrationName: "shop", State: state, Counts: &discoveryv1.Counts{Grants: grants, Resources: grants}, Error: "the server is away"}
}

func discovering(t *testing.T) *fake {
	t.Helper()
	f := newFake(t)
	f.integrations = []*integrationsv1.Integration{{Id: "int_1", Name: "shop"}}
	f.answers["StartRun"] = run(integrationsv1.RunState_RUN_STATE_QUEUED, 0)
	return f
}

func TestRunPrintsItsIdAndNothingElse(t *testing.T) {
	discovering(t)
	if r := a3(t, "discovery", "run", "shop"); r.code != 0 || r.out != "run_1\n" || r.err != "" {
		t.Errorf("got %+v", r)
	}
	if r := a3(t, "discovery", "run", "nope"); r.code != 4 {
		t.Errorf("of an integration that isn't there: %+v", r)
	}
}

func TestWatchingGoesOnWhenTheStreamIsCut(t *testing.T) {
	f := discovering(t)
	streams := 0
	f.watch = func(send func(*discoveryv1.Run) error) error {
		if streams++; streams == 1 {
			return send(run(integrationsv1.RunState_RUN_STATE_RUNNING, 10))
		}
		return send(run(integrationsv1.RunState_RUN_STATE_COMPLETE, 20))
	}
	r := a3(t, "discovery", "run", "shop", "--watch")
	if r.code != 0 || streams != 2 || !strings.Contains(r.err, "running · 0 accounts · 10 grants") || !strings.Contains(r.out, "complete") {
		t.Errorf("after %d streams: %+v", streams, r)
	}
	f.watch = func(send func(*discoveryv1.Run) error) error {
		return send(run(integrationsv1.RunState_RUN_STATE_FAILED, 0))
	}
	if r := a3(t, "discovery", "run", "shop", "--watch"); r.code != 1 || !strings.Contains(r.err, "the server is away") {
		t.Errorf("a run that fails: %+v", r)
	}
}

func TestInterruptStopsTheWatchingAndNotTheRun(t *testing.T) {
	f := discovering(t)
	ctx, interrupt := context.WithCancel(t.Context())
	f.watch = func(send func(*discoveryv1.Run) error) error {
		if err := send(run(integrationsv1.RunState_RUN_STATE_RUNNING, 10)); err != nil {
			return err
		}
		interrupt()
		<-ctx.Done()
		return nil
	}
	r := a3With(t, ctx, "", "discovery", "run", "shop", "--watch")
	if r.code != 1 || !strings.Contains(r.err, "the run goes on") || f.calls("CancelRun") != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestReplaceKeepsTheSecretThatIsNotGivenAnew(t *testing.T) {
	f := newFake(t)
	base := []string{"integration", "add", "shop", "postgres", "--host", "db.acme.example", "--user", "reader"}
	if r := a3With(t, t.Context(), "one", append(base, "--secret-stdin")...); r.code != 0 {
		t.Fatalf("add: %+v", r)
	}
	f.integrations[0].Version = 7
	if r := a3(t, append(base, "--replace", "--port", "6432")...); r.code != 0 {
		t.Fatalf("replace: %+v", r)
	}
	q := last[integrationsv1.UpdateIntegrationRequest](t, f, "UpdateIntegration")
	if q.Secret != nil || q.GetVersion() != 7 || q.GetSettings().GetPostgres().GetPort() != 6432 {
		t.Errorf("asked %v", q)
	}
	if r := a3With(t, t.Context(), "two", append(base, "--replace", "--secret-stdin")...); r.code != 0 {
		t.Fatalf("replace the secret: %+v", r)
	}
	if q := last[integrationsv1.UpdateIntegrationRequest](t, f, "UpdateIntegration"); q.GetSecret() != "two" {
		t.Errorf("asked %v", q)
	}
	base[2] = "nope"
	if r := a3(t, append(base, "--replace")...); r.code != 4 {
		t.Errorf("one that isn't there: %+v", r)
	}
}
