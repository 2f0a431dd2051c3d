package additive

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"a3os.app/libs/pg"
)

//go:embed watch.sql
var watchSQL string

var (
	down     = regexp.MustCompile(`(?mi)^--\s*\+goose\s+Down\b`)
	alone    = regexp.MustCompile(`(?mi)^--\s*\+goose\s+NO TRANSACTION\b`)
	accepted = regexp.MustCompile(`(?m)^\s*--\s*accepted\s+([a-z-]+):\s*(\S.*)$`)
)

// lockTimeout is what is in force when migrations run.
const lockTimeout = "5s"

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// watcher looks at a migration while it runs.
type watcher interface {
	// did is called after each statement.
	did(ctx context.Context, q querier) error
	// done is called before what was done is committed, or, stepwise, after a statement that ran without a transaction.
	done(ctx context.Context, q querier, stepwise bool) error
	// hidden is called of a statement that commits what it does while it goes on.
	hidden()
}

// unwatched is for what nobody has to look at.
type unwatched struct{}

func (unwatched) did(context.Context, querier) error        { return nil }
func (unwatched) done(context.Context, querier, bool) error { return nil }
func (unwatched) hidden()                                   {}

// run runs a migration as it will be run: in a transaction, or, where it says so, statement by statement without one.
func (c *checker) run(ctx context.Context, m Migration, w watcher) error {
	text := m.SQL
	if at := down.FindStringIndex(text); at != nil {
		text = text[:at[0]]
	}
	text = pg.ReplaceRoles(text, func(word string) string { return quote(c.roles[word]) })
	// Of one that changed the settings nothing is left for the next.
	schema, _, _ := strings.Cut(m.Name, "/")
	if _, err := c.conn.Exec(ctx, "RESET ALL; SET search_path = "+quote(schema)+"; SET lock_timeout = '"+lockTimeout+"'"); err != nil {
		return fmt.Errorf("prepare for %s: %w", m.Name, err)
	}
	if alone.MatchString(text) {
		return c.runAlone(ctx, m, text, w)
	}
	return c.within(ctx, m, commands(text), w)
}

func cantRun(m Migration, err error) error {
	return fmt.Errorf("migration %s can't be run on what was there before: %w", m.Name, err)
}

// within runs statements in a transaction of theirs.
func (c *checker) within(ctx context.Context, m Migration, commands []string, w watcher) error {
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	var began, present string
	if err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text").Scan(&began); err != nil {
		return err
	}
	for _, command := range commands {
		if _, err := tx.Conn().PgConn().Exec(ctx, command).ReadAll(); err != nil {
			return cantRun(m, err)
		}
		// In another transaction nothing is left of what this one locked, and nothing would be found.
		if err := tx.QueryRow(ctx, "SELECT pg_current_xact_id()::text").Scan(&present); err != nil {
			return err
		}
		const inTransaction = 'T'
		if present != began || c.conn.PgConn().TxStatus() != inTransaction {
			return fmt.Errorf("migration %s ends its transaction itself, and a migration is one: write the rest of it as another one", m.Name)
		}
		if err := w.did(ctx, tx); err != nil {
			return err
		}
	}
	if err := w.done(ctx, tx, false); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// runAlone runs what demands it without a transaction, and all else in one, which shows what is locked: what PostgreSQL takes in one has
// the same effect there.
func (c *checker) runAlone(ctx context.Context, m Migration, text string, w watcher) error {
	for _, unit := range units(text) {
		commands := commands(unit)
		err := c.within(ctx, m, commands, w)
		var refused *pgconn.PgError
		// Several at once are in a transaction whatever the migration says.
		if err == nil || len(commands) > 1 || !errors.As(err, &refused) {
			if err != nil {
				return err
			}
			continue
		}
		const activeTransaction, invalidTermination = "25001", "2D000"
		switch refused.Code {
		case activeTransaction:
		case invalidTermination:
			w.hidden()
		default:
			return err
		}
		if err := c.withoutTransaction(ctx, m, commands[0], w); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) withoutTransaction(ctx context.Context, m Migration, command string, w watcher) error {
	if _, err := c.conn.PgConn().Exec(ctx, command).ReadAll(); err != nil {
		return cantRun(m, err)
	}
	if err := w.did(ctx, c.conn); err != nil {
		return err
	}
	return w.done(ctx, c.conn, true)
}
