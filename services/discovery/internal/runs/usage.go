package runs

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/services/discovery/internal/store"
)

// Count counts the tenant's runs that were begun since a time.
func (r *Runs) Count(ctx context.Context, since time.Time) (int64, error) {
	var n int64
	err := r.cfg.Wide.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		if n, err = store.New(tx).CountRunsSince(ctx, since); err != nil {
			return fmt.Errorf("count the runs: %w", err)
		}
		return nil
	})
	return n, err
}
