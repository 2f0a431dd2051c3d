package issuer

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"a3os.app/libs/authn"
	"a3os.app/libs/id"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/store"
)

// workspaceURN names a workspace as a resource (RFC 8693 §2.1 wants an absolute URI).
const workspaceURN = "urn:a3os:workspace:"

// TokenExchange trades an access token for one of a workspace that its principal is a member of (RFC 8693). The new token lives no
// longer than the old one, so that a copied token can't be kept alive by exchanging it.
func (i *Issuer) TokenExchange(ctx context.Context, r *op.ClientRequest[oidc.TokenExchangeRequest]) (*op.Response, error) {
	if err := onlyWhatWeDo(r.Data); err != nil {
		return nil, err
	}
	target, err := i.target(r.Form.Get("workspace"), r.Data)
	if err != nil {
		return nil, i.refused(ctx, err)
	}
	subject, err := i.verifier.Verify(ctx, r.Data.SubjectToken)
	if err != nil || subject.Tenant != i.cfg.Tenant {
		return nil, i.refused(ctx, invalidGrant())
	}
	var res *oidc.TokenExchangeResponse
	note := &noted{}
	err = i.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		g, err := i.exchanged(ctx, store.New(tx), subject, target)
		if err != nil {
			return err
		}
		what := record.Event{Action: "iam.token.exchanged", Target: target.String(), Workspace: target, Transfer: g.transfer}
		if err := i.note(ctx, tx, note, g.subject, g.subject+g.session.String()+target.String(), what); err != nil {
			return err
		}
		token, expires, err := i.mint(g)
		if err != nil {
			return err
		}
		res = &oidc.TokenExchangeResponse{AccessToken: token, IssuedTokenType: oidc.AccessTokenType, TokenType: oidc.BearerToken, ExpiresIn: expires}
		return nil
	})
	if err != nil {
		return nil, i.answer(ctx, err)
	}
	i.seen.add(note)
	return op.NewResponse(res), nil
}

// onlyWhatWeDo refuses to answer for less than was asked.
func onlyWhatWeDo(r *oidc.TokenExchangeRequest) error {
	tokens := []oidc.TokenType{oidc.AccessTokenType, oidc.JWTTokenType}
	switch {
	case !slices.Contains(tokens, r.SubjectTokenType):
		return oidc.ErrInvalidRequest().WithDescription("subject_token_type must be %s", oidc.AccessTokenType)
	case r.RequestedTokenType != "" && !slices.Contains(tokens, r.RequestedTokenType):
		return oidc.ErrInvalidRequest().WithDescription("requested_token_type must be %s", oidc.AccessTokenType)
	case r.ActorToken != "" || r.ActorTokenType != "":
		return oidc.ErrInvalidRequest().WithDescription("nobody acts for another here: leave actor_token out")
	}
	return nil
}

// errTarget is the one answer for a workspace that isn't there and for one that the caller is no member of.
func errTarget() error {
	return oidc.ErrInvalidTarget().WithDescription("you are not a member of such a workspace")
}

// target is the one workspace that the request names: as `workspace`, or as RFC 8693 has it, as `resource` or `audience`. The audience
// of all our tokens may be named beside it.
func (i *Issuer) target(workspace string, r *oidc.TokenExchangeRequest) (id.Workspace, error) {
	var names []string
	if workspace != "" {
		names = append(names, workspace)
	}
	for _, a := range slices.Concat(r.Resource, r.Audience) {
		if a == Audience(i.cfg.Issuer) {
			continue
		}
		name, ok := strings.CutPrefix(a, workspaceURN)
		if !ok {
			return id.Workspace{}, errTarget()
		}
		names = append(names, name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) != 1 {
		return id.Workspace{}, oidc.ErrInvalidRequest().WithDescription("name one workspace: workspace=wsp_… or resource=%swsp_…", workspaceURN)
	}
	w, err := id.ParseWorkspace(names[0])
	if err != nil {
		return w, errTarget()
	}
	return w, nil
}

// exchanged is what the new token says. Roles and sequence number come from one snapshot, and the question whether the old token was
// revoked comes after it: whatever is revoked in between is either seen here or has a greater number than the new token.
func (i *Issuer) exchanged(ctx context.Context, q *store.Queries, subject authn.Claims, w id.Workspace) (grant, error) {
	g := grant{subject: string(subject.Principal), session: subject.Session, workspace: w, notAfter: subject.ExpiresAt}
	var role *string
	if user := subject.Principal.User(); !user.IsZero() {
		access, err := userAccess(ctx, q, user, subject.Session, w, i.cfg.Now())
		if err != nil {
			return g, err
		}
		g.client, g.transfer, g.revision, role = PublicClient, access.TransferID, access.Sequence, access.WorkspaceRole
	} else {
		account, err := id.ParseServiceAccount(g.subject)
		if err != nil {
			return g, bad(err)
		}
		access, err := q.ServiceAccountAccess(ctx, store.ServiceAccountAccessParams{ID: account, WorkspaceID: w})
		if errors.Is(err, pgx.ErrNoRows) {
			return g, errBad
		}
		if err != nil {
			return g, err
		}
		g.client, g.transfer, g.revision, role = g.subject, access.TransferID, access.Sequence, access.WorkspaceRole
	}
	revoked, err := q.RevokedSince(ctx, store.RevokedSinceParams{
		IssuedAt: subject.Revision, Principal: g.subject, SessionID: subject.Session, WorkspaceID: subject.Workspace,
	})
	switch {
	case err != nil:
		return g, err
	case revoked:
		return g, errBad
	case role == nil:
		return g, errTarget()
	}
	g.roles = workspaceRoles(role)
	return g, nil
}
