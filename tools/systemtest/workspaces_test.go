package systemtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"

	"a3os.app/libs/queue"
)

// office is a workspace with something in it: an owner, a member, an integration and what a run of it found.
type office struct {
	owner, member *person
	workspace     *iamv1.Workspace
	integration   *integrationsv1.Integration
	run           *discoveryv1.Run
	things        things
	// account is what the discovered system calls the principal.
	account string
}

func newOffice(t *testing.T, x *tenant) *office {
	t.Helper()
	o := &office{owner: x.invite(t), member: x.invite(t)}
	o.workspace = x.workspace(t, o.owner)
	o.member.join(t, o.owner, o.workspace.GetId(), iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER)
	app := name("app")
	o.integration = o.owner.upload(t, o.workspace.GetId(), "account,email,app,right\n"+
		name("account")+","+name("mail")+"@example.com,"+app+",admin\n"+name("account")+",,"+app+",viewer\n")
	o.run = o.owner.discover(t, o.workspace.GetId(), o.integration.GetId())
	access := client(o.owner, o.workspace.GetId(), discoveryv1connect.NewAccessServiceClient)
	found := ask(t, access.ListResources, &discoveryv1.ListResourcesRequest{})
	o.things = things{
		"wsp": o.workspace.GetId(), "usr": o.member.id, "int": o.integration.GetId(), "run": o.run.GetId(),
		"target": o.integration.GetId(), "actor": o.owner.id, "search": app,
		"expected_owner_user_id": o.owner.id, "svc": x.serviceAccount(t),
	}
	for _, r := range found.GetResources() {
		if r.GetAccount() {
			o.things["principal"], o.account = r.GetId(), r.GetExternalId()
		} else {
			o.things["resource"] = r.GetId()
		}
	}
	o.things["evt"] = o.event(t)
	job := x.plant(t, queue.Message{Envelope: []byte("no envelope"), Payload: []byte("of nobody")})
	o.things["dlt"] = x.awaitLetters(t, job)[job[0]].GetId()
	o.settle(t)
	if o.things["principal"] == "" || o.things["resource"] == "" {
		t.Fatalf("the run found no account, or no app: %v", found)
	}
	return o
}

// serviceAccount makes a service account without a role.
func (x *tenant) serviceAccount(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, client(x.admin(t), "", iamv1connect.NewServiceAccountWriteServiceClient).CreateServiceAccount, &iamv1.CreateServiceAccountRequest{
		Name: name("robot"), PublicKeyPem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}).GetId()
}

// settle waits until the run is told of everywhere, so that nothing of the office changes any more by itself.
func (o *office) settle(t *testing.T) {
	t.Helper()
	within(t, time.Minute, func() error {
		o.integration = current(t, o.owner, o.workspace.GetId(), o.integration.GetId())
		if last := o.integration.GetLastRun(); last.GetRunId() != o.run.GetId() || last.GetState() != o.run.GetState() {
			return fmt.Errorf("integrations says of the last run %v", last)
		}
		return nil
	})
}

// event is one that happened in the workspace, when it is sealed.
func (o *office) event(t *testing.T) string {
	t.Helper()
	const most = 20 * time.Second
	var found string
	audit := client(o.owner, o.workspace.GetId(), auditv1connect.NewAuditServiceClient)
	within(t, most, func() error {
		events := ask(t, audit.ListEvents, &auditv1.ListEventsRequest{Target: o.integration.GetId()}).GetEvents()
		if len(events) == 0 {
			return errors.New("the integration's creation is not on the record")
		}
		found = events[0].GetEvent().GetId()
		return nil
	})
	return found
}

// discover runs an integration and answers how the run ended, which has to be well.
func (w *person) discover(t testing.TB, workspace, integration string) *discoveryv1.Run {
	t.Helper()
	// Not while a test has a database that hardly anybody may connect to, on the server that others discover.
	hidden.RLock()
	defer hidden.RUnlock()
	run := w.discoverAnyhow(t, workspace, integration)
	if run.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
		t.Fatalf("the run ended as %s: %s %v", run.GetState(), run.GetError(), run.GetGaps())
	}
	return run
}

// hidden is held by who makes a database on the sample company's server that no other test's reader may connect to: of each run there a part is
// missing then.
var hidden sync.RWMutex

// logins is held for reading by who has a role on the sample company's server that may log in, for as long as it is there, and for writing by
// who asks that server which roles may: what everybody may see there each of them sees. It is taken before hidden, and once by a test.
var logins sync.RWMutex

func (w *person) discoverAnyhow(t testing.TB, workspace, integration string) *discoveryv1.Run {
	t.Helper()
	run := ask(t, client(w, workspace, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: integration})
	return w.await(t, workspace, run.GetId())
}

// isUntouched sees that nothing of the office changed.
func (o *office) isUntouched(t *testing.T) {
	t.Helper()
	integrations := client(o.owner, o.workspace.GetId(), integrationsv1connect.NewIntegrationServiceClient)
	now := ask(t, integrations.GetIntegration, &integrationsv1.GetIntegrationRequest{IntegrationId: o.integration.GetId()})
	if !proto.Equal(now, o.integration) {
		t.Errorf("the integration was %v and is %v", o.integration, now)
	}
	runs := ask(t, client(o.owner, o.workspace.GetId(), discoveryv1connect.NewRunServiceClient).ListRuns, &discoveryv1.ListRunsRequest{})
	if len(runs.GetRuns()) != 1 || !proto.Equal(runs.GetRuns()[0], o.run) {
		t.Errorf("the runs were %v and are %v", o.run, runs.GetRuns())
	}
	members := ask(t, client(o.owner, o.workspace.GetId(), iamv1connect.NewMemberServiceClient).ListMembers, &iamv1.ListMembersRequest{})
	if len(members.GetMembers()) != 2 {
		t.Errorf("the members are %v", members.GetMembers())
	}
}

