package issuer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/iamtest"
)

func TestAssertionOfRegisteredKeyGetsATenantWideToken(t *testing.T) {
	e := iamtest.New(t)
	a := e.Account(t, "ci", iamv1.TenantRole_TENANT_ROLE_AUDITOR)
	token := e.SignIn(t, a)

	parsed, _, err := jwt.NewParser().ParseUnverified(token, &authn.TokenClaims{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": e.Keys.Signer().KeyID}
	if !maps.Equal(parsed.Header, want) {
		t.Errorf("header is %v, want %v", parsed.Header, want)
	}
	c := e.Claims(t, token)
	if string(c.Principal) != a.ID.String() || c.Tenant != e.Tenant || !c.Workspace.IsZero() || !c.Session.IsZero() {
		t.Errorf("claims are %+v", c)
	}
	if tc := parsed.Claims.(*authn.TokenClaims); len(tc.Roles) != 1 || tc.Roles[0] != "tenant:auditor" || tc.ID == "" {
		t.Errorf("claims as written are %+v", tc)
	}
	if lives := c.ExpiresAt.Sub(e.Clock.Now()); lives > 10*time.Minute || lives < 9*time.Minute {
		t.Errorf("the token lives %s", lives)
	}
	if n := len(e.Events(t, "iam.service_account.signed_in")); n != 1 {
		t.Errorf("%d sign-ins on the record", n)
	}
}

func TestAssertionWorksOnceHoweverManyComeAtOnce(t *testing.T) {
	e := iamtest.New(t)
	a := e.Account(t, "ci", 0)
	signed, err := e.Assertion(a).SignedString(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	var good atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if res := e.Assert(t, signed); res.Status == 200 {
				good.Add(1)
			} else if res.Error != "invalid_grant" {
				t.Errorf("a replay was answered %+v", res)
			}
		})
	}
	wg.Wait()
	if good.Load() != 1 {
		t.Errorf("%d of 16 were taken", good.Load())
	}
	e.Clock.Advance(30 * time.Second)
	if res := e.Assert(t, signed); res.Error != "invalid_grant" {
		t.Errorf("later replay: %+v", res)
	}
}

