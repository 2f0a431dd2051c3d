package rpc_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/workload"
)

func TestGoodTokenIsBelieved(t *testing.T) {
	w := newWorld(t)
	c := w.claims(nil)
	got, err := w.self(nil, w.token(c, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.GetTenantId() != w.tenant.String() || got.GetPrincipalId() != c.Subject || got.GetWorkspaceId() != c.WorkspaceID {
		t.Fatalf("scope is %v", got)
	}
}

// Attacks T1, T2, T3, T5, T6, T7, T8 and T10, in every protocol. Each name begins with its row.
func TestBadTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	good := w.token(w.claims(nil), nil)
	hour := jwt.NewNumericDate(time.Now().Add(time.Hour))
	past := jwt.NewNumericDate(time.Now().Add(-time.Second))
	later := jwt.NewNumericDate(time.Now().Add(time.Minute))
	parts := strings.Split(good, ".")
	tokens := map[string]string{
		"T1 alg none":           w.token(w.claims(nil), func(t *jwt.Token) { t.Method = jwt.SigningMethodNone; t.Header["alg"] = "none" }),
		"T1 signature stripped": parts[0] + "." + parts[1] + ".",
		"T2 HS256 with the public key": w.token(w.claims(nil), func(t *jwt.Token) {
			t.Method = jwt.SigningMethodHS256
			t.Header["alg"] = "HS256"
		}),
		"T3 jwk in the header":    w.token(w.claims(nil), func(t *jwt.Token) { t.Header["jwk"] = map[string]any{"kty": "EC"} }),
		"T3 jku in the header":    w.token(w.claims(nil), func(t *jwt.Token) { t.Header["jku"] = "https://127.0.0.1:1/keys" }),
		"T3 x5u in the header":    w.token(w.claims(nil), func(t *jwt.Token) { t.Header["x5u"] = "https://127.0.0.1:1/cert" }),
		"crit in the header":      w.token(w.claims(nil), func(t *jwt.Token) { t.Header["crit"] = []string{"exp"} }),
		"EdDSA under an ES256 id": w.token(w.claims(nil), func(t *jwt.Token) { t.Method = jwt.SigningMethodEdDSA; t.Header["alg"] = "EdDSA" }),
		"unknown key":             w.token(w.claims(nil), func(t *jwt.Token) { t.Header["kid"] = "k2" }),
		"no key id":               w.token(w.claims(nil), func(t *jwt.Token) { delete(t.Header, "kid") }),
		"T5 another tenant":       w.token(w.claims(func(c *authn.TokenClaims) { c.TenantID = "" }), nil),
		"T6 another audience":     w.token(w.claims(func(c *authn.TokenClaims) { c.Audience = jwt.ClaimStrings{"https://other/api"} }), nil),
		"another issuer":          w.token(w.claims(func(c *authn.TokenClaims) { c.Issuer = "https://globex.localhost" }), nil),
		"T7 id token":             w.token(w.claims(nil), func(t *jwt.Token) { t.Header["typ"] = "JWT" }),
		"T7 refresh token":        "rt_0123456789abcdefghijklmnop",
		"T8 expired":              w.token(w.claims(func(c *authn.TokenClaims) { c.ExpiresAt = past }), nil),
		"T8 not yet valid":        w.token(w.claims(func(c *authn.TokenClaims) { c.NotBefore = later }), nil),
		"T8 issued in the future": w.token(w.claims(func(c *authn.TokenClaims) { c.IssuedAt = later }), nil),
		"T8 without exp":          w.token(w.claims(func(c *authn.TokenClaims) { c.ExpiresAt = nil }), nil),
		"T8 lives too long":       w.token(w.claims(func(c *authn.TokenClaims) { c.ExpiresAt = hour }), nil),
		"no principal":            w.token(w.claims(func(c *authn.TokenClaims) { c.Subject = "root" }), nil),
		"unknown role":            w.token(w.claims(func(c *authn.TokenClaims) { c.Roles = []string{"god"} }), nil),
		"changed payload":         parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x"}`)) + "." + parts[2],
		"T10 dots":                strings.Repeat(".", 60_000),
		"empty":                   " ",
	}
	protocols := map[string][]connect.ClientOption{"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}}
	cases := map[string]int{}
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			for protocol, options := range protocols {
				if _, err := w.self(nil, token, options...); connect.CodeOf(err) != connect.CodeUnauthenticated {
					t.Errorf("%s: want unauthenticated, got %v", protocol, err)
				}
			}
		})
		if row, _, numbered := strings.Cut(name, " "); numbered && row[0] == 'T' {
			cases[row] += len(protocols)
		}
	}
	for row, n := range cases {
		t.Attr("row", fmt.Sprintf("%s %d", row, n))
	}
	if _, err := w.self(nil, good); err != nil {
		t.Fatalf("the good token afterwards: %v", err)
	}
}

