package profile

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"a3os.app/libs/fault"
)

const (
	grantAssertion = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	grantExchange  = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessToken    = "urn:ietf:params:oauth:token-type:access_token" //nolint:gosec // the name of a kind of token (RFC 8693 §3)
	workspaceURN   = "urn:a3os:workspace:"

	tokenPath     = "/oauth2/token" //nolint:gosec // a path
	answerWithin  = 15 * time.Second
	assertionLife = 2 * time.Minute
	requestID     = "A3-Request-Id"
)

// endpoint is the token endpoint of a tenant's issuer (RFC 6749 §3.2).
type endpoint struct {
	client *http.Client
	issuer string
}

// answer is what it answers.
type answer struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int64  `json:"expires_in"`
	Error        string `json:"error"`
	Description  string `json:"error_description"`
}

// refresh spends a refresh token (RFC 6749 §6).
func (e endpoint) refresh(ctx context.Context, token string) (*answer, error) {
	return e.post(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// exchange trades an access token for one of a workspace (RFC 8693).
func (e endpoint) exchange(ctx context.Context, token, workspace string) (*answer, error) {
	return e.post(ctx, url.Values{
		"grant_type": {grantExchange}, "subject_token": {token}, "subject_token_type": {accessToken}, "resource": {workspaceURN + workspace},
	})
}

// assert signs in as a service account (RFC 7523).
func (e endpoint) assert(ctx context.Context, account, keyFile string, now time.Time) (*answer, error) {
	key, err := ReadKey(keyFile)
	if err != nil {
		return nil, err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{
		Issuer: account, Subject: account, Audience: jwt.ClaimStrings{e.issuer}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(assertionLife)),
	})
	if t.Header["kid"], err = keyID(&key.PublicKey); err != nil {
		return nil, err
	}
	signed, err := t.SignedString(key)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", keyFile, err)
	}
	return e.post(ctx, url.Values{"grant_type": {grantAssertion}, "assertion": {signed}})
}

func (e endpoint) post(ctx context.Context, form url.Values) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.issuer+tokenPath, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("ask %s for a token: %w", e.issuer, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := e.client.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "%s can't be reached: %s", e.issuer, reach(err))
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "%s broke off while it answered: try again", e.issuer)
	}
	a := &answer{}
	jerr := json.Unmarshal(raw, a)
	if jerr == nil && res.StatusCode == http.StatusOK && a.AccessToken != "" && a.ExpiresIn > 0 {
		return a, nil
	}
	return nil, refusal(e.issuer, res, a)
}

// reach is why a server was not reached, without the noise of the layers between.
func reach(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return err.Error()
}

// refusal is what the issuer's error means here (RFC 6749 §5.2, RFC 8693 §2.2.2).
func refusal(issuer string, res *http.Response, a *answer) error {
	trail := ""
	if r := res.Header.Get(requestID); r != "" {
		trail = " (request " + r + ")"
	}
	switch a.Error {
	case "invalid_grant", "invalid_client", "unauthorized_client":
		return fault.New(fault.Unauthenticated, "the issuer refuses the credential%s", trail)
	case "invalid_target":
		return fault.New(fault.PermissionDenied, "you are not a member of such a workspace: see `a3 workspace list`%s", trail)
	case "":
		return fault.New(fault.Unavailable, "%s answered %s, which is no token: is it the tenant's URL?%s", issuer, res.Status, trail)
	}
	kind := fault.Internal
	if res.StatusCode >= http.StatusInternalServerError || res.StatusCode == http.StatusTooManyRequests {
		kind = fault.Unavailable
	}
	return fault.New(kind, "the issuer answered %s: %s%s", a.Error, a.Description, trail)
}

// ReadKey reads a service account's private key: PKCS #8 PEM, ECDSA P-256. Errors don't repeat what is in the file.
func ReadKey(file string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fmt.Errorf("read the service account's key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s is not a private key in PEM form", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s is not an ECDSA P-256 key in PKCS #8 form: make one with `a3 service-account create`", file)
	}
	return key, nil
}

// keyID is the thumbprint by which the issuer knows a key (RFC 7638 §3).
func keyID(key *ecdsa.PublicKey) (string, error) {
	point, err := key.Bytes() // 0x04, x, y
	if err != nil {
		return "", fmt.Errorf("read the public key: %w", err)
	}
	coordinate := base64.RawURLEncoding.EncodeToString
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, coordinate(point[1:33]), coordinate(point[33:65])))
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
