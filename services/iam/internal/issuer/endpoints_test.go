package issuer_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/zitadel/oidc/v3/pkg/client"

	"a3os.app/services/iam/internal/iamtest"
)

func TestIndependentClientsFindAndVerify(t *testing.T) {
	e := iamtest.New(t)
	token := e.Refresh(t, e.Session(t, e.Admin)).AccessToken

	provider, err := oidc.NewProvider(t.Context(), e.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	if got := provider.Endpoint().TokenURL; got != e.Issuer+"/oauth2/token" {
		t.Errorf("go-oidc found the token endpoint at %q", got)
	}
	verifier := provider.VerifierContext(context.WithoutCancel(t.Context()), &oidc.Config{ClientID: e.Issuer + "/api", SupportedSigningAlgs: []string{"ES256"}})
	got, err := verifier.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Tenant string   `json:"tid"`
		Roles  []string `json:"roles"`
		Client string   `json:"client_id"`
	}
	if err := got.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if got.Subject != e.Admin.String() || claims.Tenant != e.Tenant.String() || claims.Roles[0] != "tenant:admin" || claims.Client == "" {
		t.Errorf("go-oidc reads %+v %+v", got, claims)
	}

	doc, err := client.Discover(t.Context(), e.Issuer, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	if doc.Issuer != e.Issuer || doc.JwksURI != e.Issuer+"/oauth2/keys" || doc.RevocationEndpoint != e.Issuer+"/oauth2/revoke" {
		t.Errorf("zitadel's client reads %+v", doc)
	}
	if doc.AuthorizationEndpoint != "" || doc.UserinfoEndpoint != "" || doc.EndSessionEndpoint != "" || doc.IntrospectionEndpoint != "" {
		t.Errorf("the document promises what isn't there: %+v", doc)
	}
}

func get(t *testing.T, target string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestBothMetadataDocumentsAreTheSame(t *testing.T) {
	e := iamtest.New(t)
	_, openid := get(t, e.Issuer+"/.well-known/openid-configuration")
	status, oauth := get(t, e.Issuer+"/.well-known/oauth-authorization-server")
	if status != 200 || openid != oauth || !strings.Contains(oauth, `"response_types_supported":[]`) {
		t.Errorf("RFC 8414: %d %s\nOpenID: %s", status, oauth, openid)
	}
}

func TestPublishedKeysHoldNoPrivatePart(t *testing.T) {
	e := iamtest.New(t)
	_, body := get(t, e.Issuer+"/oauth2/keys")
	if strings.Contains(body, `"d":`) || strings.Count(body, `"kid":`) != 2 {
		t.Errorf("published: %s", body)
	}
}

func TestNothingButTheIssuersEndpointsIsServed(t *testing.T) {
	e := iamtest.New(t)
	for _, path := range []string{
		"/authorize", "/oauth/token", "/oauth/introspect", "/oauth2/introspect", "/userinfo", "/end_session", "/revoke", "/keys", "/device_authorization",
		"/healthz", "/ready", "/authorize/callback", "/callback", "/",
	} {
		if status, body := get(t, e.Issuer+path); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, path := range []string{"/oauth2/token", "/oauth2/revoke"} {
		if status, _ := get(t, e.Issuer+path+"?grant_type=refresh_token&refresh_token=x"); status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, status)
		}
	}
}

func TestRequestThatRFC6749ForbidsIsRefused(t *testing.T) {
	e := iamtest.New(t)
	good := func() string { return e.Session(t, e.Admin) }
	form := "application/x-www-form-urlencoded"
	basic := func(raw string) http.Header {
		return http.Header{"Content-Type": {form}, "Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(raw))}}
	}
	tests := map[string]struct {
		query  string
		header http.Header
		body   string
		status int
		err    string
	}{
		"a Basic header that op panics on": {"", basic("%zz:x"), "grant_type=" + url.QueryEscape(iamtest.TokenExchange), 401, "invalid_client"},
		"a client's secret":                {"", basic("a3:secret"), "grant_type=refresh_token&refresh_token=" + good(), 401, "invalid_client"},
		"a client's secret in the body":    {"", nil, "grant_type=refresh_token&client_id=a3&client_secret=x&refresh_token=" + good(), 401, "invalid_client"},
		"a client's assertion":             {"", nil, "grant_type=refresh_token&client_assertion=x&refresh_token=" + good(), 401, "invalid_client"},
		"an unknown client":                {"", nil, "grant_type=refresh_token&client_id=evil&refresh_token=" + good(), 401, "invalid_client"},
		"parameters in the query":          {"?grant_type=refresh_token&refresh_token=" + good(), nil, "", 400, "invalid_request"},
		"the token in the query":           {"?refresh_token=" + good(), nil, "grant_type=refresh_token", 400, "invalid_request"},
		"JSON":                             {"", http.Header{"Content-Type": {"application/json"}}, `{"grant_type":"refresh_token"}`, 400, "invalid_request"},
		"a parameter twice":                {"", nil, "grant_type=refresh_token&refresh_token=x&refresh_token=" + good(), 400, "invalid_request"},
		"the grant type twice":             {"", nil, "grant_type=x&grant_type=refresh_token&refresh_token=" + good(), 400, "invalid_request"},
		"no grant type":                    {"", nil, "refresh_token=" + good(), 400, "invalid_request"},
		"a grant of op's that isn't ours":  {"", nil, "grant_type=authorization_code&code=x&redirect_uri=x", 401, ""},
		"client credentials":               {"", nil, "grant_type=client_credentials", 401, ""},
		"device code":                      {"", nil, "grant_type=" + url.QueryEscape("urn:ietf:params:oauth:grant-type:device_code") + "&device_code=x", 401, ""},
		"an unknown grant":                 {"", nil, "grant_type=password&username=x&password=y", 400, "unsupported_grant_type"},
		"a body that is far too large":     {"", nil, "grant_type=refresh_token&refresh_token=" + strings.Repeat("x", 1<<20), 400, "invalid_request"},
		"no refresh token":                 {"", nil, "grant_type=refresh_token", 400, "invalid_request"},
		"no assertion":                     {"", nil, "grant_type=" + url.QueryEscape(iamtest.JWTBearer), 400, "invalid_request"},
		"a broken form":                    {"", nil, "grant_type=%zz", 400, "invalid_request"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.Issuer+"/oauth2/token"+tc.query, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if req.Header = tc.header; req.Header == nil {
				req.Header = http.Header{"Content-Type": {form}}
			}
			req.Header.Set("Origin", "https://evil.example")
			res := iamtest.Do(t, req)
			if tc.err == "" { // refused, whichever of OAuth's words op chooses
				if res.Status < 400 || res.Status >= 500 || res.AccessToken != "" {
					t.Errorf("answered %+v", res)
				}
			} else if res.Status != tc.status || res.Error != tc.err || res.AccessToken != "" {
				t.Errorf("answered %+v, want %d %s", res, tc.status, tc.err)
			}
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("CORS is on for %q", got)
			}
		})
	}
}

