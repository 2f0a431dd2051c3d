package issuer

import (
	"context"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"a3os.app/libs/failpoint"
)

const (
	// PublicClient is the one client there is until clients can be registered: any program of ours that runs at a person's. It has no
	// secret, so that nothing rests on who says to be it.
	PublicClient = "a3"

	maxBody = 64 << 10
)

// endpoints are op's, those left nil are not mounted.
func endpoints() op.Endpoints {
	return op.Endpoints{
		Token:      op.NewEndpoint("/oauth2/token"),
		Revocation: op.NewEndpoint("/oauth2/revoke"),
		JwksURI:    op.NewEndpoint("/oauth2/keys"),
	}
}

// metadataPath is where OAuth 2.0 clients look (RFC 8414 §3); OpenID clients look at oidc.DiscoveryEndpoint.
const metadataPath = "/.well-known/oauth-authorization-server"

// Route is a plain HTTP route, and why it may be called by someone not yet known.
type Route struct {
	// Pattern is of net/http's mux, with its method.
	Pattern string
	// Handler serves it.
	Handler http.Handler
	// Open is the reason.
	Open string
}

// Routes is what the issuer serves. Only these patterns reach op: it would answer any method anywhere, and health checks of its own.
func (i *Issuer) Routes() []Route {
	server := op.RegisterServer(i, endpoints(), op.WithServerCORSOptions(nil), op.WithFallbackLogger(slog.New(onlyErrors{slog.Default().Handler()})))
	const public = "public by its standard, and holds no secret"
	return []Route{
		{"GET " + oidc.DiscoveryEndpoint, recoverer(server), public},
		{"GET " + metadataPath, recoverer(at(oidc.DiscoveryEndpoint, server)), public},
		{"GET /oauth2/keys", recoverer(cached(server)), public},
		{"POST /oauth2/token", recoverer(formOnly(server)), "the grant in the request is the credential"},
		{"POST /oauth2/revoke", recoverer(formOnly(server)), "the token in the request is the credential"},
	}
}

// Handler is the routes behind one handler, for tests.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range i.Routes() {
		mux.Handle(r.Pattern, r.Handler)
	}
	return mux
}

// recoverer stands outside of op, which has panicked on what a caller sent before.
func recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		defer func() {
			if v := recover(); v != nil {
				// What it panicked with may be what a caller sent: only its type and the stack are logged.
				slog.ErrorContext(ctx, "the issuer's endpoint panicked", "path", r.URL.Path, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
				http.Error(w, `{"error":"server_error"}`, http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// formOnly lets in what RFC 6749 §3.2 allows and op does not check: parameters in the body alone, each once, and no client secret, for
// no client has one. The answer must not be kept by anyone (§5.1).
func formOnly(next http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, r *http.Request, status int, err *oidc.Error) {
		op.WriteError(w, r, op.NewStatusError(err, status), slog.New(slog.DiscardHandler))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Pragma", "no-cache")
		if r.Header.Get("Authorization") != "" {
			refuse(w, r, http.StatusUnauthorized, oidc.ErrInvalidClient().WithDescription("no client of this issuer has a secret: send no Authorization header"))
			return
		}
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" || r.URL.RawQuery != "" {
			refuse(w, r, http.StatusBadRequest, oidc.ErrInvalidRequest().WithDescription("send the parameters in the body, as application/x-www-form-urlencoded"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			refuse(w, r, http.StatusBadRequest, oidc.ErrInvalidRequest().WithDescription("the form can't be read"))
			return
		}
		failpoint.Panic("iam.issuer.form", r.PostForm)
		for name, values := range r.PostForm {
			if len(values) > 1 && name != "resource" && name != "audience" {
				refuse(w, r, http.StatusBadRequest, oidc.ErrInvalidRequest().WithDescription("a parameter is given twice"))
				return
			}
		}
		for _, name := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
			if r.PostForm.Has(name) {
				refuse(w, r, http.StatusUnauthorized, oidc.ErrInvalidClient().WithDescription("no client of this issuer authenticates: leave %s out", name))
				return
			}
		}
		if !r.Form.Has("client_id") {
			// A public client need not say its name (RFC 6749 §3.2.1), and op demands one.
			r.Form.Set("client_id", PublicClient)
		}
		next.ServeHTTP(w, r)
	})
}

// at serves another path's document.
func at(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path = path
		next.ServeHTTP(w, r)
	})
}

// cached lets clients keep the keys for less than the time that a new key is published before it signs.
func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		next.ServeHTTP(w, r)
	})
}

// onlyErrors keeps op from logging every refused request, which callers could fill the disk with, and every route.
type onlyErrors struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h onlyErrors) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && h.Handler.Enabled(ctx, l)
}

// metadata is the discovery document. The lists say what there is; op's own would promise what isn't mounted.
type metadata struct {
	oidc.DiscoveryConfiguration
	// ResponseTypesSupported is demanded by RFC 8414, and empty: there is no authorization endpoint yet.
	ResponseTypesSupported []string `json:"response_types_supported"`
}

func (i *Issuer) metadata() metadata {
	e := endpoints()
	return metadata{
		DiscoveryConfiguration: oidc.DiscoveryConfiguration{
			Issuer:                            i.cfg.Issuer,
			TokenEndpoint:                     e.Token.Absolute(i.cfg.Issuer),
			RevocationEndpoint:                e.Revocation.Absolute(i.cfg.Issuer),
			JwksURI:                           e.JwksURI.Absolute(i.cfg.Issuer),
			GrantTypesSupported:               slices.Clone(grantTypes),
			SubjectTypesSupported:             []string{"public"},
			IDTokenSigningAlgValuesSupported:  []string{"ES256"},
			TokenEndpointAuthMethodsSupported: []oidc.AuthMethod{oidc.AuthMethodNone},
			RevocationEndpointAuthMethodsSupported: []oidc.AuthMethod{
				oidc.AuthMethodNone,
			},
		},
		ResponseTypesSupported: []string{},
	}
}

var grantTypes = []oidc.GrantType{oidc.GrantTypeBearer, oidc.GrantTypeRefreshToken, oidc.GrantTypeTokenExchange}
