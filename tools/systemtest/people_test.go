package systemtest

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
	"a3os.app/libs/rpc/rpcclient"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
	"a3os.app/tools/internal/profile"
)

// tenant is a tenant of a plane, as somebody outside of it knows it.
type tenant struct {
	plane         *plane
	id, slug, url string
	// addresses are where its services listen, by component.
	addresses map[string]string

	once, opened sync.Once
	first        *person
	visitor      *http.Client
}

// acme and globex are the shared plane's tenants.
func acme() *tenant   { return shared.tenants["acme"] }
func globex() *tenant { return shared.tenants["globex"] }

// person is somebody who is signed in at a tenant.
type person struct {
	tenant    *tenant
	id, email string
	store     profile.Store
	profile   string
	session   *profile.Session
}

// as is a person by the profile that `plane up` left.
func (p *plane) as(t testing.TB, x *tenant, name string) *person {
	t.Helper()
	session, err := p.store().Open(name)
	if err != nil {
		t.Fatal(err)
	}
	w := &person{tenant: x, store: p.store(), profile: name, session: session}
	self := ask(t, client(w, "", iamv1connect.NewIdentityServiceClient).GetSelf, &iamv1.GetSelfRequest{})
	w.id, w.email = self.GetPrincipalId(), self.GetDisplayName()
	return w
}

// admin is the tenant's first admin.
func (x *tenant) admin(t testing.TB) *person {
	t.Helper()
	x.once.Do(func() { x.first = x.plane.as(t, x, x.slug+"-admin") })
	if x.first == nil {
		t.Fatalf("nobody is signed in as %s-admin", x.slug)
	}
	return x.first
}

// client is an HTTP client that reaches the tenant's host and presents nothing. The tenant need not answer.
func (x *tenant) client(t testing.TB) *http.Client {
	t.Helper()
	x.opened.Do(func() {
		session, err := x.plane.store().Open(x.slug + "-admin")
		if err != nil {
			t.Error(err)
			return
		}
		x.visitor = session.Client()
	})
	if x.visitor == nil {
		t.Fatalf("there is no way to the host of %s", x.slug)
	}
	return x.visitor
}

// name is a name that nobody else has.
func name(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:10]) }

// invite makes a new user and signs them in.
func (x *tenant) invite(t testing.TB) *person {
	t.Helper()
	return x.person(t, iamv1.TenantRole_TENANT_ROLE_UNSPECIFIED)
}

// person is invite, with a role across the tenant.
func (x *tenant) person(t testing.TB, role iamv1.TenantRole) *person {
	t.Helper()
	who := name("person")
	users := client(x.admin(t), "", iamv1connect.NewUserWriteServiceClient)
	invited := ask(t, users.InviteUser, &iamv1.InviteUserRequest{Email: who + "@example.com", DisplayName: who, TenantRole: role})
	p, err := x.admin(t).session.Profile()
	if err != nil {
		t.Fatal(err)
	}
	setup := rpcclient.ToTenant(x.newcomer(t), x.url, func(context.Context) (string, error) { return "", nil }, iamv1connect.NewSetupServiceClient)
	redeemed := ask(t, setup.RedeemSetupCode, &iamv1.RedeemSetupCodeRequest{Code: invited.GetSetupCode()})
	store := profile.Store{Dir: t.TempDir()}
	err = store.Save(&profile.Profile{Name: who, URL: p.URL, CACert: x.plane.store().Path(p.CACert), DialAddress: p.DialAddress, RefreshToken: redeemed.GetRefreshToken()})
	if err != nil {
		t.Fatal(err)
	}
	session, err := store.Open(who)
	if err != nil {
		t.Fatal(err)
	}
	return &person{tenant: x, id: invited.GetUser().GetId(), email: invited.GetUser().GetEmail(), store: store, profile: who, session: session}
}

// newcomer is an HTTP client with a loopback address of its own: codes that are tried from one address are limited.
func (x *tenant) newcomer(t testing.TB) *http.Client {
	t.Helper()
	tlsConfig := x.client(t).Transport.(*http.Transport).TLSClientConfig.Clone()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(1+mathrand.IntN(200)), byte(mathrand.IntN(200)), byte(1+mathrand.IntN(200)))}}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: tlsConfig, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, x.plane.address())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// token is an access token of the person: of the tenant, or of a workspace.
