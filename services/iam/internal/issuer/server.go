package issuer

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"a3os.app/libs/fault"
)

// Discovery answers the metadata (RFC 8414, OpenID Connect Discovery 1.0).
func (i *Issuer) Discovery(context.Context, *op.Request[struct{}]) (*op.Response, error) {
	return op.NewResponse(i.metadata()), nil
}

// Keys answers the public keys (RFC 7517).
func (i *Issuer) Keys(context.Context, *op.Request[struct{}]) (*op.Response, error) {
	return op.NewResponse(i.cfg.Keys.KeySet()), nil
}

// VerifyClient lets the public client through, and no other.
func (i *Issuer) VerifyClient(_ context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	if r.Data.ClientID != PublicClient {
		return nil, op.NewStatusError(oidc.ErrInvalidClient().WithDescription("there is no such client: leave client_id out"), http.StatusUnauthorized)
	}
	return publicClient{}, nil
}

// invalidGrant is all that a caller learns of a credential that isn't good.
func invalidGrant() error {
	return oidc.ErrInvalidGrant().WithDescription("the credential is not good: it has expired, was used, was revoked, or never was")
}

// refused counts a refusal and answers the error for it.
func (i *Issuer) refused(ctx context.Context, err error) error {
	i.cfg.Denials.Count(ctx, "iam.token.denied")
	return err
}

// broken is an error of ours as a caller may see it: op would show any other in full.
func broken(err error) error {
	passes := []fault.Kind{fault.Unavailable, fault.ResourceExhausted, fault.Aborted, fault.DeadlineExceeded, fault.Canceled}
	if slices.Contains(passes, fault.KindOf(err)) {
		return op.NewStatusError(oidc.ErrServerError().WithDescription("the issuer can't answer now; try again shortly").WithParent(err),
			http.StatusServiceUnavailable)
	}
	return op.NewStatusError(oidc.ErrServerError().WithDescription("something went wrong on our side").WithParent(err),
		http.StatusInternalServerError)
}

// publicClient is the one client as op wants it. Most of it is about flows that aren't mounted.
type publicClient struct{}

func (publicClient) GetID() string                       { return PublicClient }
func (publicClient) RedirectURIs() []string              { return nil }
func (publicClient) PostLogoutRedirectURIs() []string    { return nil }
func (publicClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (publicClient) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodNone }
func (publicClient) ResponseTypes() []oidc.ResponseType  { return nil }
func (publicClient) GrantTypes() []oidc.GrantType        { return slices.Clone(grantTypes) }
func (publicClient) LoginURL(string) string              { return "" }
func (publicClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (publicClient) IDTokenLifetime() time.Duration      { return 0 }
func (publicClient) DevMode() bool                       { return false }
func (publicClient) IsScopeAllowed(string) bool          { return false }
func (publicClient) ClockSkew() time.Duration            { return 0 }

func (publicClient) IDTokenUserinfoClaimsAssertion() bool { return false }

func (publicClient) RestrictAdditionalIdTokenScopes() func([]string) []string { return none }

func (publicClient) RestrictAdditionalAccessTokenScopes() func([]string) []string { return none }

func none([]string) []string { return nil }
