package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Measure is how large the database is, and how many connections to it are open, everybody's.
func Measure(ctx context.Context, tx pgx.Tx) (bytes, connections int64, err error) {
	err = tx.QueryRow(ctx, `select pg_database_size(oid), pg_stat_get_db_numbackends(oid) from pg_database where datname = current_database()`).Scan(&bytes, &connections)
	if err != nil {
		return 0, 0, fmt.Errorf("measure the database: %w", err)
	}
	return bytes, connections, nil
}