// Attack T5, with the first wall down.
func TestTokenOfAnotherTenantIsRefusedByTheChainWhenTheKeyWallHasFallen(t *testing.T) {
	w := newWorld(t)
	// Signed by our own issuer's key: the first wall is down.
	token := w.token(w.claims(func(c *authn.TokenClaims) { c.TenantID = id.NewTenant().String() }), nil)
	if _, err := w.self(nil, token); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatalf("want permission denied, got %v", err)
	}
	// Nor as what a workload presents.
	worker := w.source(w.issuing, workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "discovery-worker"})
	req := connect.NewRequest(&discoveryv1.BeginSliceRequest{Attempt: 1})
	req.Header().Set("Authorization", "Bearer "+token)
	if _, err := discoveryv1connect.NewIngestServiceClient(w.client(worker), "https://discovery.invalid").BeginSlice(t.Context(), req); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatalf("presented by a workload that is listed: want permission denied, got %v", err)
	}
	t.Attr("row", "T5 2")
}

// Attack T10.
func TestManyUnknownKeysCostOneFetch(t *testing.T) {
	w := newWorld(t)
	if _, err := w.self(nil, w.token(w.claims(nil), nil)); err != nil {
		t.Fatal(err)
	}
	before := w.fetches
	const tokens = 200
	for range tokens {
		token := w.token(w.claims(nil), func(t *jwt.Token) { t.Header["kid"] = rand.Text() })
		if _, err := w.self(nil, token); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Fatalf("want unauthenticated, got %v", err)
		}
	}
	if got := w.fetches - before; got > 1 {
		t.Fatalf("%d fetches for unknown keys in one interval", got)
	}
	t.Attr("row", fmt.Sprintf("T10 %d", tokens))
}

func TestRevokedTokenIsRefusedAndItsStreamEnds(t *testing.T) {
	w := newWorld(t)
	c := w.claims(nil)
	token := w.token(c, nil)
	if _, err := w.self(nil, token); err != nil {
		t.Fatal(err)
	}
	runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid", connect.WithGRPC())
	req := connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: id.NewRun().String()})
	req.Header().Set("Authorization", "Bearer "+token)
	stream, err := runs.WatchRun(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() {
		t.Fatalf("no first message: %v", stream.Err())
	}
	w.revocations.Apply([]*iamv1.Revocation{{Sequence: 1, PrincipalId: c.Subject, WorkspaceId: c.WorkspaceID}}, 1)
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnauthenticated {
		t.Fatalf("the stream of a removed member: %v", stream.Err())
	}
	if _, err := w.self(nil, token); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Fatalf("the token of a removed member: %v", err)
	}
	other := w.claims(func(o *authn.TokenClaims) { o.Subject, o.Revision = c.Subject, 1; o.WorkspaceID = c.WorkspaceID })
	if _, err := w.self(nil, w.token(other, nil)); err != nil {
		t.Fatalf("a token issued after the revocation: %v", err)
	}
}

// An emergency rotation reaches what is open already: a stream goes on no longer than its token's key is believed.
func TestStreamEndsWhenTheKeyOfItsTokenIsDropped(t *testing.T) {
	w := newWorld(t)
	token := w.token(w.claims(nil), nil)
	runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid", connect.WithGRPC())
	req := connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: id.NewRun().String()})
	req.Header().Set("Authorization", "Bearer "+token)
	stream, err := runs.WatchRun(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() {
		t.Fatalf("no first message: %v", stream.Err())
	}
	w.dropped.Store(true)
	if !w.keys.Announced([]string{"k2"}) {
		t.Fatal("the key was not dropped")
	}
	w.revocations.LookAgain()
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnauthenticated {
		t.Fatalf("the stream of a token whose key is gone: %v", stream.Err())
	}
}

