package authn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/go-jose/go-jose/v4"

	"a3os.app/libs/authn"
	"a3os.app/libs/fault"
)

// Attack T10.
func TestManyUnknownKeysCostOneFetchAnInterval(t *testing.T) {
	i := newIssuer(t, "k1")
	keys := i.remote()
	if _, err := keys.Key(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	for interval := range 3 {
		i.clock.advance(6 * time.Second)
		before := i.fetches.Load()
		var all sync.WaitGroup
		for n := range 1000 {
			all.Go(func() {
				if _, err := keys.Key(t.Context(), fmt.Sprint("unknown-", n)); err == nil {
					t.Error("an unknown key is known")
				}
			})
		}
		all.Wait()
		if n := i.fetches.Load() - before; n != 1 {
			t.Errorf("interval %d: %d fetches, want 1", interval, n)
		}
	}
	if n := i.fetches.Load(); n != 4 {
		t.Errorf("%d fetches in all, want 4", n)
	}
	if _, err := keys.Key(t.Context(), "k1"); err != nil || keys.Generation() != 1 {
		t.Errorf("the known key: %v, generation %d", err, keys.Generation())
	}
	t.Attr("row", "T10 3000")
}

func TestNewKeyIsFoundAtOnce(t *testing.T) {
	i := newIssuer(t, "k1")
	keys := i.remote()
	if _, err := keys.Key(t.Context(), "k1"); err != nil {
		t.Fatal(err)
	}
	i.add(t, "k2")
	i.clock.advance(6 * time.Second)
	if _, err := keys.Key(t.Context(), "k2"); err != nil || keys.Generation() != 2 {
		t.Errorf("%v, generation %d", err, keys.Generation())
	}
}

func TestLastGoodKeysAreKeptWhileTheIssuerHasNone(t *testing.T) {
	for name, away := range map[string]func(*issuer){
		"away":      func(i *issuer) { i.away = true },
		"malformed": func(i *issuer) { i.raw = []byte(`{"keys":`) },
		"empty":     func(i *issuer) { i.raw = []byte(`{"keys":[]}`) },
		"a page":    func(i *issuer) { i.raw = []byte("<html>maintenance</html>") },
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, "k1")
			keys := i.remote()
			want, err := keys.Key(t.Context(), "k1")
			if err != nil {
				t.Fatal(err)
			}
			i.set(away)
			for range 100 {
				i.clock.advance(10 * time.Minute)
				if got, err := keys.Key(t.Context(), "k1"); err != nil || got != want || keys.Generation() != 1 {
					t.Fatalf("%v, %v, generation %d", got, err, keys.Generation())
				}
			}
			if n := i.fetches.Load(); n != 101 {
				t.Errorf("%d fetches, want one an interval and the first", n)
			}
			if _, err := keys.Key(t.Context(), "k2"); err == nil {
				t.Error("an unknown key is known")
			}
		})
	}
}

func TestNoKeysYetIsUnavailableAndNoFaultOfTheToken(t *testing.T) {
	i := newIssuer(t, "k1")
	i.set(func(i *issuer) { i.away = true })
	v := i.verifier(t, i.remote(), authn.NewRevocations(nil))
	token := i.token(t, "k1", nil)
	_, err := v.Verify(t.Context(), token)
	if fault.Connect(err).Code() != connect.CodeUnavailable || errors.Is(err, authn.ErrToken) {
		t.Errorf("error is %v", err)
	}
	i.set(func(i *issuer) { i.away = false })
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("the issuer is back: %v", err)
	}
}

func TestCallerWhoGivesUpDoesNotFailTheOthers(t *testing.T) {
	i := newIssuer(t, "k1")
	ctx, cancel := context.WithCancel(t.Context())
	keys := authn.NewRemoteKeys(func(ctx context.Context) ([]byte, error) {
		cancel() // the caller who began the fetch is gone
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return i.fetch(ctx)
	}, i.clock.Now)
	if _, err := keys.Key(ctx, "k1"); err != nil {
		t.Error(err)
	}
}

func TestRemovedKeyStopsBeingBelieved(t *testing.T) {
	i := newIssuer(t, "k1", "k2")
	keys := i.remote()
	revocations := authn.NewRevocations(i.clock.Now)
	v := i.verifier(t, keys, revocations)
	token, other := i.token(t, "k1", nil), i.token(t, "k2", nil)
	for _, tok := range []string{token, other, token} {
		if _, err := v.Verify(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
	}
	i.set(func(i *issuer) { delete(i.keys, "k1") })
	if err := keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, authn.ErrToken) {
		t.Errorf("the cached token of a removed key: %v", err)
	}
	if _, err := v.Verify(t.Context(), i.token(t, "k2", nil)); err != nil {
		t.Errorf("the key that stays: %v", err)
	}
}

