package audit

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"

	"a3os.app/libs/licence"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/pg"
	"a3os.app/libs/rpc"
	"a3os.app/libs/set"

	"a3os.app/services/audit/internal/licensing"
)

// licenceOf makes what keeps the set's licence.
func licenceOf(cfg Config, db *pg.DB) (*licensing.Keeper, error) {
	v, err := licence.NewVerifier(cfg.Set.Plane, cfg.Set.LicenceKeys)
	if err != nil {
		return nil, fmt.Errorf("A3_LICENCE_KEYS: %w", err)
	}
	return licensing.New(licensing.Config{DB: db, Held: held.New(db, v, cfg.Set.Tenant, time.Now), Verifier: v, Tenant: cfg.Set.Tenant, Path: cfg.LicencePath, Now: time.Now}), nil
}

// counters are the siblings that count what is used.
func counters(m *set.Member) (map[string]licensing.Count, error) {
	people, err := rpc.ToWorkload(m.Transport, m.Sibling("iam"), iamv1connect.NewUsageServiceClient)
	if err != nil {
		return nil, err
	}
	systems, err := rpc.ToWorkload(m.Transport, m.Sibling("integrations"), integrationsv1connect.NewUsageServiceClient)
	if err != nil {
		return nil, err
	}
	runs, err := rpc.ToWorkload(m.Transport, m.Sibling("discovery"), discoveryv1connect.NewUsageServiceClient)
	if err != nil {
		return nil, err
	}
	return map[string]licensing.Count{
		"iam": func(ctx context.Context, since time.Time) (map[string]int64, error) {
			res, err := people.CountUsage(ctx, connect.NewRequest(&iamv1.CountUsageRequest{Since: timestamppb.New(since)}))
			return counted(res, err)
		},
		"integrations": func(ctx context.Context, since time.Time) (map[string]int64, error) {
			res, err := systems.CountUsage(ctx, connect.NewRequest(&integrationsv1.CountUsageRequest{Since: timestamppb.New(since)}))
			return counted(res, err)
		},
		"discovery": func(ctx context.Context, since time.Time) (map[string]int64, error) {
			res, err := runs.CountUsage(ctx, connect.NewRequest(&discoveryv1.CountUsageRequest{Since: timestamppb.New(since)}))
			return counted(res, err)
		},
	}, nil
}

// counted are the numbers of an answer.
func counted[M any, P interface {
	*M
	GetCounts() map[string]int64
}](res *connect.Response[M], err error) (map[string]int64, error) {
	if err != nil {
		return nil, err
	}
	return P(res.Msg).GetCounts(), nil
}
