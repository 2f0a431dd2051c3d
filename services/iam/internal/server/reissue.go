package server

import (
	"context"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/setup"
	"a3os.app/services/iam/internal/store"
)

// ReissueSetupCode implements AdminUserServiceHandler.
func (s *Users) ReissueSetupCode(ctx context.Context, req *connect.Request[iamv1.ReissueSetupCodeRequest]) (*connect.Response[iamv1.ReissueSetupCodeResponse], error) {
	user, err := id.ParseUser(req.Msg.GetUserId())
	if err != nil {
		return nil, errNoUser
	}
	out, err := pg.Deed(ctx, s.rights.Tenant.Tenant, req.Msg, func(ctx context.Context, tx pgx.Tx) (*iamv1.ReissueSetupCodeResponse, error) {
		return s.reissue(ctx, tx, user, req.Msg)
	})
	if err == nil && req.Msg.GetEndSessions() {
		s.rights.Revoked()
	}
	return respond(out, err)
}

func (s *Users) reissue(ctx context.Context, tx pgx.Tx, user id.User, req *iamv1.ReissueSetupCodeRequest) (*iamv1.ReissueSetupCodeResponse, error) {
	q := store.New(tx)
	if _, err := q.LockRights(ctx); err != nil {
		return nil, err
	}
	u, err := q.LockUser(ctx, user)
	if err != nil {
		return nil, notFound(err, errNoUser)
	}
	if u.State == "deactivated" {
		return nil, ErrNotActive.With("%s (%s) is deactivated: invite them again instead, which brings back no membership", u.Email, u.ID)
	}
	out := &iamv1.ReissueSetupCodeResponse{User: userMessage(u)}
	if req.GetEndSessions() {
		ended, err := setup.EndSessions(ctx, q, u.ID, s.rights.Now())
		if err != nil {
			return nil, err
		}
		out.EndedSessions = int32(ended) //nolint:gosec // a person has a handful
	}
	code, err := setup.NewCode(ctx, q, u.ID, s.rights.Now())
	if err != nil {
		return nil, err
	}
	out.SetupCode, out.SetupCodeExpiresAt = code.Text, timestamppb.New(code.ExpiresAt)
	return out, record.Append(ctx, tx, record.Event{
		Action: "iam.setup_code.reissued", Target: u.ID.String(), Reason: req.GetReason(), After: out,
	})
}
