package systemtest

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// Rows H12 and T5.
func TestTokenOfOneTenantIsRefusedByTheOther(t *testing.T) {
	t.Parallel()
	token := globex().admin(t).token(t, "")
	own := through(t, globex()).bearer(token)
	gateway := through(t, acme()).bearer(token)
	direct := map[string]caller{}
	for component := range acme().addresses {
		direct[component] = past(t, acme(), component).bearer(token)
	}
	for _, m := range methods(t) {
		if a := own.call(t, m, nil); a.code == "unauthenticated" {
			t.Errorf("the token is not even good at home: %s: %s", m.path(), a)
		}
		if a := direct[m.component].call(t, m, nil); unauthenticated(a) != nil {
			t.Errorf("%s of acme, past the gateway: %v", m.path(), unauthenticated(a))
		}
		if m.component == "discovery-worker" {
			continue // the gateway doesn't lead there
		}
		if a := gateway.call(t, m, nil); unauthenticated(a) != nil {
			t.Errorf("%s of acme, through the gateway: %v", m.path(), unauthenticated(a))
		}
	}
}

func TestRefusedTokensAreToldTheSame(t *testing.T) {
	t.Parallel()
	foreign, rubbish := through(t, acme()).bearer(globex().admin(t).token(t, "")), through(t, acme()).bearer("not-a-token")
	for _, m := range methods(t) {
		if m.component == "discovery-worker" {
			continue
		}
		if a, b := foreign.call(t, m, nil), rubbish.call(t, m, nil); !a.same(b) {
			t.Errorf("%s: another tenant's token is answered %s and rubbish %s", m.path(), a, b)
		}
	}
}

// What globex holds buys nothing at acme's issuer.
func TestCredentialsOfOneTenantBuyNoTokenFromTheOther(t *testing.T) {
	t.Parallel()
	token := globex().admin(t).token(t, "")
	p, err := globex().admin(t).session.Profile()
	if err != nil {
		t.Fatal(err)
	}
	for what, form := range map[string]url.Values{
		"refresh token": {"grant_type": {"refresh_token"}, "refresh_token": {p.RefreshToken}},
		"access token, exchanged": {"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token},
			"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "resource": {"urn:a3os:workspace:" + id.New[workspaceKind]().String()}},
		"access token, as an assertion": {"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {token}},
	} {
		res, err := acme().client(t).PostForm(acme().url+"/oauth2/token", form)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode < 400 || res.StatusCode >= 500 || strings.Contains(string(body), "access_token\":") {
			t.Errorf("%s: %s %s", what, res.Status, body)
		}
	}
	// The try did not cost globex its session.
	if _, err := globex().admin(t).session.Token(t.Context(), ""); err != nil {
		t.Error(err)
	}
}

type workspaceKind struct{}

func (workspaceKind) Prefix() string { return "wsp" }

// certificates are all that a tenant's services have on disk, by service.
func (x *tenant) certificates(t testing.TB) map[string]tls.Certificate {
	t.Helper()
	files, err := filepath.Glob(x.file("components", "*", "certificate", "workload.pem"))
	if err != nil || len(files) != len(x.addresses) {
		t.Fatalf("%s has %d certificates for %d services, %v", x.slug, len(files), len(x.addresses), err)
	}
	out := map[string]tls.Certificate{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(raw, raw)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(filepath.Dir(filepath.Dir(f)))] = pair
	}
	return out
}

// file is one of the tenant's files.
func (x *tenant) file(parts ...string) string {
	return filepath.Join(append([]string{x.plane.home, "tenants", x.id}, parts...)...)
}

// identity is one of the tenant's services.
func (x *tenant) identity(t testing.TB, service string) workload.Identity {
	t.Helper()
	tenant, err := id.ParseTenant(x.id)
	if err != nil {
		t.Fatal(err)
	}
	return workload.Identity{Plane: "dev", Tenant: tenant, Service: service}
}

func TestCertificatesOfOneTenantOpenNoDoorOfTheOther(t *testing.T) {
	t.Parallel()
	keys := methodNamed(t, "/a3os.iam.v1.RevocationService/WatchRevocations")
	for holder, certificate := range globex().certificates(t) {
		for component := range acme().addresses {
			c := past(t, acme(), component, certificate)
			if a, err := c.try(t, keys.path(), contentType(keys, "json"), frame(keys, []byte("{}"))); err == nil {
				t.Errorf("%s of acme let globex's %s in as far as %s", component, holder, a)
			}
		}
	}
	// The same certificate at home gets past the handshake: it was refused for whose it is.
	home := past(t, globex(), "audit", globex().certificates(t)["discovery"])
	if _, err := home.try(t, keys.path(), contentType(keys, "json"), frame(keys, []byte("{}"))); err != nil {
		t.Errorf("the certificate isn't good at home: %v", err)
	}
}

func methodNamed(t testing.TB, path string) rpcMethod {
	t.Helper()
	for _, m := range methods(t) {
		if m.path() == path {
			return m
		}
	}
	t.Fatalf("there is no method %s", path)
	return rpcMethod{}
}

// Row T6: a certificate opens the methods that name its service, and a token those for people.
func TestMethodIsForThoseItNames(t *testing.T) {
	t.Parallel()
	certificates, token := acme().certificates(t), acme().admin(t).token(t, "")
	for _, m := range methods(t) {
		if len(m.rule.GetWorkloads()) == 0 || m.IsStreamingServer() {
			continue
		}
		if a := past(t, acme(), m.component).bearer(token).call(t, m, nil); a.code != "permission_denied" {
			t.Errorf("a user's token at %s, which is for %v: %s", m.path(), m.rule.GetWorkloads(), a)
		}
		if a := past(t, acme(), m.component).call(t, m, nil); unauthenticated(a) != nil {
			t.Errorf("nobody at %s: %s", m.path(), a)
		}
		for service, certificate := range certificates {
			a := past(t, acme(), m.component, certificate).call(t, m, nil)
			listed := false
			for _, w := range m.rule.GetWorkloads() {
				listed = listed || w == service
			}
			// One that is listed gets as far as what it presents, or what it asks for.
			if !listed && a.code != "permission_denied" && a.code != "unauthenticated" {
				t.Errorf("%s at %s, which is for %v: %s", service, m.path(), m.rule.GetWorkloads(), a)
			}
		}
	}
}

// Nobody gets an answer without showing who they are, but from what is open with a reason.
func TestNobodyGetsNothing(t *testing.T) {
	t.Parallel()
	nobody := through(t, acme())
	for _, m := range methods(t) {
		if m.component == "discovery-worker" || m.rule.GetOpen() != "" {
			continue
		}
		if a := nobody.call(t, m, nil); unauthenticated(a) != nil {
			t.Errorf("%s: %v", m.path(), unauthenticated(a))
		}
	}
	for _, path := range []string{"/", "/metrics", "/readyz", "/debug/pprof/", "/a3os.registry.v1.TenantService/ListTenants", "/a3os.discovery.v1.ConnectorService/TestSource",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, acme().url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := acme().client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("%s is answered with %s", path, res.Status)
		}
	}
}