func (w *person) token(t testing.TB, workspace string) string {
	t.Helper()
	token, err := w.session.Token(t.Context(), workspace)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// anew is an access token got just now, whatever is still kept; an error where none is given.
func (w *person) anew(t testing.TB, workspace string) (string, error) {
	t.Helper()
	err := w.store.Update(t.Context(), w.profile, func(p *profile.Profile) error {
		p.Access = nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.session.Token(t.Context(), workspace)
}

// client makes a client of the tenant's API that acts as a person, in the tenant or in a workspace.
func client[C any](w *person, workspace string, newClient func(connect.HTTPClient, string, ...connect.ClientOption) C) C {
	return rpcclient.ToTenant(w.session.API(workspace), w.tenant.url, w.session.TokenFor(workspace), newClient)
}

// method is a unary method of a generated client.
type method[Q, S any] = func(context.Context, *connect.Request[Q]) (*connect.Response[S], error)

// ask calls a method and fails the test where it is refused.
func ask[Q, S any](t testing.TB, m method[Q, S], msg *Q) *S {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	res, err := m(ctx, connect.NewRequest(msg))
	if err != nil {
		t.Fatalf("%T: %v", msg, err)
	}
	return res.Msg
}

// try calls a method.
func try[Q, S any](t testing.TB, m method[Q, S], msg *Q) (*S, error) {
	t.Helper()
	res, err := m(t.Context(), connect.NewRequest(msg))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// refused calls a method that has to be refused in a kind, and answers the message.
func refused[Q, S any](t testing.TB, kind fault.Kind, m method[Q, S], msg *Q) string {
	t.Helper()
	res, err := try(t, m, msg)
	if err == nil {
		t.Fatalf("%T was not refused: %v", msg, res)
	}
	if got := fault.KindOf(err); got != kind {
		t.Fatalf("%T was refused as %s and not as %s: %v", msg, got, kind, err)
	}
	return err.Error()
}

// workspace makes a workspace that somebody owns.
func (x *tenant) workspace(t testing.TB, owner *person) *iamv1.Workspace {
	t.Helper()
	return ask(t, client(x.admin(t), "", iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace,
		&iamv1.CreateWorkspaceRequest{Name: name("workspace"), OwnerUserId: owner.id})
}

// join lets somebody into a workspace of an owner's.
func (w *person) join(t testing.TB, owner *person, workspace string, role iamv1.WorkspaceRole) {
	t.Helper()
	ask(t, client(owner, workspace, iamv1connect.NewMemberWriteServiceClient).AddMember, &iamv1.AddMemberRequest{Principal: w.id, Role: role})
}

// csv are settings of an upload with the columns account, email, app and right.
func csvSettings() *integrationsv1.Settings {
	return &integrationsv1.Settings{Connector: &integrationsv1.Settings_Csv{Csv: &integrationsv1.CsvSettings{SystemName: "apps", Columns: []*integrationsv1.CsvColumn{
		{Header: "account", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID}, {Header: "email", Field: integrationsv1.CsvField_CSV_FIELD_EMAIL},
		{Header: "app", Field: integrationsv1.CsvField_CSV_FIELD_RESOURCE}, {Header: "right", Field: integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT},
	}}}}
}

// uploads makes an integration that takes a CSV's content.
func (w *person) uploads(t testing.TB, workspace string) *integrationsv1.Integration {
	t.Helper()
	return ask(t, client(w, workspace, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration,
		&integrationsv1.CreateIntegrationRequest{Name: name("upload"), Settings: csvSettings()})
}

// upload makes an integration of a CSV's content.
func (w *person) upload(t testing.TB, workspace, content string) *integrationsv1.Integration {
	t.Helper()
	made := w.uploads(t, workspace)
	c := client(w, workspace, integrationsv1connect.NewIntegrationWriteServiceClient)
	return ask(t, c.UploadContent, &integrationsv1.UploadContentRequest{IntegrationId: made.GetId(), Content: []byte(content)})
}

// await watches a run to its end.
func (w *person) await(t testing.TB, workspace, run string) *discoveryv1.Run {
	t.Helper()
	const most = 3 * time.Minute
	var last *discoveryv1.Run
	runs := client(w, workspace, discoveryv1connect.NewRunServiceClient)
	within(t, most, func() error {
		last = ask(t, runs.GetRun, &discoveryv1.GetRunRequest{RunId: run})
		if last.GetFinishedAt() == nil {
			return fmt.Errorf("the run is %s: %s", last.GetState(), last.GetProgress())
		}
		return nil
	})
	return last
}
