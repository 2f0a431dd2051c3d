package iam_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/licencetest"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/rpc"
	"a3os.app/libs/rpc/rpcclient"
	"a3os.app/libs/set"
	"a3os.app/libs/workload"

	"a3os.app/services/iam"
	"a3os.app/services/iam/internal/iamtest"
	"a3os.app/services/iam/internal/setup"
)

const (
	bootstrapCode = "THEPLATFORMMADETHISCODE234"
	issuerURL     = "https://acme.localhost:7443"
)

// place is what a running iam stands in: its tenant's authority, its database, and who calls.
type place struct {
	*testing.T
	cfg     iam.Config
	db      *pgtest.Database
	issuing workload.Authority
	trust   workload.Trust
	roots   *x509.CertPool
	http    *http.Client
	stop    context.CancelFunc
	done    chan error
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// must takes a call's two results and fails the test on an error.
func must[V any](v V, err error) func(t *testing.T) V {
	return func(t *testing.T) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// run starts iam as its process does, and waits until it serves.
func run(t *testing.T) *place {
	t.Helper()
	p := &place{T: t, done: make(chan error, 1)}
	tenant := id.NewTenant()
	domain, plane := workload.TrustDomain{Plane: "dev", Tenant: tenant}, workload.TrustDomain{Plane: "dev"}
	root := must(workload.NewRoot(domain, time.Now()))(t)
	planeRoot := must(workload.NewRoot(plane, time.Now()))(t)
	p.issuing = must(root.NewIntermediate(time.Now()))(t)
	intermediate := filepath.Join(t.TempDir(), "intermediate.pem")
	if err := p.issuing.Save(intermediate); err != nil {
		t.Fatal(err)
	}
	p.roots = must(workload.ParseRoots(domain, root.CertificatePEM()))(t)
	p.trust = workload.Trust{Plane: "dev", Tenant: tenant, TenantRoots: p.roots}
	var urls map[string]string
	p.db, urls = iamtest.Database(t)
	bindingtest.Mark(t, p.db.URL, tenant, "")
	licencetest.Install(t, p.db.URL, licencetest.Whole(tenant, 1))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	address := listener.Addr().String()
	_ = listener.Close()
	kek := make([]byte, 32)
	_, _ = rand.Read(kek)
	p.cfg = iam.Config{
		Set: set.Config{
			Plane: "dev", Tenant: tenant, Listen: address, Certificates: p.keypair("iam"), Issuer: issuerURL, LogLevel: "error",
			MarkKeys: bindingtest.Keys(t), LicenceKeys: licencetest.Keys(), TenantRoots: write(t, "tenant.pem", root.CertificatePEM()), PlaneRoots: write(t, "plane.pem", planeRoot.CertificatePEM()),
			Peers: map[string]string{"iam": address},
		},
		DatabaseURL: config.NewSecret(urls["role_iam"]), TenantDatabaseURL: config.NewSecret(urls["role_iam_tenant"]),
		TenantSlug: "acme", KEK: config.NewSecret(base64.StdEncoding.EncodeToString(kek)), Intermediate: intermediate,
		BootstrapEmail: "admin@example.com", BootstrapCodeHash: hex.EncodeToString(setup.Hash(bootstrapCode)),
	}
	ctx, stop := context.WithCancel(t.Context())
	p.stop = stop
	go func() { p.done <- iam.Run(ctx, p.cfg) }()
	t.Cleanup(stop)
	p.http = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: p.roots, ServerName: p.identity("iam").ServerName(), MinVersion: tls.VersionTLS13}}}
	t.Cleanup(p.http.CloseIdleConnections)
	for {
		res, err := p.http.Get(p.url("/oauth2/keys"))
		if err == nil {
			_ = res.Body.Close()
			return p
		}
		select {
		case err := <-p.done:
			t.Fatalf("iam ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *place) url(path string) string { return "https://" + p.cfg.Set.Listen + path }

func (p *place) identity(service string) workload.Identity {
	return workload.Identity{Plane: "dev", Tenant: p.trust.Tenant, Service: service}
}

func (p *place) keypair(service string) string {
	p.Helper()
	pair := must(p.issuing.IssueKeypair(p.identity(service), time.Now()))(p.T)
	dir := p.TempDir()
	if err := pair.Save(dir); err != nil {
		p.Fatal(err)
	}
	return dir
}

func (p *place) transport(service string) *workload.Transport {
	p.Helper()
	source := must(workload.OpenSource(p.keypair(service), p.identity(service)))(p.T)
	return must(workload.NewTransport(workload.TransportConfig{
		Source: source, Anchors: p.trust, Resolver: workload.Addresses{p.identity("iam"): p.cfg.Set.Listen},
	}))(p.T)
}

func (p *place) post(path string, form url.Values) (out struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Error        string `json:"error"`
}) {
	p.Helper()
	res := must(p.http.PostForm(p.url(path), form))(p.T)
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		p.Fatalf("%s answered %s: %v", path, res.Status, err)
	}
	return out
}

// signIn redeems a setup code and answers the tenant-wide access token.
func (p *place) signIn(code string) string {
	p.Helper()
	anyone := as(p, "", iamv1connect.NewSetupServiceClient)
	res := must(anyone.RedeemSetupCode(p.Context(), connect.NewRequest(&iamv1.RedeemSetupCodeRequest{Code: code})))(p.T)
	return p.post("/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {res.Msg.GetRefreshToken()}}).AccessToken
}

func (p *place) exchange(token, workspace string) string {
	p.Helper()
	out := p.post("/oauth2/token", url.Values{
		"grant_type": {iamtest.TokenExchange}, "subject_token": {token}, "subject_token_type": {iamtest.AccessToken}, "workspace": {workspace},
	})
	if out.AccessToken == "" {
		p.Fatalf("exchange: %+v", out)
	}
	return out.AccessToken
}

// as is a client that presents a token.
func as[C any](p *place, token string, newClient func(connect.HTTPClient, string, ...connect.ClientOption) C) C {
	return rpcclient.ToTenant(p.http, p.url(""), func(context.Context) (string, error) { return token, nil }, newClient)
}

func keyed[M any](m *M, key string) *connect.Request[M] {
	req := connect.NewRequest(m)
	req.Header().Set("Idempotency-Key", key)
	return req
}

func TestTenantFromItsFirstAdminToARemovedMember(t *testing.T) {
	p := run(t)
	ctx := t.Context()
	admin := p.signIn(bootstrapCode)

	self := must(as(p, admin, iamv1connect.NewIdentityServiceClient).GetSelf(ctx, connect.NewRequest(&iamv1.GetSelfRequest{})))(t).Msg
	if self.GetDisplayName() != "admin@example.com" || self.GetTenantSlug() != "acme" || self.GetTenantId() != p.trust.Tenant.String() || self.GetPlane() != "dev" {
		t.Errorf("the admin is %v", self)
	}
	if left := time.Until(self.GetExpiresAt().AsTime()); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("the token expires in %s", left)
	}

	// The same key answers the first result, without its secret; another request under it is refused.
	users := as(p, admin, iamv1connect.NewUserWriteServiceClient)
	ada := &iamv1.InviteUserRequest{Email: "ada@example.com", DisplayName: "Ada"}
	first := must(users.InviteUser(ctx, keyed(ada, "k1")))(t).Msg
	again := must(users.InviteUser(ctx, keyed(ada, "k1")))(t).Msg
	if first.GetSetupCode() == "" || again.GetSetupCode() != "" || again.GetUser().GetId() != first.GetUser().GetId() {
		t.Errorf("first %v, again %v", first, again)
	}
	if _, err := users.InviteUser(ctx, keyed(&iamv1.InviteUserRequest{Email: "bob@example.com", DisplayName: "Bob"}, "k1")); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("the key for another request: %v", err)
	}

	ws := must(as(p, admin, iamv1connect.NewWorkspaceWriteServiceClient).CreateWorkspace(ctx, keyed(&iamv1.CreateWorkspaceRequest{Name: "Research"}, "w1")))(t).Msg
	inside := p.exchange(admin, ws.GetId())
	members := as(p, inside, iamv1connect.NewMemberWriteServiceClient)
	must(members.AddMember(ctx, connect.NewRequest(&iamv1.AddMemberRequest{Principal: "ada@example.com", Role: iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER})))(t)

	adaWide := p.signIn(first.GetSetupCode())
	adaToken := p.exchange(adaWide, ws.GetId())
	reads := as(p, adaToken, iamv1connect.NewMemberServiceClient)
	list := must(reads.ListMembers(ctx, connect.NewRequest(&iamv1.ListMembersRequest{})))(t).Msg
	if len(list.GetMembers()) != 2 {
		t.Errorf("members are %v", list)
	}
	for name, call := range map[string]func() error{
		"a viewer adds a member": func() error {
			_, err := as(p, adaToken, iamv1connect.NewMemberWriteServiceClient).RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: self.GetPrincipalId()}))
			return err
		},
		"a viewer lists the tenant's users": func() error {
			_, err := as(p, adaWide, iamv1connect.NewUserServiceClient).ListUsers(ctx, connect.NewRequest(&iamv1.ListUsersRequest{}))
			return err
		},
		"the admin's tenant-wide token reads a workspace": func() error {
			_, err := as(p, admin, iamv1connect.NewMemberServiceClient).ListMembers(ctx, connect.NewRequest(&iamv1.ListMembersRequest{}))
			return err
		},
		"the admin's workspace token transfers": func() error {
			_, err := as(p, inside, iamv1connect.NewAdminWorkspaceServiceClient).TransferWorkspaceOwner(ctx, connect.NewRequest(&iamv1.TransferWorkspaceOwnerRequest{
				WorkspaceId: ws.GetId(), ExpectedOwnerUserId: self.GetPrincipalId(), ToUserId: first.GetUser().GetId(), Reason: "because I want to",
			}))
			return err
		},
		"a person watches revocations": func() error {
			stream, err := as(p, admin, iamv1connect.NewRevocationServiceClient).WatchRevocations(ctx, connect.NewRequest(&iamv1.WatchRevocationsRequest{}))
			if err != nil {
				return err
			}
			defer stream.Close()
			stream.Receive()
			return stream.Err()
		},
		"a person asks for a certificate": func() error {
			_, err := as(p, admin, iamv1connect.NewCertificateServiceClient).IssueCertificate(ctx, connect.NewRequest(&iamv1.IssueCertificateRequest{Csr: make([]byte, 64)}))
			return err
		},
	} {
		if err := call(); fault.KindOf(fault.FromRPC(err)) != fault.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A removed member's token stops within 5 s.
	must(members.RemoveMember(ctx, connect.NewRequest(&iamv1.RemoveMemberRequest{PrincipalId: first.GetUser().GetId()})))(t)
	removed := time.Now()
	for {
		_, err := reads.ListMembers(ctx, connect.NewRequest(&iamv1.ListMembersRequest{}))
		if fault.KindOf(err) == fault.Unauthenticated {
			break
		}
		if time.Since(removed) > 5*time.Second {
			t.Fatalf("the removed member still reads: %v", err)
		}
	}
	t.Logf("refused %s after the removal was answered", time.Since(removed))
	p.stop()
	if err := <-p.done; err != nil {
		t.Errorf("iam ended with %v", err)
	}
}

