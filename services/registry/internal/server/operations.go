package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/services/registry/internal/store"
)

// errNoOperation is one sentence for an operation that never was and for another tenant's.
var errNoOperation = fault.Declare(fault.NotFound, "NO_OPERATION", "no such operation")

type operations struct {
	registryv1.UnimplementedOperationServiceServer
	Config
}

// GetOperation answers one operation.
func (s *operations) GetOperation(ctx context.Context, req *registryv1.GetOperationRequest) (*registryv1.GetOperationResponse, error) {
	o, err := s.read(ctx, req.GetOperationId())
	if err != nil {
		return nil, err
	}
	return &registryv1.GetOperationResponse{Operation: o}, nil
}

func (s *operations) read(ctx context.Context, text string) (o *registryv1.Operation, err error) {
	opr, err := id.ParseOperation(text)
	if err != nil {
		return nil, errNoOperation
	}
	err = s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		row, err := operationRow(ctx, q, opr)
		if err != nil {
			return err
		}
		o, err = whole(ctx, q, row)
		return err
	})
	return o, err
}

func operationRow(ctx context.Context, q *store.Queries, opr id.Operation) (store.Operation, error) {
	row, err := q.OperationByID(ctx, opr)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Operation{}, errNoOperation
	}
	if err != nil {
		return store.Operation{}, fmt.Errorf("read the operation: %w", err)
	}
	return row, nil
}

// whole is an operation with its steps.
func whole(ctx context.Context, q *store.Queries, row store.Operation) (*registryv1.Operation, error) {
	steps, err := q.StepsBetween(ctx, store.StepsBetweenParams{Lowest: row.ID, Highest: row.ID})
	if err != nil {
		return nil, fmt.Errorf("read the steps: %w", err)
	}
	return operationOf(row, steps), nil
}

// ListOperations pages through operations, the newest first.
func (s *operations) ListOperations(ctx context.Context, req *registryv1.ListOperationsRequest) (*registryv1.ListOperationsResponse, error) {
	// newest is above every id that there can be.
	const newest = "opr_7zzzzzzzzzzzzzzzzzzzzzzzzz"
	var before id.Operation
	if err := readPageToken(cmp.Or(req.GetPageToken(), newest), &before); err != nil {
		return nil, err
	}
	var tenant id.Tenant
	if err := tenant.UnmarshalText([]byte(req.GetTenantId())); err != nil {
		return nil, errNoTenant
	}
	size := page.Size(req.GetPageSize())
	res := &registryv1.ListOperationsResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		rows, err := q.ListOperations(ctx, store.ListOperationsParams{Before: before, Tenant: tenant, Unfinished: req.GetUnfinished(), PlanHash: req.GetPlanHash(), Size: size + 1})
		if err != nil {
			return fmt.Errorf("read the operations: %w", err)
		}
		rows, res.NextPageToken = onePage(rows, size, func(o store.Operation) string { return pageToken(o.ID) })
		res.Operations, err = allWhole(ctx, q, rows, store.StepsBetweenParams{Tenant: tenant, PlanHash: req.GetPlanHash()})
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// allWhole are a page's operations with their steps, in the order given, which is that of their ids downwards. of are the filters of the
// page.
func allWhole(ctx context.Context, q *store.Queries, rows []store.Operation, of store.StepsBetweenParams) ([]*registryv1.Operation, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	of.Lowest, of.Highest = rows[len(rows)-1].ID, rows[0].ID
	steps, err := q.StepsBetween(ctx, of)
	if err != nil {
		return nil, fmt.Errorf("read the steps: %w", err)
	}
	by := map[id.Operation][]store.OperationStep{}
	for _, s := range steps {
		by[s.OperationID] = append(by[s.OperationID], s)
	}
	var all []*registryv1.Operation
	for _, o := range rows {
		all = append(all, operationOf(o, by[o.ID]))
	}
	return all, nil
}

// WatchOperation sends the operation at once and whenever it changed, and ends when it has ended. Who falls behind gets it as it is
// now, and not each change between.
func (s *operations) WatchOperation(req *registryv1.WatchOperationRequest, stream grpc.ServerStreamingServer[registryv1.WatchOperationResponse]) error {
	// Subscribing comes before the first read, so that no change falls between them.
	changed, cancel := s.Changes.Subscribe(req.GetOperationId())
	defer cancel()
	for {
		o, err := s.read(stream.Context(), req.GetOperationId())
		if err != nil {
			return err
		}
		if err := stream.Send(&registryv1.WatchOperationResponse{Operation: o}); err != nil {
			return fmt.Errorf("send the operation: %w", err)
		}
		if o.GetState() != registryv1.OperationState_OPERATION_STATE_UNFINISHED {
			return nil
		}
		select {
		case <-changed:
		case <-s.Stopping:
			return fault.New(fault.Unavailable, "the registry is stopping; connect again")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
