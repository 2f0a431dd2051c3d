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
	"maps"
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
	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"a3os.app/libs/fault"
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

// signingKey is the key that the tenant's issuer signs with. Only root of the machine can put together what opens it: the key-encryption
// key, which iam alone is told of, and the database. With it a token is wrong in nothing but what a test makes wrong.
func (x *tenant) signingKey(t *testing.T) (kid string, key *ecdsa.PrivateKey) {
	t.Helper()
	text, err := os.ReadFile(x.file("keys", "kek.secret"))
	if err != nil {
		t.Fatal(err)
	}
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := subtle.NewAESGCM(kek)
	if err != nil {
		t.Fatal(err)
	}
	var sealed []byte
	if err := x.plane.superuser(t, "postgres", x.id).QueryRow(t.Context(), "SELECT kid, sealed FROM iam.signing_keys WHERE state = 'current'").Scan(&kid, &sealed); err != nil {
		t.Fatal(err)
	}
	raw, err := cipher.Decrypt(sealed, []byte("a3os signing key\x00"+x.id+"\x00"+kid))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the signing key is a %T", parsed)
	}
	return kid, key
}

// forged is a token that nobody may believe.
type forged struct{ row, what, token string }

// but is a copy of header or claims with some of it changed, or, where the new value is nil, taken away.
func but(of map[string]any, change map[string]any) map[string]any {
	out := maps.Clone(of)
	for k, v := range change {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

// forgeries are bad tokens made of a good one. lure is an address that nobody may fetch from.
func forgeries(t *testing.T, w *person, good, lure string) []forged {
	t.Helper()
	header, claims := decoded(t, good)
	kid, public, set := w.tenant.publicKey(t)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := attacker.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}
	theirs := func(change map[string]any) string {
		return signed(t, jwt.SigningMethodES256, attacker, claims, but(header, change))
	}
	own, key := w.tenant.signingKey(t)
	ours := func(ofHeader, ofClaims map[string]any) string {
		return signed(t, jwt.SigningMethodES256, key, but(claims, ofClaims), but(but(header, map[string]any{"kid": own}), ofHeader))
	}
	now := time.Now().Unix()
	parts := strings.Split(good, ".")
	p, err := w.session.Profile()
	if err != nil {
		t.Fatal(err)
	}
	richer, err := json.Marshal(but(claims, map[string]any{"roles": []string{"tenant:admin", "workspace:owner"}}))
	if err != nil {
		t.Fatal(err)
	}
	// The leeway is seconds; the attempts take a minute on a slow machine, in which no token may come of age.
	const minute, hour, skewed = 60, 3600, 120
	return []forged{
		{"T1", "alg none", signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims, header)},
		{"T1", "no signature", parts[0] + "." + parts[1] + "."},
		{"T1", "two parts", parts[0] + "." + parts[1]},
		{"T2", "HS256 with the public key as PEM", signed(t, jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), claims, header)},
		{"T2", "HS256 with the public key as DER", signed(t, jwt.SigningMethodHS256, der, claims, header)},
		{"T2", "HS256 with the key set", signed(t, jwt.SigningMethodHS256, set, claims, header)},
		{"T3", "a key of its own in the header", theirs(map[string]any{"jwk": jwk})},
		{"T3", "an address of keys in the header", theirs(map[string]any{"jku": lure})},
		{"T3", "an address of certificates", theirs(map[string]any{"x5u": lure})},
		{"T3", "a critical header that nobody knows", theirs(map[string]any{"crit": []string{"b64"}, "b64": false})},
		{"T3", "a key that really signs, and an address of another", ours(map[string]any{"jku": lure}, nil)},
		{"T6", "another audience", ours(nil, map[string]any{"aud": "https://other.example/api"})},
		{"T6", "another issuer", ours(nil, map[string]any{"iss": globex().url})},
		{"T7", "a refresh token", p.RefreshToken},
		{"T7", "an id token", ours(map[string]any{"typ": "JWT"}, nil)},
		{"T7", "no type", ours(map[string]any{"typ": nil}, nil)},
		{"T7", "an assertion in the place of a token", theirs(map[string]any{"typ": "JWT"})},
		{"T8", "expired a minute ago", ours(nil, map[string]any{"iat": now - 5*minute, "exp": now - minute})},
		{"T8", "expired this second", ours(nil, map[string]any{"exp": now - 1})},
		{"T8", "not valid yet", ours(nil, map[string]any{"nbf": now + skewed})},
		{"T8", "issued in the future", ours(nil, map[string]any{"iat": now + skewed})},
		{"T8", "without an end", ours(nil, map[string]any{"exp": nil})},
		{"T8", "longer than the issuer may give", ours(nil, map[string]any{"exp": now + hour})},
		{"T8", "without a beginning", ours(nil, map[string]any{"iat": nil})},
		{"", "an attacker's key under the issuer's id", theirs(nil)},
		{"", "an attacker's key under a path as its id", theirs(map[string]any{"kid": "../../../../dev/null"})},
		{"", "claims that were changed", parts[0] + "." + base64.RawURLEncoding.EncodeToString(richer) + "." + parts[2]},
		{"", "the signature in another form", parts[0] + "." + parts[1] + "." + strings.TrimRight(parts[2], "=") + "="},
		{"", "white space", good + " " + good},
		{"", "nobody's subject", ours(nil, map[string]any{"sub": "root"})},
		{"", "a role that doesn't exist", ours(nil, map[string]any{"roles": []string{"god"}})},
		{"T10", "many dots", strings.Repeat(".", 16<<10)},
	}
}

