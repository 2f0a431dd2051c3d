package iamtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/session"
	"a3os.app/services/iam/internal/store"
)

// Grant types.
const (
	JWTBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	TokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	AccessToken   = "urn:ietf:params:oauth:token-type:access_token"
)

// Answer is what an endpoint of the issuer answered.
type Answer struct {
	Status           int         `json:"-"`
	Header           http.Header `json:"-"`
	AccessToken      string      `json:"access_token"`
	RefreshToken     string      `json:"refresh_token"`
	TokenType        string      `json:"token_type"`
	IssuedTokenType  string      `json:"issued_token_type"`
	ExpiresIn        int         `json:"expires_in"`
	Error            string      `json:"error"`
	ErrorDescription string      `json:"error_description"`
}

// Post sends a form to a path of the issuer.
func (e *Env) Post(t testing.TB, path string, form url.Values) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return Do(t, req)
}

// Do sends a request and reads the answer, if it is JSON.
func Do(t testing.TB, req *http.Request) Answer {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var a Answer
	_ = json.NewDecoder(res.Body).Decode(&a)
	a.Status, a.Header = res.StatusCode, res.Header
	return a
}

// Session starts a session of a user and answers its refresh token.
func (e *Env) Session(t testing.TB, user id.User) string {
	t.Helper()
	var token string
	err := e.TenantDB.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		var err error
		_, token, err = session.Start(ctx, store.New(tx), user, e.Clock.Now())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Refresh trades a refresh token.
func (e *Env) Refresh(t testing.TB, token string) Answer {
	t.Helper()
	return e.Post(t, "/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// Exchange trades an access token for one of a workspace.
func (e *Env) Exchange(t testing.TB, token string, w id.Workspace) Answer {
	t.Helper()
	return e.Post(t, "/oauth2/token", url.Values{
		"grant_type": {TokenExchange}, "subject_token": {token}, "subject_token_type": {AccessToken}, "workspace": {w.String()},
	})
}

// Account is a service account with its key.
type Account struct {
	ID    id.ServiceAccount
	KeyID string
	Key   *ecdsa.PrivateKey
}

// Account makes a service account through the API.
func (e *Env) Account(t testing.TB, name string, role iamv1.TenantRole) Account {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	res, err := e.Accounts.CreateServiceAccount(e.AsAdmin(t), connect.NewRequest(&iamv1.CreateServiceAccountRequest{
		Name: name, PublicKeyPem: PublicPEM(t, &key.PublicKey), TenantRole: role,
	}))
	if err != nil {
		t.Fatal(err)
	}
	account, err := id.ParseServiceAccount(res.Msg.GetId())
	if err != nil {
		t.Fatal(err)
	}
	return Account{ID: account, KeyID: res.Msg.GetKeyId(), Key: key}
}

// PublicPEM is a public key as PEM.
func PublicPEM(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Assertion is a good assertion of an account, before it is signed.
func (e *Env) Assertion(a Account) *jwt.Token {
	now := e.Clock.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": a.ID.String(), "sub": a.ID.String(), "aud": e.Issuer, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
	t.Header["kid"] = a.KeyID
	return t
}

// SignIn gets an account its tenant-wide access token.
func (e *Env) SignIn(t testing.TB, a Account) string {
	t.Helper()
	signed, err := e.Assertion(a).SignedString(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	res := e.Assert(t, signed)
	if res.AccessToken == "" {
		t.Fatalf("sign in: %+v", res)
	}
	return res.AccessToken
}

// Assert trades an assertion.
func (e *Env) Assert(t testing.TB, assertion string) Answer {
	t.Helper()
	return e.Post(t, "/oauth2/token", url.Values{"grant_type": {JWTBearer}, "assertion": {assertion}})
}

// Claims verifies a token as the other services of the set do, revocations aside.
func (e *Env) Claims(t testing.TB, token string) authn.Claims {
	t.Helper()
	c, err := e.OAuth.Verifier().Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("the token does not verify: %v", err)
	}
	return c
}
