package authn_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
)

// fixed is one key, of whatever kind and said to be for whatever algorithm, as an issuer might come to publish it.
type fixed struct{ of authn.Key }

func (f fixed) Key(context.Context, string) (authn.Key, error) { return f.of, nil }

func (fixed) Generation() uint64 { return 1 }

// Attack T2: which algorithm a token is verified by is said by the key and by a list of ours, each by itself, and never by the token.
func TestTokenIsVerifiedByTheAlgorithmOfItsKeyAlone(t *testing.T) {
	i := newIssuer(t)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const bits = 2048
	old, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		key     crypto.Signer
		keyIs   string
		tokenIs jwt.SigningMethod
		good    bool
	}{
		{"the key's own", curve, "ES256", jwt.SigningMethodES256, true},
		{"another than the key's", curve, "EdDSA", jwt.SigningMethodES256, false},
		{"the key's own, which is none of ours", old, "RS256", jwt.SigningMethodRS256, false},
		{"padded otherwise, which is none of ours", old, "PS256", jwt.SigningMethodPS256, false},
	} {
		revocations := authn.NewRevocations(i.clock.Now)
		v := i.verifier(t, fixed{authn.Key{Algorithm: c.keyIs, Public: c.key.Public()}}, revocations)
		tok := jwt.NewWithClaims(c.tokenIs, i.claims())
		tok.Header["typ"], tok.Header["kid"] = authn.TokenType, "k1"
		raw, err := tok.SignedString(c.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), raw); (err == nil) != c.good || err != nil && !errors.Is(err, authn.ErrToken) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	t.Attr("row", "T2 3")
}

// Attack T11, where the token was never seen before its session was revoked: nothing of it is kept that could answer.
func TestTokenThatComesFirstAfterItsRevocationIsRefused(t *testing.T) {
	i := newIssuer(t, "k1")
	revocations := authn.NewRevocations(i.clock.Now)
	v := i.verifier(t, i.remote(), revocations)
	var of authn.TokenClaims
	token := i.token(t, "k1", func(c *authn.TokenClaims) { of = *c })
	revocations.Apply([]*iamv1.Revocation{{Sequence: 1, PrincipalId: of.Subject, SessionId: of.SessionID}}, 1)
	for range 2 {
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, authn.ErrRevoked) {
			t.Errorf("want it revoked, got %v", err)
		}
	}
	t.Attr("row", "T11 2")
}

// Attack T10: also a token that is good in all else is refused where it is larger than any of ours.
func TestTokenLargerThanAnyOfOursIsRefused(t *testing.T) {
	i := newIssuer(t, "k1")
	v := i.verifier(t, i.remote(), authn.NewRevocations(i.clock.Now))
	const far = 16 << 10
	for size, good := range map[int]bool{100: true, far: false} {
		token := i.token(t, "k1", func(c *authn.TokenClaims) { c.Audience = append(c.Audience, strings.Repeat("a", size)) })
		if _, err := v.Verify(t.Context(), token); (err == nil) != good || err != nil && !errors.Is(err, authn.ErrToken) {
			t.Errorf("of %d octets: %v", len(token), err)
		}
	}
	t.Attr("row", "T10 1")
}
