package runs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

// publishAt is the time that a publication carries: now, and after the one before it, whatever the clock was set to since. It also says
// whether there was none before.
func publishAt(ctx context.Context, q *store.Queries, integration id.Integration) (at time.Time, first bool, err error) {
	at = time.Now().Truncate(time.Microsecond)
	last, err := q.LastPublishedAt(ctx, integration)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, true, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("look for the run before: %w", err)
	}
	if !at.After(*last) {
		at = last.Add(time.Microsecond)
	}
	return at, false, nil
}

// history is the workspace's, as one run changes it, in one transaction.
type history struct {
	q   *store.Queries
	row store.Run
	at  time.Time
	// added and removed count grants.
	added, removed int64
}

// publish prunes staging to what counts, closes what is gone or has changed its meaning, describes anew what stands, and opens what is new.
func (h *history) publish(ctx context.Context, first bool) error {
	if err := h.prune(ctx); err != nil {
		return err
	}
	if !first {
		if err := h.end(ctx); err != nil {
			return err
		}
		if err := h.describe(ctx); err != nil {
			return err
		}
	}
	if err := h.open(ctx); err != nil {
		return err
	}
	return joinPersons(ctx, h.q)
}

// prune leaves in staging what was sealed, each thing once.
func (h *history) prune(ctx context.Context) error {
	for _, prune := range []func(context.Context, id.Run) error{
		h.q.PruneUnsealedResources, h.q.PruneUnsealedEntitlements, h.q.PruneUnsealedGrants, h.q.PruneUnsealedExpansions,
		h.q.MergeToldResources, h.q.MergeToldEntitlements, h.q.MergeToldGrants, h.q.MergeToldExpansions,
	} {
		if err := prune(ctx, h.row.ID); err != nil {
			return fmt.Errorf("prune what was staged: %w", err)
		}
	}
	return nil
}

// end closes rows that were not seen in scopes that the run completed, and rows whose meaning is another now.
func (h *history) end(ctx context.Context) error {
	completed := h.row.CompletedScopes
	if string(h.row.Gaps) == "[]" && len(completed) > 0 {
		// Everything there is was read: a scope that no longer exists (a dropped database) is one that no run will ever name again.
		seen, err := h.q.ScopesSeen(ctx, h.row.IntegrationID)
		if err != nil {
			return fmt.Errorf("read the scopes seen before: %w", err)
		}
		completed = append(slices.Clone(completed), seen...)
	}
	gone := store.CloseGrantsParams{At: &h.at, RunID: h.row.ID, IntegrationID: h.row.IntegrationID, Completed: completed}
	other := store.CloseChangedGrantsParams{At: &h.at, RunID: h.row.ID, IntegrationID: h.row.IntegrationID}
	n, err := h.q.CloseGrants(ctx, gone)
	if err != nil {
		return fmt.Errorf("close grants: %w", err)
	}
	changed, err := h.q.CloseChangedGrants(ctx, other)
	if err != nil {
		return fmt.Errorf("close changed grants: %w", err)
	}
	h.removed = n + changed
	if _, err := h.q.CloseExpansions(ctx, store.CloseExpansionsParams(gone)); err != nil {
		return fmt.Errorf("close expansions: %w", err)
	}
	if _, err := h.q.CloseChangedExpansions(ctx, store.CloseChangedExpansionsParams(other)); err != nil {
		return fmt.Errorf("close changed expansions: %w", err)
	}
	if _, err := h.q.CloseEntitlements(ctx, store.CloseEntitlementsParams(gone)); err != nil {
		return fmt.Errorf("close entitlements: %w", err)
	}
	if _, err := h.q.CloseChangedEntitlements(ctx, store.CloseChangedEntitlementsParams(other)); err != nil {
		return fmt.Errorf("close changed entitlements: %w", err)
	}
	if _, err := h.q.CloseResources(ctx, store.CloseResourcesParams(gone)); err != nil {
		return fmt.Errorf("close resources: %w", err)
	}
	return nil
}

// describe takes over the words of what stands.
func (h *history) describe(ctx context.Context) error {
	stands := store.DescribeGrantsParams{RunID: h.row.ID, IntegrationID: h.row.IntegrationID}
	if err := h.q.DescribeGrants(ctx, stands); err != nil {
		return fmt.Errorf("describe grants: %w", err)
	}
	if err := h.q.DescribeExpansions(ctx, store.DescribeExpansionsParams(stands)); err != nil {
		return fmt.Errorf("describe expansions: %w", err)
	}
	if err := h.q.DescribeEntitlements(ctx, store.DescribeEntitlementsParams(stands)); err != nil {
		return fmt.Errorf("describe entitlements: %w", err)
	}
	if err := h.q.DescribeResources(ctx, store.DescribeResourcesParams(stands)); err != nil {
		return fmt.Errorf("describe resources: %w", err)
	}
	return nil
}

// open opens a row for everything that has none that stands.
func (h *history) open(ctx context.Context) (err error) {
	fresh := store.OpenGrantsParams{IntegrationID: uuid(h.row.IntegrationID), At: h.at, RunID: uuid(h.row.ID)}
	if _, err := h.q.OpenResources(ctx, store.OpenResourcesParams(fresh)); err != nil {
		return fmt.Errorf("publish resources: %w", err)
	}
	if _, err := h.q.OpenEntitlements(ctx, store.OpenEntitlementsParams(fresh)); err != nil {
		return fmt.Errorf("publish entitlements: %w", err)
	}
	if h.added, err = h.q.OpenGrants(ctx, fresh); err != nil {
		return fmt.Errorf("publish grants: %w", err)
	}
	if _, err := h.q.OpenExpansions(ctx, store.OpenExpansionsParams(fresh)); err != nil {
		return fmt.Errorf("publish expansions: %w", err)
	}
	return nil
}

// joinPersons joins the workspace's accounts into persons by the rules in their order: the first that joins an account holds.
func joinPersons(ctx context.Context, q *store.Queries) error {
	for _, rule := range []func(context.Context) error{
		q.LockPersons, q.AddPersons, q.LeavePersons, q.JoinPersons, q.LeavePersonless,
	} {
		if err := rule(ctx); err != nil {
			return fmt.Errorf("join persons: %w", err)
		}
	}
	return nil
}

func uuid[K id.Kind](i id.ID[K]) pgtype.UUID {
	v, _ := i.UUIDValue()
	return v
}
