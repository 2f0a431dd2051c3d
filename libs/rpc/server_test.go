package rpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/libs/authn"
	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/rpc"
	"a3os.app/libs/scope"
	"a3os.app/libs/workload"
)

const issuer = "https://acme.localhost"

// world is one tenant's server on loopback, with its issuer's key and its authorities.
type world struct {
	t           *testing.T
	tenant      id.Tenant
	key         *ecdsa.PrivateKey
	other       ed25519.PrivateKey
	revocations *authn.Revocations
	root        workload.Authority
	issuing     workload.Authority
	trust       workload.Trust
	addr        string
	fetches     int
	stop        context.CancelFunc
	stopped     chan error
	keys        *authn.RemoteKeys
	// dropped says that the issuer has another key by now.
	dropped atomic.Bool
}

// handlers answer with what the chain made of the caller.
type handlers struct {
	iamv1connect.UnimplementedIdentityServiceHandler
	discoveryv1connect.UnimplementedRunServiceHandler
	w *world
}

func (h handlers) GetSelf(ctx context.Context, _ *connect.Request[iamv1.GetSelfRequest]) (*connect.Response[iamv1.GetSelfResponse], error) {
	s, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&iamv1.GetSelfResponse{TenantId: s.Tenant.String(), WorkspaceId: s.Workspace.String(), PrincipalId: string(s.Principal), Permissions: s.Permissions}), nil
}

func (h handlers) GetRun(context.Context, *connect.Request[discoveryv1.GetRunRequest]) (*connect.Response[discoveryv1.Run], error) {
	panic("canary-4711 of the handler")
}

func (h handlers) ListRuns(context.Context, *connect.Request[discoveryv1.ListRunsRequest]) (*connect.Response[discoveryv1.ListRunsResponse], error) {
	return nil, errors.New("canary-4711 of the database")
}

func (h handlers) WatchRun(ctx context.Context, _ *connect.Request[discoveryv1.WatchRunRequest], stream *connect.ServerStream[discoveryv1.Run]) error {
	if err := stream.Send(&discoveryv1.Run{Id: "first"}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, tenant: id.NewTenant(), revocations: authn.NewRevocations(nil)}
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	_, w.other, _ = ed25519.GenerateKey(rand.Reader)
	domain := workload.TrustDomain{Plane: "dev", Tenant: w.tenant}
	if w.root, err = workload.NewRoot(domain, time.Now()); err != nil {
		t.Fatal(err)
	}
	if w.issuing, err = w.root.NewIntermediate(time.Now()); err != nil {
		t.Fatal(err)
	}
	roots, err := workload.ParseRoots(domain, w.root.CertificatePEM())
	if err != nil {
		t.Fatal(err)
	}
	w.trust = workload.Trust{Plane: "dev", Tenant: w.tenant, TenantRoots: roots}
	me := workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "discovery"}
	serverTLS, err := workload.ServerTLS(w.source(w.issuing, me), w.trust)
	if err != nil {
		t.Fatal(err)
	}
	w.keys = authn.NewRemoteKeys(func(context.Context) ([]byte, error) {
		w.fetches++
		kid := "k1"
		if w.dropped.Load() {
			kid = "k2"
		}
		return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.key.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
	}, nil)
	tokens, err := authn.NewVerifier(authn.Config{Issuer: issuer, Audience: issuer + "/api", Tenant: w.tenant, Keys: w.keys, Revocations: w.revocations})
	if err != nil {
		t.Fatal(err)
	}
	w.revocations.Apply(nil, 0)
	h := handlers{w: w}
	s, err := rpc.NewServer(rpc.ServerConfig{Identity: me, TLS: serverTLS, Tokens: tokens, Revocations: w.revocations,
		Peer: func(state tls.ConnectionState) (workload.Identity, bool, error) { return workload.Peer(state, w.trust) },
	}, []rpc.Service{
		rpc.Mount(iamv1connect.NewIdentityServiceHandler, iamv1connect.IdentityServiceHandler(h)),
		rpc.Mount(discoveryv1connect.NewRunServiceHandler, discoveryv1connect.RunServiceHandler(h)),
		rpc.Mount(discoveryv1connect.NewIngestServiceHandler, discoveryv1connect.IngestServiceHandler(discoveryv1connect.UnimplementedIngestServiceHandler{})),
	}, routes())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.stopped = cancel, make(chan error, 1)
	go func() { w.stopped <- s.ServeListener(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-w.stopped; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return w
}

func (w *world) source(a workload.Authority, who workload.Identity) *workload.Source {
	w.t.Helper()
	pair, err := a.IssueKeypair(who, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	if err := pair.Save(dir); err != nil {
		w.t.Fatal(err)
	}
	s, err := workload.OpenSource(dir, who)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// client reaches the server as a user's program does, over HTTP/2, or, with a source, as a workload.
func (w *world) client(source *workload.Source) *http.Client {
	roots := w.trust.TenantRoots
	cfg := &tls.Config{RootCAs: roots, ServerName: workload.Identity{Plane: "dev", Tenant: w.tenant, Service: "discovery"}.ServerName(), MinVersion: tls.VersionTLS13}
	if source != nil {
		cfg.GetClientCertificate = source.GetClientCertificate
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", w.addr)
		}}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func (w *world) claims(change func(*authn.TokenClaims)) authn.TokenClaims {
	now := time.Now()
	c := authn.TokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{Issuer: issuer, Subject: id.NewUser().String(), Audience: jwt.ClaimStrings{issuer + "/api"},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(5 * time.Minute)), ID: id.NewToken().String()},
		TenantID: w.tenant.String(), WorkspaceID: id.NewWorkspace().String(), Roles: []string{authz.WorkspaceMember}, SessionID: id.NewSession().String(),
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (w *world) token(c authn.TokenClaims, change func(*jwt.Token)) string {
	w.t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, c)
	tok.Header["typ"], tok.Header["kid"] = authn.TokenType, "k1"
	var key any = w.key
	if change != nil {
		change(tok)
	}
	switch tok.Method {
	case jwt.SigningMethodHS256:
		der, _ := x509.MarshalPKIXPublicKey(w.key.Public())
		key = der
	case jwt.SigningMethodNone:
		key = jwt.UnsafeAllowNoneSignatureType
	case jwt.SigningMethodEdDSA:
		key = w.other
	}
	s, err := tok.SignedString(key)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) self(source *workload.Source, token string, options ...connect.ClientOption) (*iamv1.GetSelfResponse, error) {
	c := iamv1connect.NewIdentityServiceClient(w.client(source), "https://discovery.invalid", options...)
	req := connect.NewRequest(&iamv1.GetSelfRequest{})
	if token != "" {
		req.Header().Set("Authorization", "Bearer "+token)
	}
	res, err := c.GetSelf(w.t.Context(), req)
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

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
