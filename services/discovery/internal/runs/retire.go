package runs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/record"
	"a3os.app/services/discovery/internal/store"
)

// ErrRetired is returned for a run of an integration that was removed.
var ErrRetired = fault.Declare(fault.FailedPrecondition, "INTEGRATION_REMOVED", "the integration was removed: add it again to discover its system")

// Retire closes what a removed integration showed, and cancels its run that is under way. It answers how many grants were current.
func (r *Runs) Retire(ctx context.Context, text string) (closed int64, err error) {
	integration, err := id.ParseIntegration(text)
	if err != nil {
		return 0, fault.New(fault.InvalidArgument, "integration_id: %v", err)
	}
	err = r.cfg.DB.Workspace(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if err := q.LockHistory(ctx); err != nil {
			return fmt.Errorf("wait for a publication: %w", err)
		}
		at, err := changeAt(ctx, q)
		if err != nil {
			return err
		}
		first, err := q.InsertRetired(ctx, store.InsertRetiredParams{IntegrationID: integration, RetiredAt: at})
		if err != nil || first == 0 {
			return err
		}
		under, err := q.RunUnderWay(ctx, integration)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return fmt.Errorf("look for a run under way: %w", err)
		default:
			row, err := lock(ctx, tx, under.ID)
			if err != nil {
				return err
			}
			if !ended(row.State) {
				if _, err := r.end(ctx, tx, row, "cancelled", "the integration was removed"); err != nil {
					return err
				}
			}
		}
		if closed, err = retire(ctx, q, integration, at); err != nil {
			return err
		}
		if err := joinPersons(ctx, q, at); err != nil {
			return err
		}
		return record.Append(ctx, tx, record.Event{Action: "discovery.source.retired", Target: integration.String()})
	})
	return closed, err
}

func retire(ctx context.Context, q *store.Queries, integration id.Integration, at time.Time) (int64, error) {
	closed, err := q.RetireGrants(ctx, store.RetireGrantsParams{IntegrationID: integration, Until: &at})
	if err != nil {
		return 0, fmt.Errorf("close grants: %w", err)
	}
	if err := q.RetireExpansions(ctx, store.RetireExpansionsParams{IntegrationID: integration, Until: &at}); err != nil {
		return 0, fmt.Errorf("close expansions: %w", err)
	}
	if err := q.RetireEntitlements(ctx, store.RetireEntitlementsParams{IntegrationID: integration, Until: &at}); err != nil {
		return 0, fmt.Errorf("close entitlements: %w", err)
	}
	if err := q.RetireResources(ctx, store.RetireResourcesParams{IntegrationID: integration, Until: &at}); err != nil {
		return 0, fmt.Errorf("close resources: %w", err)
	}
	return closed, nil
}
