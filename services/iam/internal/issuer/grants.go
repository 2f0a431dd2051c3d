package issuer

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/session"
	"a3os.app/services/iam/internal/store"
)

// errBad is a credential that isn't good. Transactions that meet it are rolled back.
var errBad = errors.New("the credential is not good")

// answer turns the error of a grant into what the caller sees.
func (i *Issuer) answer(ctx context.Context, err error) error {
	if oe, ok := errors.AsType[*oidc.Error](err); ok {
		return i.refused(ctx, oe)
	}
	if errors.Is(err, errBad) {
		return i.refused(ctx, invalidGrant())
	}
	return broken(err)
}

// JWTProfile trades a service account's assertion for an access token (RFC 7523).
func (i *Issuer) JWTProfile(ctx context.Context, r *op.Request[oidc.JWTProfileGrantRequest]) (*op.Response, error) {
	var token string
	var expires uint64
	note := &noted{}
	err := i.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		account, err := i.takeAssertion(ctx, q, r.Data.Assertion)
		if err != nil {
			return err
		}
		access, err := q.ServiceAccountAccess(ctx, store.ServiceAccountAccessParams{ID: account.ID})
		if err != nil {
			return err
		}
		signedIn := record.Event{Action: "iam.service_account.signed_in", Target: account.ID.String()}
		if err := i.note(ctx, tx, note, account.ID.String(), account.ID.String(), signedIn); err != nil {
			return err
		}
		token, expires, err = i.mint(grant{
			subject: account.ID.String(), client: account.ID.String(), roles: tenantRoles(access.TenantRole), revision: access.Sequence,
		})
		return err
	})
	if err != nil {
		return nil, i.answer(ctx, err)
	}
	i.seen.add(note)
	return op.NewResponse(&oidc.AccessTokenResponse{AccessToken: token, TokenType: oidc.BearerToken, ExpiresIn: expires}), nil
}

// RefreshToken trades a refresh token for an access token and its successor. One that was used before ends the session.
func (i *Issuer) RefreshToken(ctx context.Context, r *op.ClientRequest[oidc.RefreshTokenRequest]) (*op.Response, error) {
	var res *oidc.AccessTokenResponse
	var reused bool
	err := i.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q, now := store.New(tx), i.cfg.Now()
		res, reused = nil, false
		used, err := session.Use(ctx, q, r.Data.RefreshToken, now)
		if err != nil {
			return err
		}
		switch used.Outcome {
		case session.Rotated, session.Repeated:
		case session.Reused:
			// Committed, though the caller is refused: whoever has the copy loses the session too.
			reused = true
			return i.endReused(ctx, tx, used, now)
		case session.Refused:
			return errBad
		}
		access, err := userAccess(ctx, q, used.User, used.Session, id.Workspace{}, now)
		if err != nil {
			return err
		}
		token, expires, err := i.mint(grant{
			subject: used.User.String(), client: PublicClient, session: used.Session, roles: tenantRoles(access.TenantRole), revision: access.Sequence,
		})
		if err != nil {
			return err
		}
		res = &oidc.AccessTokenResponse{AccessToken: token, TokenType: oidc.BearerToken, ExpiresIn: expires, RefreshToken: used.Token}
		return nil
	})
	if err != nil {
		return nil, i.answer(ctx, err)
	}
	if reused {
		i.cfg.Revoked()
		return nil, i.refused(ctx, invalidGrant())
	}
	return op.NewResponse(res), nil
}

func (i *Issuer) endReused(ctx context.Context, tx pgx.Tx, used session.Refresh, now time.Time) error {
	if _, err := session.End(ctx, store.New(tx), used.Session, used.User, now); err != nil {
		return err
	}
	return record.AppendUnknown(ctx, tx, used.User.String(), record.Event{
		Action: "iam.session.refresh_reused", Target: used.Session.String(), Outcome: auditv1.Outcome_OUTCOME_DENIED,
	})
}

// userAccess reads what a person's token may say. It fails with errBad when the session or the person is over.
func userAccess(ctx context.Context, q *store.Queries, user id.User, s id.Session, w id.Workspace, now time.Time) (store.UserAccessRow, error) {
	access, err := q.UserAccess(ctx, store.UserAccessParams{UserID: user, SessionID: s, WorkspaceID: w, Now: now})
	if errors.Is(err, pgx.ErrNoRows) || (err == nil && access.State != "active") {
		return access, errBad
	}
	return access, err
}

// Revocation ends the session that a refresh token or a person's access token belongs to (RFC 7009). What isn't a token, or no longer
// one, is answered as if it had been.
func (i *Issuer) Revocation(ctx context.Context, r *op.ClientRequest[oidc.RevocationRequest]) (*op.Response, error) {
	var ended bool
	err := i.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		ended = false
		s, user, err := i.sessionOf(ctx, q, r.Data.Token)
		if err != nil || s.IsZero() {
			return err
		}
		if ended, err = session.End(ctx, q, s, user, i.cfg.Now()); err != nil || !ended {
			return err
		}
		return record.AppendUnknown(ctx, tx, user.String(), record.Event{Action: "iam.session.ended", Target: s.String()})
	})
	if oe, ok := errors.AsType[*oidc.Error](err); ok {
		return nil, oe
	}
	if err != nil {
		return nil, broken(err)
	}
	if ended {
		i.cfg.Revoked()
	}
	return op.NewResponse(nil), nil
}

// sessionOf answers the session that a refresh token or an access token belongs to; none for what isn't one.
func (i *Issuer) sessionOf(ctx context.Context, q *store.Queries, token string) (id.Session, id.User, error) {
	s, user, found, err := session.Owner(ctx, q, token)
	if err != nil || found {
		return s, user, err
	}
	// A token that doesn't verify is none of ours, which is no error (RFC 7009 §2.2).
	c, _ := i.verifier.Verify(ctx, token)
	if c.Session.IsZero() && c.Principal != "" {
		// To say nothing would read as "revoked".
		return s, user, &oidc.Error{ErrorType: "unsupported_token_type", Description: "a service account's token ends by itself, or with the account"}
	}
	return c.Session, c.Principal.User(), nil
}