func TestSiblingFollowsRevocationsAndRenewsItsCertificate(t *testing.T) {
	p := run(t)
	admin := p.signIn(bootstrapCode)
	transport := p.transport("discovery")
	revocations := must(rpc.ToWorkload(transport, p.identity("iam"), iamv1connect.NewRevocationServiceClient))(t)
	stream := must(revocations.WatchRevocations(t.Context(), connect.NewRequest(&iamv1.WatchRevocationsRequest{})))(t)
	defer stream.Close()
	if !stream.Receive() {
		t.Fatalf("no heartbeat: %v", stream.Err())
	}
	must(p.http.PostForm(p.url("/oauth2/revoke"), url.Values{"token": {admin}}))(t).Body.Close()
	asked := time.Now()
	for len(stream.Msg().GetRevocations()) == 0 {
		if !stream.Receive() {
			t.Fatalf("the stream ended: %v", stream.Err())
		}
	}
	r := stream.Msg().GetRevocations()[0]
	if !strings.HasPrefix(r.GetPrincipalId(), "usr_") || !strings.HasPrefix(r.GetSessionId(), "ses_") || r.GetSequence() != 1 || time.Since(asked) > 2*time.Second {
		t.Errorf("after %s: %v", time.Since(asked), r)
	}

	csr, key, err := workload.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	certificates := must(rpc.ToWorkload(transport, p.identity("iam"), iamv1connect.NewCertificateServiceClient))(t)
	res := must(certificates.IssueCertificate(t.Context(), connect.NewRequest(&iamv1.IssueCertificateRequest{Csr: csr})))(t).Msg
	pair := must(workload.NewKeypair(key, []byte(res.GetCertificateChainPem())))(t)
	if pair.Identity() != p.identity("discovery") || !pair.Leaf().NotAfter.Equal(res.GetNotAfter().AsTime()) {
		t.Errorf("the certificate is %s's, until %s; the answer says %s", pair.Identity(), pair.Leaf().NotAfter, res.GetNotAfter().AsTime())
	}
	_, err = certificates.IssueCertificate(t.Context(), connect.NewRequest(&iamv1.IssueCertificateRequest{Csr: pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: csr})}))
	if fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("a request that is none: %v", err)
	}
	// Names that the plane gives are not certified anew for whoever has one in the tenant's trust domain.
	for _, name := range []string{workload.Provisioner, workload.Operator, workload.OperatorPrefix + "ann"} {
		c := must(rpc.ToWorkload(p.transport(name), p.identity("iam"), iamv1connect.NewCertificateServiceClient))(t)
		if _, err := c.IssueCertificate(t.Context(), connect.NewRequest(&iamv1.IssueCertificateRequest{Csr: csr})); fault.KindOf(err) != fault.PermissionDenied {
			t.Errorf("a certificate of %s: %v", name, err)
		}
	}
}

func TestConfigurationNamesEveryVariable(t *testing.T) {
	_, err := config.Load[iam.Config]("iam", nil)
	if err == nil {
		t.Fatal("an empty configuration was taken")
	}
	for _, want := range []string{"A3_TENANT", "A3_DATABASE_URL", "A3_TENANT_DATABASE_URL", "A3_KEK", "A3_INTERMEDIATE", "A3_ISSUER", "A3_TENANT_SLUG"} {
		if !strings.Contains(err.Error(), want+" is missing") {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
}
