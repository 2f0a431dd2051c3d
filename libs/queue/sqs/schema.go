package sqs

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Table is the text of the jobs' table, in the schema that the search path names first.
const Table = `-- A job is here from the deed that it follows from until a day after its end: SQS carries it, and what became of it stands here.
CREATE TABLE IF NOT EXISTS sqs_jobs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text        NOT NULL UNIQUE CHECK (octet_length(key) <= 200),
    envelope   bytea       NOT NULL CHECK (octet_length(envelope) <= 1048576),
    payload    bytea       NOT NULL CHECK (octet_length(payload) <= 1048576),
    most_tries integer     NOT NULL CHECK (most_tries BETWEEN 1 AND 1000),
    before     integer     NOT NULL DEFAULT 0 CHECK (before BETWEEN 0 AND 1000000),
    -- No handler is given it earlier.
    run_at     timestamptz NOT NULL,
    sent_at    timestamptz,
    -- Deliveries, and how many of them were no try.
    attempt    integer     NOT NULL DEFAULT 0,
    uncounted  integer     NOT NULL DEFAULT 0,
    -- A worker has it until then, unless it says so again.
    held_until timestamptz,
    reason     text        CHECK (octet_length(reason) <= 1000),
    ended_at   timestamptz
);
CREATE INDEX IF NOT EXISTS sqs_jobs_to_send ON sqs_jobs (run_at) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS sqs_jobs_ended ON sqs_jobs (ended_at) WHERE ended_at IS NOT NULL;
-- Dead letters are known by their jobs' numbers: those of a set that moved to SQS go on where the database's own queue never comes to.
SELECT setval(ids, 1::bigint << 48) FROM pg_get_serial_sequence('sqs_jobs', 'id') AS ids WHERE coalesce(pg_sequence_last_value(ids::regclass), 0) < 1::bigint << 48;
`

// Migrate makes the jobs' table in a schema that is there, as its owner. Done again it changes nothing.
func Migrate(ctx context.Context, owner *pgxpool.Pool, schema string) error {
	return pgx.BeginFunc(ctx, owner, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL search_path = "+quote(schema)); err != nil {
			return fmt.Errorf("make the jobs of SQS in %q: %w", schema, err)
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, Table).ReadAll(); err != nil {
			return fmt.Errorf("make the jobs of SQS in %q: %w", schema, err)
		}
		return nil
	})
}

// GrantsSQL is what the owner grants so that inserters can enqueue, one of them, the sender, can send besides, and the worker can work,
// each no more than it needs: an inserter can't end a job, nor the worker make one.
func GrantsSQL(schema, worker, sender string, inserters ...string) string {
	jobs := table(schema)
	names := make([]string, 0, len(inserters)+1)
	for _, role := range append(inserters, sender) {
		names = append(names, quote(role))
	}
	all := strings.Join(names, ", ")
	return strings.Join([]string{
		fmt.Sprintf("REVOKE ALL ON %s FROM PUBLIC", jobs),
		fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s, %s", quote(schema), all, quote(worker)),
		fmt.Sprintf("GRANT INSERT (key, envelope, payload, most_tries, before, run_at) ON %s TO %s", jobs, all),
		fmt.Sprintf("GRANT SELECT, UPDATE (sent_at) ON %s TO %s", jobs, quote(sender)),
		fmt.Sprintf("GRANT SELECT, UPDATE, DELETE ON %s TO %s", jobs, quote(worker)),
		"",
	}, ";\n")
}

func quote(name string) string   { return pgx.Identifier{name}.Sanitize() }
func table(schema string) string { return pgx.Identifier{schema, "sqs_jobs"}.Sanitize() }
