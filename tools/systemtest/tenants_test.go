package systemtest

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

// Rows H12 and T5: one tenant's good tokens, of the tenant and of a workspace, at every method of the other, through every door. They are
// told what rubbish is told.
func TestTokenOfOneTenantIsRefusedByTheOther(t *testing.T) {
	t.Parallel()
	admin := globex().admin(t)
	tokens := map[string]string{"the tenant's": admin.token(t, ""), "a workspace's": admin.token(t, globex().operations(t))}
	own := through(t, globex()).bearer(tokens["the tenant's"])
	for _, m := range methods(t) {
		if a := own.call(t, m, nil); a.code == "unauthenticated" {
			t.Errorf("the token is not even good at home: %s: %s", m.path(), a)
		}
	}
	type attempt struct {
		v     *visitor
		m     rpcMethod
		whose string
	}
	var all []attempt
	cases := map[bool]int{}
	for _, d := range doors() {
		v := d.visit(t, acme())
		for _, m := range methods(t) {
			for whose := range tokens {
				if d.leads(m) {
					all = append(all, attempt{v, m, whose})
					cases[d.straight]++
				}
			}
		}
	}
	crowd(all, func(a attempt) {
		got, rubbish := a.v.send(t, a.m, nil, "Authorization", "Bearer "+tokens[a.whose]), a.v.send(t, a.m, nil, "Authorization", "Bearer not-a-token")
		if err := refusal(got, fault.Unauthenticated); err != nil || !got.same(rubbish) {
			t.Errorf("%s, %s token of globex at %s of acme: %s, and rubbish %s", a.v.name, a.whose, a.m.path(), got, rubbish)
		}
	})
	held(t, cases[false], "H12")
	held(t, cases[true], "T5")
	acme().probed("rpc.caller.unverified", "unknown", "H12", "T5")
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

// Row T5, with what services show each other in the place of a token.
func TestCertificatesOfOneTenantOpenNoDoorOfTheOther(t *testing.T) {
	t.Parallel()
	keys := methodNamed(t, "/a3os.iam.v1.RevocationService/WatchRevocations")
	cases := 0
	for holder, certificate := range globex().certificates(t) {
		for component := range acme().addresses {
			c := past(t, acme(), component, certificate)
			if a, err := c.try(t, keys.path(), contentType(keys, "json"), frame(keys, []byte("{}"))); err == nil {
				t.Errorf("%s of acme let globex's %s in as far as %s", component, holder, a)
			}
			cases++
		}
	}
	held(t, cases, "T5")
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

// Row T6: every method, at every door past the gateway, by everybody whom its rule doesn't name: nobody, a user at methods for workloads,
// every service that isn't listed, with and without a user's token, and the plane's own services.
func TestMethodIsForThoseItNames(t *testing.T) {
	t.Parallel()
	token := acme().admin(t).token(t, acme().operations(t))
	type attempt struct {
		v    *visitor
		m    rpcMethod
		who  string
		with []string
		kind []fault.Kind
	}
	bearer := []string{"Authorization", "Bearer " + token}
	var all []attempt
	for _, d := range doors() {
		if !d.straight || strings.HasPrefix(d.name, "GET") {
			continue
		}
		bare := d.visit(t, acme())
		members, plane := map[string]*visitor{}, map[string]*visitor{}
		for service, certificate := range acme().certificates(t) {
			members[service] = d.visit(t, acme(), certificate)
		}
		for service, certificate := range shared.certificates(t) {
			plane[service] = d.visit(t, acme(), certificate)
		}
		for _, m := range methods(t) {
			if m.rule.GetOpen() != "" {
				continue
			}
			all = append(all, attempt{bare, m, "nobody", nil, []fault.Kind{fault.Unauthenticated}})
			if m.rule.GetPermission() == "" {
				all = append(all, attempt{bare, m, "a user", bearer, []fault.Kind{fault.PermissionDenied}})
			}
			for service, v := range members {
				if !slices.Contains(m.rule.GetWorkloads(), service) {
					all = append(all, attempt{v, m, service, nil, []fault.Kind{fault.PermissionDenied}},
						attempt{v, m, service + " for a user", bearer, []fault.Kind{fault.PermissionDenied}})
				}
			}
			for service, v := range plane {
				all = append(all, attempt{v, m, "the plane's " + service, nil, []fault.Kind{fault.Unauthenticated, fault.PermissionDenied}})
				if m.rule.GetPermission() == "" {
					all = append(all, attempt{v, m, "the plane's " + service + " for a user", bearer, []fault.Kind{fault.PermissionDenied, fault.Unauthenticated}})
				}
			}
		}
	}
	n := crowd(all, func(a attempt) {
		if err := refusal(a.v.send(t, a.m, nil, a.with...), a.kind...); err != nil {
			t.Errorf("%s, %s at %s, which is for %v %s: %v", a.v.name, a.who, a.m.path(), a.m.rule.GetWorkloads(), a.m.rule.GetPermission(), err)
		}
	})
	// Those who are listed get further than their certificate: to what they present, or what they ask for.
	for _, m := range methods(t) {
		for _, service := range m.rule.GetWorkloads() {
			if m.IsStreamingServer() {
				continue // let in, it wouldn't end
			}
			if a := past(t, acme(), m.component, acme().certificates(t)[service]).call(t, m, nil); strings.Contains(a.message, "may not call") {
				t.Errorf("%s, which %s lists, is refused there: %s", service, m.path(), a)
			}
		}
	}
	held(t, n, "T6")
	for service := range acme().certificates(t) {
		acme().probed("rpc.call.denied", "workload:"+service, "T6")
	}
	acme().probed("rpc.call.denied", acme().admin(t).id, "T6")
}

// certificates are those of the plane's own services that are on disk.
func (p *plane) certificates(t testing.TB) map[string]tls.Certificate {
	t.Helper()
	out := map[string]tls.Certificate{}
	for service, dir := range map[string]string{"gateway": filepath.Join("plane", "components", "gateway", "certificate"),
		"registry": filepath.Join("plane", "components", "registry", "certificate"), "operator": filepath.Join("pki", "operator")} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(p.home, dir, "workload.pem"), filepath.Join(p.home, dir, "workload.pem"))
		if err != nil {
			t.Fatal(err)
		}
		out[service] = pair
	}
	return out
}

// Nobody gets an answer without showing who they are, but from what is open with a reason.
func TestNobodyGetsNothing(t *testing.T) {
	t.Parallel()
	nobody := through(t, acme())
	for _, m := range methods(t) {
		if !m.routed() || m.rule.GetOpen() != "" {
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
