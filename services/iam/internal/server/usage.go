package server

import (
	"context"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/services/iam/internal/store"
)

// Usage implements UsageService.
type Usage struct{ rights Rights }

// NewUsage makes it.
func NewUsage(rights Rights) *Usage { return &Usage{rights} }

// CountUsage implements UsageServiceHandler.
func (s *Usage) CountUsage(ctx context.Context, _ *connect.Request[iamv1.CountUsageRequest]) (*connect.Response[iamv1.CountUsageResponse], error) {
	var seats, accounts int64
	err := s.rights.read(ctx, func(ctx context.Context, q *store.Queries) error {
		var err error
		if seats, err = q.CountSeats(ctx); err != nil {
			return err
		}
		accounts, err = q.CountServiceAccounts(ctx)
		return err
	})
	return respond(&iamv1.CountUsageResponse{Counts: map[string]int64{"seats": seats, "service_accounts": accounts}}, err)
}

// seated refuses an invitation that the licence has no seat for. Changes of who may do what happen one after the other, so nobody takes
// the same seat at once.
func (r Rights) seated(ctx context.Context, tx pgx.Tx) error {
	w, err := r.Licence.WorthIn(ctx, tx)
	if err != nil {
		return err
	}
	taken, err := store.New(tx).CountSeats(ctx)
	if err != nil {
		return err
	}
	return w.AllowsSeats(taken)
}
