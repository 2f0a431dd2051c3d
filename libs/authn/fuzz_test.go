package authn_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"a3os.app/libs/authn"
	"a3os.app/libs/fault"
)

// FuzzVerify holds that no text but the tokens which the issuer signed is believed, and that what isn't believed is told as such.
func FuzzVerify(f *testing.F) {
	i := newIssuer(f, "k1")
	v := i.verifier(f, i.remote(), authn.NewRevocations(nil))
	good := i.token(f, "k1", nil)
	parts := strings.Split(good, ".")
	encode := base64.RawURLEncoding.EncodeToString
	for _, seed := range []string{good, "", ".", "..", "...", good + ".", good + "=", " " + good, parts[0] + "." + parts[1] + ".", strings.ToUpper(good),
		encode([]byte(`{"alg":"none","typ":"at+jwt","kid":"k1"}`)) + "." + parts[1] + ".",
		encode([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"k1","kid":"k2"}`)) + "." + parts[1] + "." + parts[2],
		encode([]byte(`{"alg":"ES256","typ":"at+jwt","kid":{}}`)) + "." + parts[1] + "." + parts[2],
		encode([]byte(`null`)) + "." + encode([]byte(`null`)) + "." + parts[2],
		parts[0] + "." + encode([]byte(`{"exp":1e999}`)) + "." + parts[2],
		parts[0] + "." + parts[1] + "." + encode(make([]byte, 64)),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := v.Verify(t.Context(), raw)
		if (err == nil) != (raw == good) {
			t.Fatalf("%q: %+v, %v", raw, c, err)
		}
		if err != nil && (!errors.Is(err, authn.ErrToken) || fault.KindOf(err) != fault.Unauthenticated || c.Principal != "") {
			t.Fatalf("%q is refused as %+v, %v", raw, c, err)
		}
	})
}

// FuzzParseKeySet holds that no key set makes us believe in a key of another kind than ours.
func FuzzParseKeySet(f *testing.F) {
	f.Add(keySet(f, jose.JSONWebKey{Key: p256(f).Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}))
	f.Add([]byte(`{"keys":[{"kty":"oct","kid":"k1","alg":"HS256","k":"c2VjcmV0"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"k1","n":"AQ","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[null,{},{"kty":"EC"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, err := authn.ParseKeySet(raw)
		if err == nil && len(keys) == 0 {
			t.Fatal("a set without keys is believed")
		}
		for kid, k := range keys {
			switch p := k.Public.(type) {
			case *ecdsa.PublicKey:
				if _, err := p.ECDH(); k.Algorithm != "ES256" || p.Curve.Params().Name != "P-256" || err != nil {
					t.Fatalf("key %q: %+v, %v", kid, k, err)
				}
			case ed25519.PublicKey:
				if k.Algorithm != "EdDSA" || len(p) != ed25519.PublicKeySize {
					t.Fatalf("key %q: %+v", kid, k)
				}
			default:
				t.Fatalf("key %q is a %T", kid, p)
			}
			if kid == "" || err != nil {
				t.Fatalf("key %q, %v", kid, err)
			}
		}
	})
}
