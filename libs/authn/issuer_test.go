package authn_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/id"
)

const (
	issuerURL = "https://acme.localhost"
	audience  = issuerURL + "/api"
)

var errAway = errors.New("the issuer is away")

// clock is set by the test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// issuer is a tenant's issuer: its keys by id, and how often they were asked for.
type issuer struct {
	tenant  id.Tenant
	clock   *clock
	fetches atomic.Int64

	mu   sync.Mutex
	keys map[string]*ecdsa.PrivateKey
	away bool
	raw  []byte // in place of the keys
}

func newIssuer(t testing.TB, kids ...string) *issuer {
	t.Helper()
	i := &issuer{tenant: id.NewTenant(), clock: newClock(), keys: map[string]*ecdsa.PrivateKey{}}
	for _, kid := range kids {
		i.add(t, kid)
	}
	return i
}

func (i *issuer) add(t testing.TB, kid string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[kid] = key
}

func (i *issuer) set(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) fetch(context.Context) ([]byte, error) {
	i.fetches.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.away:
		return nil, errAway
	case i.raw != nil:
		return i.raw, nil
	}
	var set jose.JSONWebKeySet
	for kid, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"})
	}
	return json.Marshal(set)
}

func (i *issuer) remote() *authn.RemoteKeys { return authn.NewRemoteKeys(i.fetch, i.clock.Now) }

func (i *issuer) verifier(t testing.TB, keys authn.KeySource, revocations *authn.Revocations) *authn.Verifier {
	t.Helper()
	v, err := authn.NewVerifier(authn.Config{Issuer: issuerURL, Audience: audience, Tenant: i.tenant, Keys: keys, Revocations: revocations, Now: i.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (i *issuer) claims() authn.TokenClaims {
	now := i.clock.Now()
	return authn.TokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{Issuer: issuerURL, Subject: id.NewUser().String(), Audience: jwt.ClaimStrings{audience},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(authn.MaxLifetime)), ID: id.NewToken().String()},
		TenantID: i.tenant.String(), WorkspaceID: id.NewWorkspace().String(), Roles: []string{authz.WorkspaceViewer}, SessionID: id.NewSession().String(),
	}
}

func (i *issuer) token(t testing.TB, kid string, change func(*authn.TokenClaims)) string {
	t.Helper()
	c := i.claims()
	if change != nil {
		change(&c)
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, c)
	tok.Header["typ"], tok.Header["kid"] = authn.TokenType, kid
	i.mu.Lock()
	key := i.keys[kid]
	i.mu.Unlock()
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keySet is a key set with these keys, by kid.
func keySet(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
