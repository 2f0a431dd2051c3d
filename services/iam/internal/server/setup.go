package server

import (
	"context"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/denial"
	"a3os.app/services/iam/internal/session"
	"a3os.app/services/iam/internal/setup"
	"a3os.app/services/iam/internal/store"
)

// Setup implements SetupService. Its caller is not yet known.
type Setup struct {
	rights  Rights
	limit   *setup.Limit
	denials *denial.Counter
	source  func(ctx context.Context) string
}

// NewSetup makes it. source is the address that a call came from.
func NewSetup(rights Rights, denials *denial.Counter, source func(ctx context.Context) string) *Setup {
	return &Setup{rights: rights, limit: setup.NewLimit(), denials: denials, source: source}
}

// RedeemSetupCode implements SetupServiceHandler.
func (s *Setup) RedeemSetupCode(ctx context.Context, req *connect.Request[iamv1.RedeemSetupCodeRequest]) (*connect.Response[iamv1.RedeemSetupCodeResponse], error) {
	if !s.limit.Allow(s.source(ctx)) {
		s.denials.Count(ctx, "iam.setup_code.limited")
		return nil, fault.New(fault.ResourceExhausted, "too many setup codes were tried; wait a minute")
	}
	out := &iamv1.RedeemSetupCodeResponse{}
	err := s.rights.Tenant.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q, now := store.New(tx), s.rights.Now()
		user, first, err := setup.Redeem(ctx, q, req.Msg.GetCode(), now)
		if err != nil {
			return err
		}
		ses, token, err := session.Start(ctx, q, user.ID, now)
		if err != nil {
			return err
		}
		out.User, out.RefreshToken = userMessage(user), token
		if first {
			activated := record.Event{Action: "iam.user.activated", Target: user.ID.String(), After: out.GetUser()}
			if err := record.AppendUnknown(ctx, tx, user.ID.String(), activated); err != nil {
				return err
			}
		}
		return record.AppendUnknown(ctx, tx, user.ID.String(), record.Event{Action: "iam.session.started", Target: ses.String()})
	})
	if fault.KindOf(err) == fault.Unauthenticated {
		s.denials.Count(ctx, "iam.setup_code.denied")
	}
	return respond(out, err)
}
