package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/registry/internal/figures"
	"a3os.app/services/registry/internal/store"
)

type figureReads struct {
	registryv1.UnimplementedFigureServiceServer
	Config
}

// BatchGetFigures answers what sets did within a window. A tenant that never reported, or never was, has figures without reports.
func (s *figureReads) BatchGetFigures(ctx context.Context, req *registryv1.BatchGetFiguresRequest) (*registryv1.BatchGetFiguresResponse, error) {
	since, until := req.GetFrom().AsTime(), time.Now()
	if req.GetUntil().IsValid() {
		until = req.GetUntil().AsTime()
	}
	if !since.Before(until) {
		return nil, fault.New(fault.InvalidArgument, "from: the window begins after it has ended")
	}
	var tenants []id.Tenant
	for _, text := range req.GetTenantIds() {
		tenant, err := id.ParseTenant(text)
		if err != nil {
			return nil, errNoTenant
		}
		tenants = append(tenants, tenant)
	}
	res := &registryv1.BatchGetFiguresResponse{}
	// A day of one tenant is a few hundred points: a few tenants at a time bound the memory.
	const few = 20
	for some := range slices.Chunk(tenants, few) {
		points, err := s.points(ctx, some, since, until)
		if err != nil {
			return nil, err
		}
		for _, tenant := range some {
			f := figures.Of(since, points[tenant])
			f.TenantId = tenant.String()
			res.Figures = append(res.Figures, f)
		}
	}
	return res, nil
}

func (s *figureReads) points(ctx context.Context, tenants []id.Tenant, since, until time.Time) (map[id.Tenant][]figures.Point, error) {
	var by map[id.Tenant][]figures.Point
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		by = map[id.Tenant][]figures.Point{}
		rows, err := store.New(tx).PointsOf(ctx, store.PointsOfParams{TenantIds: tenants, Since: since, Until: until})
		if err != nil {
			return fmt.Errorf("read the points: %w", err)
		}
		for _, row := range rows {
			report := &registryv1.ReportRequest{}
			if err := proto.Unmarshal(row.Body, report); err != nil {
				return fmt.Errorf("read a point of %s: %w", row.TenantID, err)
			}
			by[row.TenantID] = append(by[row.TenantID], figures.Point{At: row.ReportedAt, Report: report})
		}
		return nil
	})
	return by, err
}
