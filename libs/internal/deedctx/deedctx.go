// Package deedctx lets a deed collect what is written at its end, so that it goes to the database in one round trip: the events that
// libs/record appends, and what libs/pg keeps of an idempotency key.
package deedctx

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Pending is what a deed writes before it commits.
type Pending struct {
	// Tx is the deed's transaction: what is written in another one, or in a savepoint of it, does not wait.
	Tx pgx.Tx
	// Batch is the statements, in order.
	Batch pgx.Batch
}

type key struct{}

// With puts what is pending into the context of a deed.
func With(ctx context.Context, p *Pending) context.Context { return context.WithValue(ctx, key{}, p) }

// From is what is pending in a transaction; nil outside of a deed.
func From(ctx context.Context, tx pgx.Tx) *Pending {
	if p, ok := ctx.Value(key{}).(*Pending); ok && p.Tx == tx {
		return p
	}
	return nil
}