// Rows T1, T2, T3, T6, T7, T8 and T10: every method, through every door, with every bad token, each told the same.
func TestBadTokenIsRefusedByEveryMethodAtEveryDoor(t *testing.T) {
	full(t)
	t.Parallel()
	fetched := &atomic.Int64{}
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer lure.Close()
	admin := acme().admin(t)
	good := admin.token(t, "")
	bad := forgeries(t, admin, good, lure.URL)
	type attempt struct {
		m rpcMethod
		forged
		by   *visitor
		like answer
	}
	var all []attempt
	cases := map[string]int{}
	for _, d := range doors() {
		v := d.visit(t, acme())
		for _, m := range methods(t) {
			if !d.leads(m) {
				continue
			}
			like := v.send(t, m, nil, "Authorization", "Bearer not-a-token")
			for _, f := range bad {
				all = append(all, attempt{m, f, v, like})
				cases[f.row]++
			}
		}
	}
	n := crowd(all, func(a attempt) {
		got := a.by.send(t, a.m, nil, "Authorization", "Bearer "+a.token)
		if err := refusal(got, fault.Unauthenticated); err != nil {
			t.Errorf("%s, %s, %s: %v", a.by.name, a.m.path(), a.what, err)
		} else if !got.same(a.like) {
			t.Errorf("%s, %s: %s is told %s, and rubbish %s", a.by.name, a.m.path(), a.what, got, a.like)
		}
	})
	t.Logf("%d calls", n)
	if n := fetched.Load(); n > 0 {
		t.Errorf("what a token's header pointed at was fetched %d times", n)
	}
	// The token that they were made of is good, and so is one that the test signs as the issuer does.
	kid, key := acme().signingKey(t)
	header, claims := decoded(t, good)
	for what, token := range map[string]string{"the token": good, "the test's own": signed(t, jwt.SigningMethodES256, key, claims, but(header, map[string]any{"kid": kid}))} {
		for _, d := range doors() {
			a := d.visit(t, acme()).send(t, probes(t)["iam"], nil, "Authorization", "Bearer "+token)
			if get := strings.HasPrefix(d.name, "GET"); a.code != "" && !get || a.code == "unauthenticated" {
				t.Errorf("%s, %s: it is not good to begin with: %s", d.name, what, a)
			}
		}
	}
	for row, n := range cases {
		if row != "" {
			held(t, n, row)
			acme().probed("rpc.caller.unverified", "unknown", row)
		}
	}
}

