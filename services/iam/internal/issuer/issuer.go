// Package issuer is the tenant's OAuth 2.0 authorization server: the token endpoint (RFC 7523 for programs, refresh tokens for people,
// RFC 8693 to choose a workspace), revocation (RFC 7009), keys and metadata. It promises access tokens of one form only (RFC 9068:
// `at+jwt`, ES256, ten minutes at most), whose rights and revocation sequence number were read in one snapshot; that an assertion works
// once; and that no answer says more of a refusal than its kind. Requests are parsed and routed by zitadel/oidc's op; what op decides
// by itself (client assertions, signing, exchange) is decided here.
package issuer

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/zitadel/oidc/v3/pkg/op"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"

	"a3os.app/services/iam/internal/denial"
	"a3os.app/services/iam/internal/keyring"
)

// Config is what an issuer is made of.
type Config struct {
	// Issuer is the tenant's issuer URL, exactly as tokens carry it: https://acme.localhost:7443.
	Issuer string
	// Tenant is whose issuer this is.
	Tenant id.Tenant
	// DB is role_iam_tenant's database.
	DB *pg.DB
	// Keys are the signing keys.
	Keys *keyring.Ring
	// Denials counts what was refused.
	Denials *denial.Counter
	// Revoked is called after a revocation was committed.
	Revoked func()
	// Now is the clock.
	Now func() time.Time
}

// Issuer issues the tenant's tokens. It is safe for concurrent use.
type Issuer struct {
	op.UnimplementedServer
	cfg      Config
	verifier *authn.Verifier
	parser   *jwt.Parser
	seen     *seen
}

// Audience is the audience of an issuer's access tokens: the tenant's API.
func Audience(issuer string) string { return strings.TrimSuffix(issuer, "/") + "/api" }

// New makes an issuer.
func New(cfg Config) (*Issuer, error) {
	u, err := url.Parse(cfg.Issuer)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Path != "" {
		return nil, fmt.Errorf("the issuer %q is not an URL of the form https://host[:port] without a path: check A3_ISSUER", cfg.Issuer)
	}
	if cfg.Tenant.IsZero() || cfg.DB == nil || cfg.Keys == nil || cfg.Denials == nil || cfg.Revoked == nil || cfg.Now == nil {
		return nil, errors.New("an issuer needs tenant, database, keys, denials, revoked and a clock")
	}
	i := &Issuer{cfg: cfg, seen: newSeen(cfg.Now)}
	// The verifier checks what a subject token says of itself. Whether it was revoked is asked of the database, in the transaction that
	// issues: the set of revocations in memory may be half a second old, and stays empty here.
	i.verifier, err = authn.NewVerifier(authn.Config{
		Issuer: cfg.Issuer, Audience: Audience(cfg.Issuer), Tenant: cfg.Tenant, Keys: cfg.Keys,
		Revocations: authn.NewRevocations(cfg.Now), Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	i.parser = assertionParser(cfg.Issuer, cfg.Now)
	return i, nil
}

// Verifier verifies this issuer's tokens without asking anybody, revocations aside.
func (i *Issuer) Verifier() *authn.Verifier { return i.verifier }

// grant is what an access token is made of.
type grant struct {
	subject   string
	client    string
	session   id.Session
	workspace id.Workspace
	roles     []string
	transfer  id.Transfer
	revision  int64
	notAfter  time.Time
}

// claims is an access token as this issuer writes it.
type claims struct {
	authn.TokenClaims
	// ClientID is demanded by RFC 9068 §2.2.
	ClientID string `json:"client_id"`
}

// mint signs an access token. It never outlives notAfter, where that is set.
func (i *Issuer) mint(g grant) (token string, expiresIn uint64, err error) {
	issued := i.cfg.Now().Truncate(time.Second)
	expires := issued.Add(authn.MaxLifetime)
	if !g.notAfter.IsZero() && g.notAfter.Before(expires) {
		expires = g.notAfter
	}
	if g.roles == nil {
		g.roles = []string{}
	}
	signer := i.cfg.Keys.Signer()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, claims{
		TokenClaims: authn.TokenClaims{
			RegisteredClaims: jwt.RegisteredClaims{
				Issuer: i.cfg.Issuer, Subject: g.subject, Audience: jwt.ClaimStrings{Audience(i.cfg.Issuer)},
				ExpiresAt: jwt.NewNumericDate(expires), IssuedAt: jwt.NewNumericDate(issued), ID: id.NewToken().String(),
			},
			TenantID: i.cfg.Tenant.String(), WorkspaceID: g.workspace.String(), Roles: g.roles,
			SessionID: g.session.String(), Revision: g.revision, TransferID: g.transfer.String(),
		},
		ClientID: g.client,
	})
	t.Header["typ"], t.Header["kid"] = authn.TokenType, signer.KeyID
	if token, err = t.SignedString(signer.Key); err != nil {
		return "", 0, fmt.Errorf("sign an access token: %w", err)
	}
	return token, uint64(max(0, int64(expires.Sub(i.cfg.Now()).Seconds()))), nil //nolint:gosec // not negative
}

// tenantRoles and workspaceRoles are a stored role as tokens carry it.
func tenantRoles(role *string) []string {
	if role == nil {
		return nil
	}
	return []string{"tenant:" + *role}
}

func workspaceRoles(role *string) []string {
	if role == nil {
		return nil
	}
	return []string{"workspace:" + *role}
}