func TestOpenStreamEndsWhenTheServerDrains(t *testing.T) {
	w := newWorld(t)
	runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid", connect.WithGRPC())
	req := connect.NewRequest(&discoveryv1.WatchRunRequest{RunId: id.NewRun().String()})
	req.Header().Set("Authorization", "Bearer "+w.token(w.claims(nil), nil))
	stream, err := runs.WatchRun(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() {
		t.Fatalf("no first message: %v", stream.Err())
	}
	began := time.Now()
	w.stop()
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
		t.Errorf("the stream of a server that drains: %v", stream.Err())
	}
	if err := <-w.stopped; err != nil {
		t.Errorf("the server did not drain: %v", err)
	}
	w.stopped <- nil
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("draining took %s with nothing but a stream open", took)
	}
}

func TestPanicAndUnknownErrorSayNothing(t *testing.T) {
	w := newWorld(t)
	for _, opt := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid", opt)
		get := connect.NewRequest(&discoveryv1.GetRunRequest{RunId: id.NewRun().String()})
		get.Header().Set("Authorization", "Bearer "+w.token(w.claims(nil), nil))
		_, perr := runs.GetRun(t.Context(), get)
		list := connect.NewRequest(&discoveryv1.ListRunsRequest{})
		list.Header().Set("Authorization", "Bearer "+w.token(w.claims(nil), nil))
		_, eerr := runs.ListRuns(t.Context(), list)
		for _, err := range []error{perr, eerr} {
			if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "canary") {
				t.Errorf("want an opaque internal error, got %v", err)
			}
		}
	}
}

func TestWorkloadsCallWhatListsThemAndNothingElse(t *testing.T) {
	w := newWorld(t)
	worker := w.source(w.issuing, workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "discovery-worker"})
	audit := w.source(w.issuing, workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "audit"})
	begin := func(source *workload.Source, token string) error {
		c := discoveryv1connect.NewIngestServiceClient(w.client(source), "https://discovery.invalid")
		req := connect.NewRequest(&discoveryv1.BeginSliceRequest{Attempt: 1})
		if token != "" {
			req.Header().Set("Authorization", "Bearer "+token)
		}
		_, err := c.BeginSlice(t.Context(), req)
		return err
	}
	user := w.token(w.claims(nil), nil)
	for name, c := range map[string]struct {
		source *workload.Source
		token  string
		want   connect.Code
	}{
		"nobody":                             {nil, "", connect.CodeUnauthenticated},
		"a user":                             {nil, user, connect.CodePermissionDenied},
		"another service":                    {audit, user, connect.CodePermissionDenied},
		"the worker with nothing presented":  {worker, "", connect.CodePermissionDenied},
		"the worker with what authorised it": {worker, user, connect.CodeUnimplemented},
	} {
		t.Run(name, func(t *testing.T) {
			if err := begin(c.source, c.token); connect.CodeOf(err) != c.want {
				t.Fatalf("want %v, got %v", c.want, err)
			}
		})
	}
	// And a workload is no user: a method for people refuses it.
	if _, err := w.self(worker, ""); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatalf("a workload at a method for people: %v", err)
	}
}

func TestInvalidRequestNamesTheFieldToWhoMayCallAndNothingToOthers(t *testing.T) {
	w := newWorld(t)
	runs := discoveryv1connect.NewRunServiceClient(w.client(nil), "https://discovery.invalid")
	call := func(roles ...string) error {
		req := connect.NewRequest(&discoveryv1.GetRunRequest{RunId: "nonsense"})
		req.Header().Set("Authorization", "Bearer "+w.token(w.claims(func(c *authn.TokenClaims) { c.Roles = roles }), nil))
		_, err := runs.GetRun(t.Context(), req)
		return err
	}
	if err := call(authz.WorkspaceViewer); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "run_id") {
		t.Errorf("want an invalid argument that names run_id, got %v", err)
	}
	if err := call(); connect.CodeOf(err) != connect.CodePermissionDenied || strings.Contains(err.Error(), "run_id") {
		t.Errorf("want a refusal that says nothing of the request, got %v", err)
	}
}

func TestDeclaredErrorsAreFoundAgainAcrossRPC(t *testing.T) {
	declared := fault.Declare(fault.FailedPrecondition, "OWNER_CHANGED", "the owner changed")
	back := fault.FromRPC(fault.Connect(declared.With("the owner is now usr_b")))
	if !errors.Is(back, declared) || fault.KindOf(back) != fault.FailedPrecondition {
		t.Fatalf("connect: %v", back)
	}
	if back = fault.FromRPC(fault.Status(declared)); !errors.Is(back, declared) {
		t.Fatalf("grpc: %v", back)
	}
}
