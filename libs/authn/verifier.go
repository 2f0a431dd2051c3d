// Package authn says who calls: it verifies access tokens against the tenant's own keys and follows the tenant's revocations. It
// promises that only a token of this tenant's issuer, for this audience, within its lifetime and not revoked is believed, in time
// and memory that a hostile caller can't drive up. It relies on the issuer for what the claims say.
package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"a3os.app/libs/authz"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/scope"
)

const (
	// maxTokenBytes is far above any token we issue.
	maxTokenBytes = 8 << 10
	// cacheEntries bounds the cache of verified tokens; an entry is about 600 bytes.
	cacheEntries = 4096
	// clockSkew is what two clocks of a plane may differ by.
	clockSkew = 5 * time.Second
)

// ErrToken is what every caller with a bad token learns; the log says why.
var ErrToken = fault.Declare(fault.Unauthenticated, "TOKEN", "the access token is not valid here: get a new one from this tenant's token endpoint")

// ErrRevoked is returned for a token whose session, membership or principal is no more.
var ErrRevoked = fault.Declare(fault.Unauthenticated, "TOKEN_REVOKED", "the access token was revoked: sign in again")

// Config is what a verifier is bound to.
type Config struct {
	// Issuer is the tenant's issuer, exactly.
	Issuer string
	// Audience is the tenant's API.
	Audience string
	// Tenant is whose tokens are believed.
	Tenant id.Tenant
	// Keys are the issuer's.
	Keys KeySource
	// Revocations are the tenant's.
	Revocations *Revocations
	// Now is the clock; nil means the machine's.
	Now func() time.Time
}

// Verifier verifies access tokens. It is safe for concurrent use.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
	cache  *lru.Cache[[sha256.Size]byte, cached]
}

type cached struct {
	claims     Claims
	generation uint64
}

// NewVerifier makes a verifier.
func NewVerifier(cfg Config) (*Verifier, error) {
	switch {
	case cfg.Issuer == "" || cfg.Audience == "" || cfg.Tenant.IsZero():
		return nil, errors.New("a verifier needs issuer, audience and tenant")
	case cfg.Keys == nil || cfg.Revocations == nil:
		return nil, errors.New("a verifier needs keys and revocations")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cache, err := lru.New[[sha256.Size]byte, cached](cacheEntries)
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(
		// RFC 8725 §3.1: the algorithms are ours to choose; which one a key is for is checked beside the key.
		jwt.WithValidMethods([]string{"ES256", "EdDSA"}),
		jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(clockSkew), jwt.WithTimeFunc(cfg.Now),
		jwt.WithStrictDecoding())
	return &Verifier{cfg: cfg, parser: parser, cache: cache}, nil
}

// Verify answers the claims of a token. It fails with ErrToken or ErrRevoked.
func (v *Verifier) Verify(ctx context.Context, raw string) (Claims, error) {
	if len(raw) > maxTokenBytes {
		return Claims{}, because("the token has %d bytes", len(raw))
	}
	// A token of the usual size is hashed from the stack.
	const usual = 1 << 10
	var buf [usual]byte
	sum := sha256.Sum256(append(buf[:0], raw...))
	generation := v.cfg.Keys.Generation()
	if c, ok := v.cache.Get(sum); ok && c.generation == generation {
		// The skew is for a clock that runs ahead at issue, never for living longer.
		if !v.cfg.Now().Before(c.claims.ExpiresAt) {
			v.cache.Remove(sum)
			return Claims{}, because("the token expired at %s", c.claims.ExpiresAt)
		}
		return c.claims, v.cfg.Revocations.Check(c.claims)
	}
	claims, err := v.parse(ctx, raw)
	if err != nil {
		return Claims{}, err
	}
	// The generation of before: the key may have been removed while the token was verified with it.
	v.cache.Add(sum, cached{claims: claims, generation: generation})
	return claims, v.cfg.Revocations.Check(claims)
}

func (v *Verifier) parse(ctx context.Context, raw string) (Claims, error) {
	// Split would make a slice as long as the dots are many.
	if strings.Count(raw, ".") != 2 {
		return Claims{}, because("it is not three parts")
	}
	var tc TokenClaims
	t, err := v.parser.ParseWithClaims(raw, &tc, func(t *jwt.Token) (any, error) { return v.key(ctx, t) })
	if err != nil {
		if fault.KindOf(err) == fault.Unavailable {
			return Claims{}, err
		}
		return Claims{}, because("%w", err)
	}
	if !t.Valid {
		return Claims{}, because("it did not verify")
	}
	return v.claims(tc)
}

// key finds the key that the header names, after the header has been looked at: nothing in it may bring a key along.
func (v *Verifier) key(ctx context.Context, t *jwt.Token) (any, error) {
	if typ, ok := t.Header["typ"].(string); !ok || !strings.EqualFold(typ, TokenType) {
		return nil, errors.New("it is not an access token")
	}
	for name := range t.Header {
		switch name {
		case "alg", "typ", "kid":
		default:
			return nil, errors.New("its header carries what no token of ours carries")
		}
	}
	kid, ok := t.Header["kid"].(string)
	if !ok || kid == "" {
		return nil, errors.New("its header names no key")
	}
	k, err := v.cfg.Keys.Key(ctx, kid)
	if err != nil {
		return nil, err
	}
	if k.Algorithm != t.Method.Alg() {
		return nil, errors.New("the key is for another algorithm")
	}
	return k.Public, nil
}

func (v *Verifier) claims(tc TokenClaims) (Claims, error) {
	if tc.IssuedAt == nil || tc.ExpiresAt.Sub(tc.IssuedAt.Time) > MaxLifetime {
		return Claims{}, because("it lives longer than the issuer may give")
	}
	// The parser's leeway would let an expired token live on by the skew.
	if !v.cfg.Now().Before(tc.ExpiresAt.Time) {
		return Claims{}, because("it expired at %s", tc.ExpiresAt.Time)
	}
	tenant, err := id.ParseTenant(tc.TenantID)
	if err != nil {
		return Claims{}, because("tid: %w", err)
	}
	c := Claims{Principal: scope.Principal(tc.Subject), Tenant: tenant, Revision: tc.Revision, ExpiresAt: tc.ExpiresAt.Time}
	_, uerr := id.ParseUser(tc.Subject)
	_, serr := id.ParseServiceAccount(tc.Subject)
	if uerr != nil && serr != nil {
		return Claims{}, because("sub is neither a user nor a service account")
	}
	if uerr == nil {
		if c.Session, err = id.ParseSession(tc.SessionID); err != nil {
			return Claims{}, because("sid: %w", err)
		}
	}
	if tc.WorkspaceID != "" {
		if c.Workspace, err = id.ParseWorkspace(tc.WorkspaceID); err != nil {
			return Claims{}, because("wid: %w", err)
		}
	}
	if tc.TransferID != "" {
		if c.Transfer, err = id.ParseTransfer(tc.TransferID); err != nil {
			return Claims{}, because("xfr: %w", err)
		}
	}
	if c.Permissions, err = authz.Permissions(tc.Roles); err != nil {
		return Claims{}, because("roles: %w", err)
	}
	return c, nil
}

// because is ErrToken with a cause for the log.
func because(format string, args ...any) error {
	e := ErrToken.With("%s", ErrToken.Message)
	e.Cause = fault.New(fault.Unauthenticated, "%s", errorf(format, args...).Error())
	return e
}
