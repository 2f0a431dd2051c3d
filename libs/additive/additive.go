// Package additive says whether migrations only add, so that the release before goes on working while they run and after. It promises
// to name whatever they take away, narrow or replace of what was there and a program can meet, and whatever holds a table's writers up for
// as long as it is large, by asking PostgreSQL itself: migrations run in a throwaway database, and the catalogue before, the catalogue after
// and the locks that were held are compared. What a statement means is never guessed from its text. It can't see what a program does with a
// column, nor whether a function that has another body answers what it did: that its author says, in the migration itself,
// `-- accepted drop-column: no release since 1.3 reads it`.
package additive

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pg"
)

// Migration is one migration.
type Migration struct {
	// Name is schema and file: `iam/00002_seal_again`.
	Name string
	// SQL is its text, as goose reads it.
	SQL string
}

// Finding is something that a migration takes from the release before.
type Finding struct {
	// Migration that does it.
	Migration string
	// Rule that names the kind: `drop-column`.
	Rule string
	// What it does, a sentence.
	What string
	// Accepted is why its author takes it all the same; empty where nobody said.
	Accepted string
}

func (f Finding) String() string {
	if f.Accepted != "" {
		return fmt.Sprintf("%s: %s (%s, accepted: %s)", f.Migration, f.What, f.Rule, f.Accepted)
	}
	return fmt.Sprintf("%s: %s (%s)", f.Migration, f.What, f.Rule)
}

// Breaking are the findings that nobody accepted.
func Breaking(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Accepted != "" })
}

// Check runs migrations in a database of their own, and names what those of each release take from the release before it. releases are the
// migrations that each added, the oldest release first. server is the URL of a superuser of a server that may be used so; on it nothing is
// left behind.
func Check(ctx context.Context, server string, releases ...[]Migration) (findings []Finding, err error) {
	c, err := open(ctx, server, slices.Concat(releases...))
	if err != nil {
		return nil, err
	}
	defer func() {
		if failed := c.close(ctx); err == nil {
			err = failed
		}
	}()
	for i, added := range releases {
		for _, m := range added {
			if i == 0 { // nothing was there that it could take
				if err := c.run(ctx, m, unwatched{}); err != nil {
					return nil, err
				}
				continue
			}
			found, err := c.examine(ctx, m)
			if err != nil {
				return nil, err
			}
			findings = append(findings, found...)
		}
		if c.base, err = read(ctx, c.conn); err != nil {
			return nil, err
		}
	}
	return findings, nil
}

// checker is a throwaway database with throwaway roles.
type checker struct {
	admin, conn *pgx.Conn
	database    string
	// roles are the real names by the words for them.
	roles map[string]string
	// base is what the release before knows.
	base catalogue
}

func open(ctx context.Context, server string, all []Migration) (c *checker, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("the server's URL is none")
	}
	name := "a3_check_" + strings.ToLower(rand.Text()[:12])
	c = &checker{database: name, roles: map[string]string{}}
	if c.admin, err = pgx.Connect(ctx, server); err != nil {
		return nil, fmt.Errorf("connect to the server that migrations are tried on: %w", err)
	}
	defer func() {
		if err != nil {
			_ = c.close(ctx)
		}
	}()
	// It is open to nobody from its first moment: what starts on that server meanwhile refuses to work beside a database that it gets into.
	for _, text := range []string{
		"CREATE DATABASE " + quote(name) + " TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false",
		"REVOKE ALL ON DATABASE " + quote(name) + " FROM PUBLIC",
		"ALTER DATABASE " + quote(name) + " ALLOW_CONNECTIONS true",
	} {
		if _, err = c.admin.Exec(ctx, text); err != nil {
			return c, fmt.Errorf("make the database that migrations are tried in: %w", err)
		}
	}
	schemas := map[string]bool{}
	for _, m := range all {
		schema, _, _ := strings.Cut(m.Name, "/")
		schemas[schema] = true
		for _, word := range pg.RoleWords(m.SQL) {
			c.roles[word] = name + strings.TrimPrefix(word, "role")
		}
	}
	for _, real := range c.roles {
		if _, err = c.admin.Exec(ctx, "CREATE ROLE "+quote(real)+" NOLOGIN"); err != nil {
			return c, fmt.Errorf("make a role: %w", err)
		}
	}
	u.Path = "/" + name
	if c.conn, err = pgx.Connect(ctx, u.String()); err != nil {
		return c, fmt.Errorf("connect to the database that migrations are tried in: %w", err)
	}
	if _, err = c.conn.Exec(ctx, watchSQL+catalogueFunction); err != nil {
		return c, fmt.Errorf("watch the database that migrations are tried in: %w", err)
	}
	for _, schema := range slices.Sorted(maps.Keys(schemas)) {
		if _, err = c.conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quote(schema)); err != nil {
			return c, fmt.Errorf("make schema %s: %w", schema, err)
		}
	}
	return c, nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// close leaves nothing behind.
func (c *checker) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if c.conn != nil {
		_ = c.conn.Close(ctx)
	}
	statements := []string{"DROP DATABASE IF EXISTS " + quote(c.database) + " WITH (FORCE)"}
	for _, real := range c.roles {
		statements = append(statements, "DROP ROLE IF EXISTS "+quote(real))
	}
	var failed error
	for _, s := range statements {
		if _, err := c.admin.Exec(ctx, s); err != nil {
			failed = cmp.Or(failed, fmt.Errorf("remove what migrations were tried in: %w", err))
		}
	}
	return cmp.Or(failed, c.admin.Close(ctx))
}