// A service whose callers all have cached tokens asks for no key; it must learn of a removed one all the same.
func TestRemovedKeyIsNoticedThoughNobodyAsksForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "k1", "k2")
		keys := authn.NewRemoteKeys(i.fetch, nil)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go keys.Follow(ctx)
		v, err := authn.NewVerifier(authn.Config{Issuer: issuerURL, Audience: audience, Tenant: i.tenant, Keys: keys, Revocations: authn.NewRevocations(nil)})
		if err != nil {
			t.Fatal(err)
		}
		token := i.token(t, "k1", nil)
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		i.set(func(i *issuer) { delete(i.keys, "k1") })
		<-time.After(61 * time.Second) // of the bubble's clock
		synctest.Wait()
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, authn.ErrToken) {
			t.Errorf("the cached token of a removed key: %v", err)
		}
		i.set(func(i *issuer) { i.away = true })
		before := i.fetches.Load()
		<-time.After(10 * time.Minute)
		if n := i.fetches.Load() - before; n < 5 || n > 12 {
			t.Errorf("%d fetches in ten minutes", n)
		}
		stop()
		synctest.Wait()
	})
}

// movingKeys is a source whose set changes right after it answered: the race that a verifier can lose.
type movingKeys struct {
	authn.KeySource
	after func()
}

func (m movingKeys) Key(ctx context.Context, kid string) (authn.Key, error) {
	k, err := m.KeySource.Key(ctx, kid)
	m.after()
	return k, err
}

func TestKeyRemovedDuringVerificationIsNotBelievedOn(t *testing.T) {
	i := newIssuer(t, "k1", "k2")
	keys := i.remote()
	if err := keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	moving := movingKeys{keys, func() {
		i.set(func(i *issuer) { delete(i.keys, "k1") })
		if err := keys.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	v := i.verifier(t, moving, authn.NewRevocations(nil))
	token := i.token(t, "k1", nil)
	_, _ = v.Verify(t.Context(), token)
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, authn.ErrToken) {
		t.Errorf("a token verified with a key that was removed meanwhile: %v", err)
	}
}

func TestKeySetsThatHoldNoUsableKeyAreRefused(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := p256(t).Public()
	big := make([]jose.JSONWebKey, 0, 1000)
	for n := range 1000 {
		big = append(big, jose.JSONWebKey{Key: good, KeyID: fmt.Sprint("k", n)})
	}
	for name, raw := range map[string][]byte{
		"nothing":                {},
		"null":                   []byte("null"),
		"malformed":              []byte(`{"keys":[`),
		"array":                  []byte(`[]`),
		"empty":                  []byte(`{"keys":[]}`),
		"no keys":                []byte(`{}`),
		"two documents":          append(keySet(t, jose.JSONWebKey{Key: good, KeyID: "k"}), "{}"...),
		"cut off":                keySet(t, jose.JSONWebKey{Key: good, KeyID: "k"})[:100],
		"oversized":              keySet(t, big...),
		"padded":                 []byte(strings.Repeat(" ", 1<<20) + string(keySet(t, jose.JSONWebKey{Key: good, KeyID: "k"}))),
		"HS256":                  keySet(t, jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "k", Algorithm: "HS256"}),
		"symmetric as ES256":     keySet(t, jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "k", Algorithm: "ES256"}),
		"RSA":                    keySet(t, jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "k", Algorithm: "RS256"}),
		"P-384":                  keySet(t, jose.JSONWebKey{Key: p384.Public(), KeyID: "k", Algorithm: "ES384"}),
		"P-384 as ES256":         keySet(t, jose.JSONWebKey{Key: p384.Public(), KeyID: "k", Algorithm: "ES256"}),
		"a private key":          keySet(t, jose.JSONWebKey{Key: edwards, KeyID: "k", Algorithm: "EdDSA"}),
		"for encryption":         keySet(t, jose.JSONWebKey{Key: good, KeyID: "k", Use: "enc"}),
		"without an id":          keySet(t, jose.JSONWebKey{Key: good, Algorithm: "ES256"}),
		"P-256 as EdDSA":         keySet(t, jose.JSONWebKey{Key: good, KeyID: "k", Algorithm: "EdDSA"}),
		"P-256 as HS256":         keySet(t, jose.JSONWebKey{Key: good, KeyID: "k", Algorithm: "HS256"}),
		"P-256 as none":          keySet(t, jose.JSONWebKey{Key: good, KeyID: "k", Algorithm: "none"}),
		"point not on the curve": []byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}]}`),
		"two keys of one id":     keySet(t, jose.JSONWebKey{Key: good, KeyID: "k"}, jose.JSONWebKey{Key: p256(t).Public(), KeyID: "k"}),
	} {
		if keys, err := authn.ParseKeySet(raw); err == nil {
			t.Errorf("%s: read as %v", name, keys)
		}
	}
	keys, err := authn.ParseKeySet(keySet(t, jose.JSONWebKey{Key: good, KeyID: "a", Algorithm: "ES256", Use: "sig"}, jose.JSONWebKey{Key: edwards.Public(), KeyID: "b"},
		jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "c"}, jose.JSONWebKey{Key: []byte("secret"), KeyID: "d"}))
	if err != nil || len(keys) != 2 || keys["a"].Algorithm != "ES256" || keys["b"].Algorithm != "EdDSA" {
		t.Errorf("good keys among others: %v, %v", keys, err)
	}
}
