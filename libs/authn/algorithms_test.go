package authn_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"github.com/golang-jwt/jwt/v5"

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