func TestAssertionThatIsNotExactlyRightIsRefused(t *testing.T) {
	e := iamtest.New(t)
	a, other := e.Account(t, "ci", 0), e.Account(t, "other", 0)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&a.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) int64 { return e.Clock.Now().Add(d).Unix() }
	claim := func(name string, value any) func(*jwt.Token) {
		return func(t *jwt.Token) { t.Claims.(jwt.MapClaims)[name] = value }
	}
	header := func(name string, value any) func(*jwt.Token) { return func(t *jwt.Token) { t.Header[name] = value } }
	without := func(name string) func(*jwt.Token) {
		return func(t *jwt.Token) { delete(t.Claims.(jwt.MapClaims), name) }
	}
	with := func(m jwt.SigningMethod) func(*jwt.Token) {
		return func(t *jwt.Token) { t.Method, t.Header["alg"] = m, m.Alg() }
	}
	all := func(fs ...func(*jwt.Token)) func(*jwt.Token) {
		return func(t *jwt.Token) {
			for _, f := range fs {
				f(t)
			}
		}
	}
	tests := map[string]struct {
		change func(*jwt.Token)
		key    crypto.PrivateKey
	}{
		"signed by a stranger":               {func(*jwt.Token) {}, stranger},
		"RS256":                              {with(jwt.SigningMethodRS256), rsaKey},
		"PS256":                              {with(jwt.SigningMethodPS256), rsaKey},
		"EdDSA":                              {with(jwt.SigningMethodEdDSA), edKey},
		"HS256 with the public key":          {with(jwt.SigningMethodHS256), spki},
		"HS256 with its PEM":                 {with(jwt.SigningMethodHS256), []byte(iamtest.PublicPEM(t, &a.Key.PublicKey))},
		"none":                               {with(jwt.SigningMethodNone), jwt.UnsafeAllowNoneSignatureType},
		"audience is the API":                {claim("aud", e.Issuer+"/api"), a.Key},
		"audience is the token endpoint":     {claim("aud", e.Issuer+"/oauth2/token"), a.Key},
		"audience is another issuer":         {claim("aud", "https://globex.localhost:7443"), a.Key},
		"another audience as well":           {claim("aud", []string{e.Issuer, "https://globex.localhost:7443"}), a.Key},
		"no audience":                        {without("aud"), a.Key},
		"old":                                {all(claim("iat", at(-10*time.Minute)), claim("exp", at(-6*time.Minute))), a.Key},
		"issued long ago, expires soon":      {all(claim("iat", at(-time.Hour)), claim("exp", at(time.Minute))), a.Key},
		"issued in the future":               {all(claim("iat", at(2*time.Minute)), claim("exp", at(3*time.Minute))), a.Key},
		"expires in an hour":                 {claim("exp", at(time.Hour)), a.Key},
		"expires in six minutes":             {claim("exp", at(6*time.Minute)), a.Key},
		"not yet valid":                      {claim("nbf", at(2*time.Minute)), a.Key},
		"no exp":                             {without("exp"), a.Key},
		"no iat":                             {without("iat"), a.Key},
		"no jti":                             {without("jti"), a.Key},
		"long jti":                           {claim("jti", string(make([]byte, 200))), a.Key},
		"sub is another":                     {claim("sub", other.ID.String()), a.Key},
		"iss is another":                     {all(claim("iss", other.ID.String()), claim("sub", other.ID.String())), a.Key},
		"iss is nobody":                      {all(claim("iss", id.NewServiceAccount().String()), claim("sub", id.NewServiceAccount().String())), a.Key},
		"iss is a user":                      {all(claim("iss", e.Admin.String()), claim("sub", e.Admin.String())), a.Key},
		"no kid":                             {func(t *jwt.Token) { delete(t.Header, "kid") }, a.Key},
		"another's kid":                      {header("kid", other.KeyID), a.Key},
		"an access token's typ":              {header("typ", "at+jwt"), a.Key},
		"crit":                               {header("crit", []string{"b64"}), a.Key},
		"another's kid and key, own subject": {header("kid", other.KeyID), other.Key},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			token := e.Assertion(a)
			tc.change(token)
			signed, err := token.SignedString(tc.key)
			if err != nil {
				t.Fatal(err)
			}
			if res := e.Assert(t, signed); res.Status != 400 || res.Error != "invalid_grant" || res.AccessToken != "" {
				t.Errorf("answered %+v", res)
			}
		})
	}
	good := e.SignIn(t, a)
	for _, raw := range []string{"x", "a.b.c", good, "..", string(make([]byte, 5000))} {
		if res := e.Assert(t, raw); res.Error != "invalid_grant" {
			t.Errorf("%.20q was answered %+v", raw, res)
		}
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.assertions"); n != 1 {
		t.Errorf("%d assertions are remembered: refused ones fill the table", n)
	}
	if err := e.Denials.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	denied := e.Events(t, "iam.token.denied")
	if len(denied) != 1 || denied[0].GetAfter().GetFields()["count"].GetNumberValue() != float64(len(tests)+5) {
		t.Errorf("the record has %v", denied)
	}
}

func TestDeletedServiceAccountGetsNoToken(t *testing.T) {
	e := iamtest.New(t)
	a := e.Account(t, "ci", 0)
	w := e.Workspace(t, "Research", e.Admin)
	e.Member(t, w, a.ID.String(), iamv1.WorkspaceRole_WORKSPACE_ROLE_VIEWER)
	token := e.SignIn(t, a)
	if res := e.Exchange(t, token, w); res.Status != 200 {
		t.Fatalf("exchange: %+v", res)
	}
	del := connect.NewRequest(&iamv1.DeleteServiceAccountRequest{ServiceAccountId: a.ID.String()})
	if _, err := e.Accounts.DeleteServiceAccount(e.AsAdmin(t), del); err != nil {
		t.Fatal(err)
	}
	signed, err := e.Assertion(a).SignedString(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	if res := e.Assert(t, signed); res.Error != "invalid_grant" {
		t.Errorf("assertion: %+v", res)
	}
	if res := e.Exchange(t, token, w); res.Error != "invalid_grant" {
		t.Errorf("exchange: %+v", res)
	}
	if n := e.Int(t, "SELECT count(*) FROM iam.revocations WHERE principal = $1 AND workspace_id IS NULL", a.ID.String()); n != 1 {
		t.Errorf("%d revocations", n)
	}
}