// Rows T1, T2, T3, T6, T7 and T8, at what is served plainly: the log's own routes, through the gateway and past it.
func TestBadTokenIsRefusedByEveryPlainRoute(t *testing.T) {
	full(t)
	t.Parallel()
	fetched := &atomic.Int64{}
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer lure.Close()
	admin := acme().admin(t)
	good := admin.token(t, "")
	bad := forgeries(t, admin, good, lure.URL)
	cases := map[string]int{}
	for _, door := range []caller{through(t, acme()), past(t, acme(), "audit")} {
		for _, path := range []string{"checkpoint", "tile/0/000", "tile/0/000.p/1", "tile/entries/000", "tile/entries/000.p/1", "tile/../checkpoint"} {
			like, err := door.bearer("not-a-token").get(t, logPrefix+path)
			if err != nil {
				t.Fatal(err)
			}
			if path != "tile/../checkpoint" && like.status != http.StatusUnauthorized {
				t.Errorf("%s answers rubbish with %s", path, like)
			}
			for _, f := range bad {
				got, err := door.bearer(f.token).get(t, logPrefix+path)
				if err != nil {
					t.Fatal(err)
				}
				if !got.same(like) {
					t.Errorf("%s, %s: it is told %s, and rubbish %s", path, f.what, got, like)
				}
				cases[f.row]++
			}
		}
		if a, err := door.bearer(good).get(t, logPrefix+"checkpoint"); err != nil || a.status != http.StatusOK {
			t.Errorf("the token that they were made of is not good to begin with: %s, %v", a, err)
		}
	}
	if n := fetched.Load(); n > 0 {
		t.Errorf("what a token's header pointed at was fetched %d times", n)
	}
	for row, n := range cases {
		if row != "" {
			held(t, n, row)
			acme().probed("rpc.caller.unverified", "unknown", row)
		}
	}
}

// Row T10: bounded by size before it is looked at. What the gateway doesn't even read is refused with 431.
func TestMegabyteOfDotsIsRefusedAtOnce(t *testing.T) {
	full(t)
	t.Parallel()
	before := steady(t)
	began := time.Now()
	answers, closed := exchange(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: acme.%s:%d\r\nContent-Type: application/json\r\nContent-Length: 2\r\nAuthorization: Bearer %s\r\n\r\n{}",
		probes(t)["iam"].path(), shared.domain, shared.port, strings.Repeat(".", 1<<20)))
	switch took := time.Since(began); {
	case len(answers) == 0 && !closed, len(answers) > 1, len(answers) == 1 && !strings.HasPrefix(answers[0], "401") && !strings.HasPrefix(answers[0], "431"):
		t.Errorf("it is answered %q", answers)
	case took > endsWithin:
		t.Errorf("it took %s to refuse it", took)
	}
	type attempt struct {
		d door
		m rpcMethod
	}
	var all []attempt
	for _, d := range doors() {
		for component, m := range probes(t) {
			if d.leads(m) && (component == "iam" || d.straight) {
				all = append(all, attempt{d, m})
			}
		}
	}
	cases := 1 + crowd(all, func(x attempt) {
		v, began := x.d.visit(t, acme()), time.Now()
		// What is refused before it is read, or by the client itself, has no code of ours.
		if a := v.send(t, x.m, nil, "Authorization", "Bearer "+strings.Repeat(".", 1<<20)); a.code == "" || a.code == "internal" || time.Since(began) > endsWithin {
			t.Errorf("%s, %s: it is answered %s after %s", x.d.name, x.m.path(), a, time.Since(began))
		}
	})
	now := steady(t)
	for name, pid := range before {
		if now[name] != pid {
			t.Errorf("%s ended of it", name)
		}
	}
	if len(now) != len(before) {
		t.Errorf("the processes were %v and are %v", before, now)
	}
	held(t, cases, "T10")
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
	held(t, tokens, "T10")
	globex().probed("rpc.caller.unverified", "unknown", "T10")
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