func TestBrokenDatabaseIsNotTheCallersFault(t *testing.T) {
	e := iamtest.New(t)
	refresh := e.Session(t, e.Admin)
	e.DB.Exec(t, "ALTER TABLE iam.refresh_tokens RENAME TO away")
	res := e.Refresh(t, refresh)
	if res.Status != 500 || res.Error != "server_error" || strings.Contains(res.ErrorDescription, "refresh_tokens") {
		t.Errorf("answered %+v", res)
	}
	e.DB.Exec(t, "ALTER TABLE iam.away RENAME TO refresh_tokens")
	if res := e.Refresh(t, refresh); res.Status != 200 {
		t.Errorf("afterwards: %+v", res)
	}
}

func TestNoTokenIsIssuedThatCouldNotGoOnTheRecord(t *testing.T) {
	e := iamtest.New(t)
	a := e.Account(t, "ci", 0)
	signed, err := e.Assertion(a).SignedString(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	e.DB.Exec(t, "INSERT INTO audit.inbox (id, body) SELECT gen_random_uuid(), 'x' FROM generate_series(1, 5)")
	e.DB.Exec(t, "UPDATE audit.settings SET max_backlog_rows = 1")
	if res := e.Assert(t, signed); res.Status != 503 || res.Error != "server_error" || res.AccessToken != "" {
		t.Errorf("answered %+v", res)
	}
	e.DB.Exec(t, "UPDATE audit.settings SET max_backlog_rows = 1000")
	if res := e.Assert(t, signed); res.Status != 200 {
		t.Errorf("the assertion was spent on nothing: %+v", res)
	}
}
