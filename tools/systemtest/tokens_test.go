package systemtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// publicKey is the issuer's key set, and its first key.
func (x *tenant) publicKey(t *testing.T) (kid string, key *ecdsa.PublicKey, raw []byte) {
	t.Helper()
	res, err := x.client(t).Get(x.url + "/oauth2/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if raw, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []struct{ Kid, Kty, X, Y string }
	}
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("the key set is %s, %v", raw, err)
	}
	k := set.Keys[0]
	point := []byte{4}
	for _, c := range []string{k.X, k.Y} {
		b, err := base64.RawURLEncoding.DecodeString(c)
		if err != nil {
			t.Fatal(err)
		}
		point = append(point, b...)
	}
	if key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
		t.Fatal(err)
	}
	return k.Kid, key, raw
}

// decoded are header and claims of a token.
func decoded(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Header, parsed.Claims.(jwt.MapClaims)
}

// signed is a token with these claims and more headers.
func signed(t *testing.T, alg jwt.SigningMethod, key any, claims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(alg, jwt.MapClaims(claims))
	for k, v := range header {
		if k != "alg" {
			token.Header[k] = v
		}
	}
	out, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Rows T1, T2, T3 and T7, with a token that was good until somebody changed it.
func TestForgedTokensAreRefused(t *testing.T) {
	full(t)
	t.Parallel()
	good := acme().admin(t).token(t, "")
	header, claims := decoded(t, good)
	kid, public, set := acme().publicKey(t)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	fetched := &atomic.Int64{}
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer lure.Close()
	point, err := attacker.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}
	with := func(more map[string]any) map[string]any {
		out := map[string]any{}
		for _, m := range []map[string]any{header, more} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	parts := strings.Split(good, ".")
	p, err := acme().admin(t).session.Profile()
	if err != nil {
		t.Fatal(err)
	}
	richer := map[string]any{}
	for k, v := range claims {
		richer[k] = v
	}
	richer["roles"] = []string{"tenant:admin", "workspace:owner"}
	raw, err := json.Marshal(richer)
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"alg none (T1)":                             signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims, header),
		"no signature (T1)":                         parts[0] + "." + parts[1] + ".",
		"two parts (T1)":                            parts[0] + "." + parts[1],
		"HS256 with the public key as PEM (T2)":     signed(t, jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), claims, header),
		"HS256 with the public key as DER (T2)":     signed(t, jwt.SigningMethodHS256, der, claims, header),
		"HS256 with the key set (T2)":               signed(t, jwt.SigningMethodHS256, set, claims, header),
		"a key of its own in the header (T3)":       signed(t, jwt.SigningMethodES256, attacker, claims, with(map[string]any{"jwk": jwk})),
		"an address of keys in the header (T3)":     signed(t, jwt.SigningMethodES256, attacker, claims, with(map[string]any{"jku": lure.URL})),
		"an address of certificates (T3)":           signed(t, jwt.SigningMethodES256, attacker, claims, with(map[string]any{"x5u": lure.URL})),
		"a critical header that nobody knows (T3)":  signed(t, jwt.SigningMethodES256, attacker, claims, with(map[string]any{"crit": []string{"b64"}, "b64": false})),
		"an attacker's key under the issuer's id":   signed(t, jwt.SigningMethodES256, attacker, claims, header),
		"an attacker's key under a path as its id":  signed(t, jwt.SigningMethodES256, attacker, claims, with(map[string]any{"kid": "../../../../dev/null"})),
		"claims that were changed":                  parts[0] + "." + base64.RawURLEncoding.EncodeToString(raw) + "." + parts[2],
		"a refresh token (T7)":                      p.RefreshToken,
		"an assertion in the place of a token (T7)": signed(t, jwt.SigningMethodES256, attacker, claims, with(map[string]any{"typ": "JWT"})),
		"the signature in another form":             parts[0] + "." + parts[1] + "." + strings.TrimRight(parts[2], "=") + "=",
		"white space":                               good + " " + good,
		"nothing":                                   "",
		"many dots (T10)":                           strings.Repeat(".", 16<<10),
	} {
		for component, m := range probes(t) {
			if component == "discovery-worker" {
				continue
			}
			a, err := through(t, acme()).bearer(token).try(t, m.path(), contentType(m, "json"), []byte("{}"))
			if err != nil {
				t.Errorf("%s at %s: %v", what, component, err)
			} else if e := unauthenticated(a); e != nil {
				t.Errorf("%s at %s: %v", what, component, e)
			}
		}
	}
	if n := fetched.Load(); n > 0 {
		t.Errorf("what a token's header pointed at was fetched %d times", n)
	}
	if a := through(t, acme()).bearer(good).call(t, probes(t)["iam"], nil); a.code != "" {
		t.Errorf("the token itself is not good: %s", a)
	}
}

// Row T10: bounded by size before it is looked at. What the gateway doesn't even read is refused with 431.
func TestMegabyteOfDotsIsRefusedAtOnce(t *testing.T) {
	full(t)
	t.Parallel()
	began := time.Now()
	answers, closed := exchange(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: acme.%s:%d\r\nContent-Type: application/json\r\nContent-Length: 2\r\nAuthorization: Bearer %s\r\n\r\n{}",
		probes(t)["iam"].path(), shared.domain, shared.port, strings.Repeat(".", 1<<20)))
	switch took := time.Since(began); {
	case len(answers) == 0 && !closed, len(answers) > 1, len(answers) == 1 && !strings.HasPrefix(answers[0], "401") && !strings.HasPrefix(answers[0], "431"):
		t.Errorf("it is answered %q", answers)
	case took > endsWithin:
		t.Errorf("it took %s to refuse it", took)
	}
}

// Row T10: key ids that nobody has cost a service neither time nor memory. That they make it ask the issuer at most once an interval
// is seen where the issuer is the test's own, in libs/authn.
func TestTokensOfUnknownKeysAreRefusedInBoundedTimeAndMemory(t *testing.T) {
	full(t)
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	header, claims := decoded(t, globex().admin(t).token(t, ""))
	_, rest, _ := strings.Cut(signed(t, jwt.SigningMethodES256, key, claims, header), ".")
	const tokens, callers = 10_000, 8
	name := globex().id + "/integrations"
	pid := shared.pids(t)[name]
	before, began := resident(t, pid), time.Now()
	m, c := probes(t)["integrations"], past(t, globex(), "integrations")
	var wg sync.WaitGroup
	var wrong, slowest atomic.Int64
	for range callers {
		wg.Go(func() {
			for range tokens / callers {
				head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"` + rand.Text() + `"}`))
				sent := time.Now()
				a, err := c.bearer(head+"."+rest).try(t, m.path(), contentType(m, "json"), []byte("{}"))
				if err != nil || unauthenticated(a) != nil {
					wrong.Add(1)
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(sent))))
			}
		})
	}
	wg.Wait()
	grown := resident(t, pid) - before
	t.Logf("%d tokens in %s, the slowest in %s; memory grew by %d MB", tokens, time.Since(began).Round(time.Millisecond), time.Duration(slowest.Load()), grown>>20)
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d of %d tokens were not answered with 401", n, tokens)
	}
	const mostMemory = 64 << 20
	if grown > mostMemory || time.Duration(slowest.Load()) > endsWithin {
		t.Error("that is not bounded")
	}
	if now := shared.pids(t)[name]; now != pid {
		t.Errorf("the process was %d and is %d", pid, now)
	}
}

// resident is the memory that a process has in octets.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("this system doesn't tell a process's memory: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("process %d has no memory", pid)
	return 0
}
