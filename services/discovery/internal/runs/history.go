package runs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

// changeAt is the time that a change of the workspace's history carries: now, and after every change before it, whatever the clock was
// set to since. Changes wait for each other until they commit, so whoever sees one sees all with earlier times: what is asked as of the
// newest time that was seen is answered the same for ever.
func changeAt(ctx context.Context, q *store.Queries) (time.Time, error) {
	last, err := q.LastChangedAt(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("look for the change before: %w", err)
	}
	at := time.Now().Truncate(time.Microsecond)
	if !at.After(last) {
		at = last.Add(time.Microsecond)
	}
	return at, nil
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
	if err := h.nameUnfinished(ctx); err != nil {
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
	return joinPersons(ctx, h.q, h.at)
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

// nameUnfinished names scopes that the connector neither finished nor gave a reason for: what it found there may not be all.
func (h *history) nameUnfinished(ctx context.Context) error {
	gaps, err := readGaps(h.row.Gaps)
	if err != nil {
		return err
	}
	told := slices.Clone(h.row.CompletedScopes)
	for _, g := range gaps {
		told = append(told, g.GetScope())
	}
	unfinished, err := h.q.UnfinishedScopes(ctx, store.UnfinishedScopesParams{RunID: h.row.ID, Told: told})
	if err != nil || len(unfinished) == 0 {
		return err
	}
	all := make([]gap, 0, len(gaps)+len(unfinished))
	for _, g := range gaps {
		all = append(all, gap{Scope: g.GetScope(), Reason: g.GetReason()})
	}
	for _, scope := range unfinished {
		all = append(all, gap{Scope: scope, Reason: "it was not read to its end"})
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("encode the gaps: %w", err)
	}
	if h.row, err = h.q.NoteGaps(ctx, store.NoteGapsParams{RunID: h.row.ID, Gaps: raw}); err != nil {
		return fmt.Errorf("note the gaps: %w", err)
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

// joinPersons joins the workspace's accounts into persons by the rules in their order: the first that joins an account holds. Whose an
// account was until now stays in the history.
func joinPersons(ctx context.Context, q *store.Queries, at time.Time) error {
	leave := func(ctx context.Context) error { return q.LeavePersons(ctx, at) }
	join := func(ctx context.Context) error { return q.JoinPersons(ctx, at) }
	for _, rule := range []func(context.Context) error{q.AddPersons, leave, join, q.LeavePersonless} {
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