func TestMemberSeesOnlyItsWorkspace(t *testing.T) {
	t.Parallel()
	b := newOffice(t, acme())
	a := newOffice(t, acme())
	theirs := []string{b.workspace.GetName(), b.owner.email, b.member.email, b.integration.GetName(), b.owner.id}
	for k, v := range b.things {
		if k != "actor" {
			theirs = append(theirs, v)
		}
	}
	member := acme().plane.as(t, acme(), "acme-member")
	own := ask(t, client(member, "", iamv1connect.NewWorkspaceServiceClient).ListWorkspaces, &iamv1.ListWorkspacesRequest{}).GetWorkspaces()
	if len(own) != 1 || own[0].GetYourRole() != iamv1.WorkspaceRole_WORKSPACE_ROLE_MEMBER {
		t.Fatalf("acme-member is a member of one workspace and nothing else, and sees %v", own)
	}
	for who, as := range map[string]struct {
		person    *person
		workspace string
		things    things
	}{
		"acme-member": {member, own[0].GetId(), a.things}, "an owner": {a.owner, a.workspace.GetId(), a.things}, "a member": {a.member, a.workspace.GetId(), a.things},
	} {
		for _, workspace := range []string{as.workspace, ""} {
			c := through(t, acme()).bearer(as.person.token(t, workspace))
			for _, m := range methods(t) {
				if !strings.HasPrefix(string(m.Name()), "List") && !strings.HasPrefix(string(m.Name()), "Get") {
					continue
				}
				r := c.call(t, m, request(t, m, as.things))
				for _, v := range theirs {
					if strings.Contains(r.body+r.message, v) {
						t.Errorf("%s learns %q from %s: %s", who, v, m.path(), r.body)
					}
				}
			}
		}
	}
}

// Row W25, and pages: what a list of another workspace left off is nothing to go on from.
func TestPageTokenOfAnotherWorkspaceIsRefused(t *testing.T) {
	t.Parallel()
	a, b := newOffice(t, acme()), newOffice(t, acme())
	mine, theirs := through(t, acme()).bearer(a.owner.token(t, a.workspace.GetId())), through(t, acme()).bearer(b.owner.token(t, b.workspace.GetId()))
	pages := 0
	for _, m := range methods(t) {
		size, next := m.Input().Fields().ByName("page_size"), m.Input().Fields().ByName("page_token")
		if m.rule.GetPermission() == "" || size == nil || next == nil || m.streams() {
			continue
		}
		first := request(t, m, b.things.only("resource", "principal", "run"))
		first.Set(size, protoreflect.ValueOfInt32(1))
		token := between(theirs.call(t, m, first).body, `"nextPageToken":`)
		if token == "" {
			continue
		}
		pages++
		for _, t2 := range []struct {
			name string
			by   caller
			want bool
		}{{"its own", theirs, true}, {"another's", mine, false}} {
			second := request(t, m, b.things.only("resource", "principal", "run"))
			if !t2.want {
				second = request(t, m, a.things.only("resource", "principal", "run"))
			}
			second.Set(size, protoreflect.ValueOfInt32(1))
			second.Set(next, protoreflect.ValueOfString(token))
			r := t2.by.call(t, m, second)
			if ok := r.code == ""; ok != t2.want || !ok && r.code != "invalid_argument" {
				t.Errorf("%s with the page token of %s workspace: %s", m.path(), t2.name, r)
			}
		}
	}
	const atLeast = 3
	if pages < atLeast {
		t.Errorf("only %d lists had a second page", pages)
	}
	held(t, pages, "W25")
}

// only are some of the things.
func (known things) only(names ...string) things {
	out := things{}
	for k, v := range known {
		if slices.Contains(names, k) {
			out[k] = v
		}
	}
	return out
}

// between is the JSON string that follows a name.
func between(body, name string) string {
	_, rest, _ := strings.Cut(body, name)
	_, rest, _ = strings.Cut(rest, `"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func TestTokenForAnotherWorkspaceIsRefusedLikeOneForNone(t *testing.T) {
	t.Parallel()
	a, b := newOffice(t, acme()), newOffice(t, acme())
	token := a.owner.token(t, "")
	try := func(workspace string) string {
		res, err := acme().client(t).PostForm(acme().url+"/oauth2/token", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "resource": {"urn:a3os:workspace:" + workspace},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(res.StatusCode, " ", string(body))
	}
	if mine := try(a.workspace.GetId()); !strings.HasPrefix(mine, "200 ") {
		t.Errorf("a token for one's own workspace: %s", mine)
	}
	foreign, never := try(b.workspace.GetId()), try(neverWas(b.workspace.GetId()))
	if foreign != never || strings.HasPrefix(foreign, "200") {
		t.Errorf("a token for another workspace is refused as %s, for one that never was as %s", foreign, never)
	}
}
