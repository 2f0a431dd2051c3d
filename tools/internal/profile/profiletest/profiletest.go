// Package profiletest is a tenant for tests of what signs in at one: real TLS, and a token endpoint that rotates refresh tokens, notices
// reuse, exchanges tokens and verifies assertions. It is a stand-in for the issuer in services/iam, which tools can't import; the tests
// in tools/systemtest hold the same clients against the real one.
package profiletest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"a3os.app/tools/internal/profile"
)

// URL is where the tenant says to be. It resolves nowhere: only who dials the address that a profile names gets there.
const URL = "https://acme.example.com"

// Grant is what an access token stands for.
type Grant struct {
	// Subject is the principal's id.
	Subject string
	// Workspace is the token's workspace; empty for the tenant.
	Workspace string
}

// Tenant is a tenant under test.
type Tenant struct {
	// Address is where it listens.
	Address string
	// CAFile holds its authority's certificate.
	CAFile string
	// Life is how long access tokens live.
	Life time.Duration

	mu      sync.Mutex
	refresh map[string]*session
	access  map[string]Grant
	members map[Grant]bool
	keys    map[string]*ecdsa.PublicKey
	seen    map[string]bool
	counts  Counts
}

// Counts is what the token endpoint did.
type Counts struct {
	// Refreshes, Exchanges and Assertions are those that succeeded.
	Refreshes, Exchanges, Assertions int
	// Reused is how often a refresh token came that had been used.
	Reused int
}

type session struct {
	subject string
	used    bool
}

// New starts a tenant. api serves everything but the token endpoint; nil for nothing.
func New(t testing.TB, api http.Handler) *Tenant {
	t.Helper()
	n := &Tenant{
		Life: 10 * time.Minute, refresh: map[string]*session{}, access: map[string]Grant{}, members: map[Grant]bool{},
		keys: map[string]*ecdsa.PublicKey{}, seen: map[string]bool{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth2/token", n.token)
	if api != nil {
		mux.Handle("/", api)
	}
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	n.Address = s.Listener.Addr().String()
	n.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(n.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// Profile is a profile of a person who has just signed in.
func (n *Tenant) Profile(name, subject string) *profile.Profile {
	return &profile.Profile{Name: name, URL: URL, Slug: "acme", CACert: n.CAFile, DialAddress: n.Address, RefreshToken: n.Session(subject)}
}

// Session starts a session of a person and answers its refresh token.
func (n *Tenant) Session(subject string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	token := rand.Text()
	n.refresh[token] = &session{subject: subject}
	return token
}

// Join makes a principal a member of a workspace.
func (n *Tenant) Join(subject, workspace string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members[Grant{Subject: subject, Workspace: workspace}] = true
}

// Register makes a service account known by its public key.
func (n *Tenant) Register(account string, key *ecdsa.PublicKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys[account] = key
}

// RevokeAccess makes every access token worthless, and leaves the sessions.
func (n *Tenant) RevokeAccess() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.access)
}

// Counts is what happened so far.
func (n *Tenant) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Caller is who calls, by the access token that the request presents.
func (n *Tenant) Caller(h http.Header) (Grant, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	g, ok := n.access[strings.TrimPrefix(h.Get("Authorization"), "Bearer ")]
	return g, ok
}

// Spent says whether a refresh token was used.
func (n *Tenant) Spent(token string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.refresh[token]
	return s == nil || s.used
}

func (n *Tenant) token(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("A3-Request-Id", "req_test")
	answer, code := n.grant(r)
	if code != "" {
		w.WriteHeader(http.StatusBadRequest)
		answer = map[string]any{"error": code, "error_description": "refused in a test"}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (n *Tenant) grant(r *http.Request) (map[string]any, string) {
	switch r.PostFormValue("grant_type") {
	case "refresh_token":
		s := n.refresh[r.PostFormValue("refresh_token")]
		switch {
		case s == nil:
			return nil, "invalid_grant"
		case s.used:
			n.counts.Reused++
			return nil, "invalid_grant"
		}
		s.used = true
		next := rand.Text()
		n.refresh[next] = &session{subject: s.subject}
		n.counts.Refreshes++
		a := n.issue(Grant{Subject: s.subject})
		a["refresh_token"] = next
		return a, ""
	case "urn:ietf:params:oauth:grant-type:token-exchange":
		own, ok := n.access[r.PostFormValue("subject_token")]
		if !ok {
			return nil, "invalid_grant"
		}
		own.Workspace = strings.TrimPrefix(r.PostFormValue("resource"), "urn:a3os:workspace:")
		if !n.members[own] {
			return nil, "invalid_target"
		}
		n.counts.Exchanges++
		return n.issue(own), ""
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		account, err := n.assertion(r.PostFormValue("assertion"))
		if err != nil {
			return nil, "invalid_grant"
		}
		n.counts.Assertions++
		return n.issue(Grant{Subject: account}), ""
	}
	return nil, "unsupported_grant_type"
}

func (n *Tenant) issue(g Grant) map[string]any {
	token := rand.Text()
	n.access[token] = g
	return map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(n.Life.Seconds())}
}

// assertion verifies as RFC 7523 §3 says, and takes the jti.
func (n *Tenant) assertion(raw string) (string, error) {
	var c jwt.RegisteredClaims
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithAudience(URL), jwt.WithExpirationRequired(), jwt.WithIssuedAt()).
		ParseWithClaims(raw, &c, func(t *jwt.Token) (any, error) {
			key := n.keys[c.Issuer]
			if key == nil {
				return nil, errors.New("no such account")
			}
			if t.Header["kid"] != thumbprint(key) {
				return nil, errors.New("another key")
			}
			return key, nil
		})
	switch {
	case err != nil:
		return "", err
	case c.Subject != c.Issuer || len(c.Audience) != 1 || c.ID == "" || n.seen[c.ID] || c.ExpiresAt.Sub(c.IssuedAt.Time) > 5*time.Minute:
		return "", errors.New("not an assertion to take")
	}
	n.seen[c.ID] = true
	return c.Issuer, nil
}

// thumbprint is the id of a key (RFC 7638 §3).
func thumbprint(key *ecdsa.PublicKey) string {
	size := (key.Params().BitSize + 7) / 8
	raw, err := key.Bytes()
	if err != nil {
		return ""
	}
	b64 := base64.RawURLEncoding
	// encoding/json sorts a map's keys, as the thumbprint wants them.
	text, err := json.Marshal(map[string]string{
		"kty": "EC", "crv": "P-256", "x": b64.EncodeToString(raw[1 : 1+size]), "y": b64.EncodeToString(raw[1+size:]),
	})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return b64.EncodeToString(sum[:])
}
