package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// Migrate makes or updates the queue's schema, as the owner of the database. Done again it changes nothing. One at a time: the
// caller holds the lock of migrations.
func Migrate(ctx context.Context, owner *pgxpool.Pool, schema string) error {
	if schema == "" {
		return errors.New("migrate the queue: name its schema")
	}
	if _, err := owner.Exec(ctx, "create schema if not exists "+pgx.Identifier{schema}.Sanitize()); err != nil {
		return fmt.Errorf("make the queue's schema %q: %w", schema, err)
	}
	m, err := rivermigrate.New(riverpgxv5.New(owner), &rivermigrate.Config{Schema: schema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("migrate the queue %q: %w", schema, err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate the queue %q: %w", schema, err)
	}
	// A worker reads rows whole: what is too large for its memory must not get in.
	if _, err := owner.Exec(ctx, fmt.Sprintf(`
		alter table %[1]s drop constraint if exists a3_args_bounded;
		alter table %[1]s add constraint a3_args_bounded check (pg_column_size(args) <= %[2]d and pg_column_size(metadata) <= %[2]d)`,
		table(schema, "river_job"), mostArgs)); err != nil {
		return fmt.Errorf("bound the queue %q: %w", schema, err)
	}
	return nil
}

// Migration is one of the queue's own.
type Migration struct {
	// Version from 1.
	Version int
	// SQL of it, as River runs it where the search path names the schema.
	SQL string
}

// schemaMark is where River's text has the schema. Outside of a string it is a comment; inside of one it is not.
const schemaMark = "/* TEMPLATE: schema */"

// Migrations lists what Migrate runs of River, without a database.
func Migrations() ([]Migration, error) {
	m, err := rivermigrate.New(riverpgxv5.New(nil), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("list the queue's migrations: %w", err)
	}
	var out []Migration
	for _, v := range m.AllVersions() {
		out = append(out, Migration{Version: v.Version, SQL: strings.ReplaceAll(v.SQLUp, schemaMark, "")})
	}
	return out, nil
}

// GrantsSQL is what a queue's owner grants so that some roles can enqueue and another can work, each no more than it needs. An
// inserter can't take a job away, nor change one: River's "enqueue once" updates `kind` to itself. The worker can't enqueue. None
// can alter the schema. Run again it changes nothing.
func GrantsSQL(schema, workerRole string, inserterRoles ...string) string {
	name := func(n string) string { return pgx.Identifier{n}.Sanitize() }
	inserters := make([]string, len(inserterRoles))
	for i, role := range inserterRoles {
		inserters[i] = name(role)
	}
	jobs, inserter, worker := table(schema, "river_job"), strings.Join(inserters, ", "), name(workerRole)
	return strings.Join([]string{
		fmt.Sprintf("revoke all on schema %s from public", name(schema)),
		fmt.Sprintf("revoke all on all tables in schema %s from public", name(schema)),
		// Functions are everybody's unless revoked; writing a job evaluates one in the predicate of an index.
		fmt.Sprintf("revoke all on all functions in schema %s from public", name(schema)),
		fmt.Sprintf("grant execute on all functions in schema %s to %s, %s", name(schema), inserter, worker),
		fmt.Sprintf("grant usage on schema %s to %s, %s", name(schema), inserter, worker),
		fmt.Sprintf("grant select, insert, update (kind) on %s to %s", jobs, inserter),
		fmt.Sprintf("grant usage on sequence %s to %s", table(schema, "river_job_id_seq"), inserter),
		fmt.Sprintf("grant select, update, delete on %s to %s", jobs, worker),
		fmt.Sprintf("grant select, insert, update, delete on %s, %s to %s", table(schema, "river_leader"), table(schema, "river_queue"), worker),
		"",
	}, ";\n")
}
