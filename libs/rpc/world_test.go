package rpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	if until, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
		return nil, fmt.Errorf("the call has until %s: %w", until, ctx.Err())
	}
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
	return newWorldOf(t, func(*rpc.ServerConfig) {})
}

// newWorldOf is a world whose server is configured otherwise.
func newWorldOf(t *testing.T, change func(*rpc.ServerConfig)) *world {
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
	cfg := rpc.ServerConfig{Identity: me, TLS: serverTLS, Tokens: tokens, Revocations: w.revocations,
		Peer: func(state tls.ConnectionState) (workload.Identity, bool, error) { return workload.Peer(state, w.trust) },
	}
	change(&cfg)
	s, err := rpc.NewServer(cfg, []rpc.Service{
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
