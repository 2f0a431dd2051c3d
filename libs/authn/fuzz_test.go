package authn_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

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

// FuzzClaims holds that whatever the right key signs is believed only within the bounds that a token has, and as what it says; which is
// looked for here in
// the claims as encoding/json reads them. That the tenant is the right one is the chain's to see.
func FuzzClaims(f *testing.F) {
	i := newIssuer(f, "k1")
	v := i.verifier(f, i.remote(), authn.NewRevocations(nil))
	seed := func(change func(map[string]any)) {
		raw, err := json.Marshal(i.claims())
		if err != nil {
			f.Fatal(err)
		}
		claims := map[string]any{}
		if err := json.Unmarshal(raw, &claims); err != nil {
			f.Fatal(err)
		}
		change(claims)
		if raw, err = json.Marshal(claims); err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	seed(func(map[string]any) {})
	for _, name := range []string{"iss", "aud", "sub", "tid", "wid", "roles", "jti", "exp", "iat", "sid"} {
		seed(func(c map[string]any) { delete(c, name) })
		seed(func(c map[string]any) { c[name] = nil })
		seed(func(c map[string]any) { c[name] = map[string]any{"a": 1} })
		seed(func(c map[string]any) { c[name] = []any{c[name], "more"} })
		seed(func(c map[string]any) { c[name] = 1e18 })
	}
	f.Add([]byte("null"))
	f.Add([]byte(strings.Repeat("[", 20_000)))
	key := i.keys["k1"]
	encode := base64.RawURLEncoding.EncodeToString
	head := encode([]byte(`{"alg":"ES256","typ":"` + authn.TokenType + `","kid":"k1"}`))
	f.Fuzz(func(t *testing.T, claims []byte) {
		signature, err := jwt.SigningMethodES256.Sign(head+"."+encode(claims), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := v.Verify(t.Context(), head+"."+encode(claims)+"."+encode(signature))
		if err != nil {
			if fault.KindOf(err) != fault.Unauthenticated || c.Principal != "" {
				t.Fatalf("%q is refused as %+v, %v", claims, c, err)
			}
			return
		}
		var said struct {
			Iss, Sub, Tid string
			Aud           any
			Exp           float64
		}
		if err := json.Unmarshal(claims, &said); err != nil {
			t.Fatalf("%q is believed, and encoding/json says: %v", claims, err)
		}
		until := time.Unix(int64(said.Exp), 0)
		if said.Iss != issuerURL || said.Tid != c.Tenant.String() || said.Sub != string(c.Principal) || !strings.Contains(fmt.Sprint(said.Aud), audience) ||
			!until.After(i.clock.Now()) || until.Sub(i.clock.Now()) > authn.MaxLifetime+2*time.Minute {
			t.Fatalf("%q is believed as %+v", claims, c)
		}
	})
}
