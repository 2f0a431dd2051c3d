// Package retention drops what can't matter any more, and keeps the signing keys. It promises never to drop what a check still needs:
// each table is kept for longer than the longest life of what it is asked about.
package retention

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pg"

	"a3os.app/services/iam/internal/store"
)

const (
	every = 5 * time.Minute
	// sessionsFor is how long a session that is over can still be looked at.
	sessionsFor = 24 * time.Hour
	// usedFor is how long the reuse of a refresh token is told from a token that never was.
	usedFor = 7 * 24 * time.Hour
	// codesFor and assertionsFor begin when the row could no longer let anyone in.
	codesFor      = time.Hour
	assertionsFor = time.Minute
)

// Job is the retention of one tenant's issuer.
type Job struct {
	// Workspace and Tenant are the databases of role_iam and role_iam_tenant.
	Workspace, Tenant *pg.DB
	// Keys keeps the signing keys: rotates them when due, drops old ones.
	Keys func(ctx context.Context) error
	// Now is the clock.
	Now func() time.Time
}

// Run runs the job every few minutes until ctx ends.
func (j Job) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := j.Once(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "retention failed, it is tried again", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Once runs the job.
func (j Job) Once(ctx context.Context) error {
	if err := j.Keys(ctx); err != nil {
		return err
	}
	err := j.Workspace.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := store.New(tx).PruneIdempotencyKeys(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop idempotency keys: %w", err)
	}
	now := j.Now()
	err = j.Tenant.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		for _, prune := range []func() (int64, error){
			func() (int64, error) { return q.PruneIdempotencyKeys(ctx) },
			func() (int64, error) { return q.PruneSessions(ctx, now.Add(-sessionsFor)) },
			func() (int64, error) { return q.PruneRefreshTokens(ctx, now.Add(-usedFor)) },
			func() (int64, error) { return q.PruneAssertions(ctx, now.Add(-assertionsFor)) },
			func() (int64, error) { return q.PruneSetupCodes(ctx, now.Add(-codesFor)) },
			func() (int64, error) { return q.PruneRevocations(ctx) },
		} {
			if _, err := prune(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop what can't matter any more: %w", err)
	}
	return nil
}
