package answer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"a3os.app/libs/access"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

// batch bounds the keys of one query, so that each stays a walk along an index whatever the question.
const batch = 1000

// edges are the graph's edges as rows that stand at a time.
type edges struct {
	q  *store.Queries
	at *time.Time
}

var _ access.Edges = edges{}

// GrantsFrom implements access.Edges.
func (e edges) GrantsFrom(ctx context.Context, principals []id.Resource) ([]access.Grant, error) {
	return inBatches(principals, func(ids []pgtype.UUID) ([]access.Grant, error) {
		rows, err := e.q.GrantsFrom(ctx, store.GrantsFromParams{Ids: ids, At: e.at})
		return each(rows, err, func(r store.GrantsFromRow) access.Grant {
			return access.Grant{ID: r.ID, Principal: r.PrincipalID, Entitlement: r.EntitlementID, NotInherited: r.NotInherited, Since: instant(r.Since)}
		})
	})
}

// GrantsTo implements access.Edges.
func (e edges) GrantsTo(ctx context.Context, entitlements []id.Entitlement) ([]access.Grant, error) {
	return inBatches(entitlements, func(ids []pgtype.UUID) ([]access.Grant, error) {
		rows, err := e.q.GrantsTo(ctx, store.GrantsToParams{Ids: ids, At: e.at})
		return each(rows, err, func(r store.GrantsToRow) access.Grant {
			return access.Grant{ID: r.ID, Principal: r.PrincipalID, Entitlement: r.EntitlementID, NotInherited: r.NotInherited, Since: instant(r.Since)}
		})
	})
}

// ExpansionsFrom implements access.Edges.
func (e edges) ExpansionsFrom(ctx context.Context, entitlements []id.Entitlement) ([]access.Expansion, error) {
	return inBatches(entitlements, func(ids []pgtype.UUID) ([]access.Expansion, error) {
		rows, err := e.q.ExpansionsFrom(ctx, store.ExpansionsFromParams{Ids: ids, At: e.at})
		return each(rows, err, func(r store.ExpansionsFromRow) access.Expansion {
			return access.Expansion{From: r.FromID, To: r.ToID, Assumption: r.Assumption, Reason: r.Reason, Since: instant(r.Since)}
		})
	})
}

// ExpansionsTo implements access.Edges.
func (e edges) ExpansionsTo(ctx context.Context, entitlements []id.Entitlement) ([]access.Expansion, error) {
	return inBatches(entitlements, func(ids []pgtype.UUID) ([]access.Expansion, error) {
		rows, err := e.q.ExpansionsTo(ctx, store.ExpansionsToParams{Ids: ids, At: e.at})
		return each(rows, err, func(r store.ExpansionsToRow) access.Expansion {
			return access.Expansion{From: r.FromID, To: r.ToID, Assumption: r.Assumption, Reason: r.Reason, Since: instant(r.Since)}
		})
	})
}

// Entitlements implements access.Edges.
func (e edges) Entitlements(ctx context.Context, ids []id.Entitlement) ([]access.Entitlement, error) {
	return inBatches(ids, func(ids []pgtype.UUID) ([]access.Entitlement, error) {
		rows, err := e.q.Entitlements(ctx, store.EntitlementsParams{Ids: ids, At: e.at})
		return each(rows, err, func(r store.EntitlementsRow) access.Entitlement {
			return access.Entitlement{ID: r.ID, Resource: r.ResourceID, Name: r.Name, Purpose: access.Purpose(r.Purpose), Since: instant(r.Since)}
		})
	})
}

// EntitlementsOn implements access.Edges.
func (e edges) EntitlementsOn(ctx context.Context, resources []id.Resource) ([]access.Entitlement, error) {
	return inBatches(resources, func(ids []pgtype.UUID) ([]access.Entitlement, error) {
		rows, err := e.q.EntitlementsOn(ctx, store.EntitlementsOnParams{Ids: ids, At: e.at})
		return each(rows, err, func(r store.EntitlementsOnRow) access.Entitlement {
			return access.Entitlement{ID: r.ID, Resource: r.ResourceID, Name: r.Name, Purpose: access.Purpose(r.Purpose), Since: instant(r.Since)}
		})
	})
}

// inBatches asks for ids, each once, a batch at a time.
func inBatches[K id.Kind, V any](ids []id.ID[K], ask func([]pgtype.UUID) ([]V, error)) ([]V, error) {
	seen := make(map[id.ID[K]]bool, len(ids))
	keys := make([]pgtype.UUID, 0, len(ids))
	for _, i := range ids {
		if !seen[i] {
			seen[i] = true
			keys = append(keys, uuid(i))
		}
	}
	var out []V
	for chunk := range slices.Chunk(keys, batch) {
		some, err := ask(chunk)
		if err != nil {
			return nil, fmt.Errorf("read %d keys: %w", len(chunk), err)
		}
		out = append(out, some...)
	}
	return out, nil
}

func each[R, V any](rows []R, err error, as func(R) V) ([]V, error) {
	if err != nil {
		return nil, err
	}
	out := make([]V, len(rows))
	for i, r := range rows {
		out[i] = as(r)
	}
	return out, nil
}

// uuid is an id as a parameter; the zero id is NULL.
func uuid[K id.Kind](i id.ID[K]) pgtype.UUID {
	return pgtype.UUID{Bytes: i.Bytes(), Valid: !i.IsZero()}
}

func instant(t time.Time) access.Instant { return access.Instant(t.UnixMicro()) }
