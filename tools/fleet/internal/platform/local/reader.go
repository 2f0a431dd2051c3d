package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/config"
	"a3os.app/tools/fleet/internal/platform"
)

// readFor is how long a reader's password is good for: longer than any backup takes. It is for one that was killed before it could take
// its role back.
const readFor = 12 * time.Hour

// readerRole is what the login is called that copies a set's database.
const readerRole = "reader"

const readerConnections = 4

// reader lends a login that reads every row of a set's database and writes none, for as long as it takes to copy it. The superuser could
// as well, and so could whatever runs when its session evaluates what the database's owner wrote.
func (p *Platform) reader(ctx context.Context, s platform.Set) (url config.Secret, done func() error, err error) {
	rest, err := p.awake(ctx, s)
	if err != nil {
		return url, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rest())
		}
	}()
	server, err := p.databases(s)
	if err != nil {
		return url, nil, err
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return url, nil, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	super, err := isSuperuser(ctx, admin)
	if err != nil {
		return url, nil, err
	}
	if err := p.takeReaderBack(ctx, admin, s, super); err != nil {
		return url, nil, err
	}
	name, password := realRole(s, readerRole), rand.Text()
	if err := p.lend(ctx, admin, s, super, password); err != nil {
		return url, nil, fmt.Errorf("lend a login that reads %s: %w", databaseName(s), err)
	}
	return config.NewSecret(server.URLAs(name, password, databaseName(s))), func() error {
		ctx := context.WithoutCancel(ctx)
		admin, err := p.connect(ctx, s, "postgres")
		if err != nil {
			return errors.Join(err, rest())
		}
		err = p.takeReaderBack(ctx, admin, s, super)
		return errors.Join(err, admin.Close(ctx), rest())
	}, nil
}

// lend lets the reader in. Where the server's first user is a superuser, it is made for this once and goes around row-level security; elsewhere
// nobody can, and it is let in by policies and rights of its own, which stay.
func (p *Platform) lend(ctx context.Context, admin *pgx.Conn, s platform.Set, super bool, password string) error {
	role, db := quoted(realRole(s, readerRole)), quoted(databaseName(s))
	login := fmt.Sprintf("CONNECTION LIMIT %d PASSWORD %s VALID UNTIL %s", readerConnections, literal(password), literal(p.Now().Add(readFor).UTC().Format(time.RFC3339)))
	statements := []string{"ALTER ROLE " + role + " WITH LOGIN " + login}
	if super {
		statements[0] = "CREATE ROLE " + role + " LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS " + login + " IN ROLE pg_read_all_data"
	} else if err := p.letReaderRead(ctx, admin, s); err != nil {
		return err
	}
	return batch(ctx, admin, append(statements, "ALTER ROLE "+role+" SET search_path = pg_catalog", "ALTER ROLE "+role+" SET default_transaction_read_only = on",
		"ALTER ROLE "+role+" SET statement_timeout = 0", "ALTER ROLE "+role+" SET idle_in_transaction_session_timeout = 0", "GRANT CONNECT ON DATABASE "+db+" TO "+role)...)
}

// makeReader is the statements that make a reader which can't go around row-level security.
func makeReader(s platform.Set) []string {
	name := realRole(s, readerRole)
	return []string{fmt.Sprintf("CREATE ROLE %s NOLOGIN NOCREATEDB NOCREATEROLE CONNECTION LIMIT %d", quoted(name), readerConnections), takePart(name)}
}

// readsAll is the policy by which a reader sees every row, in each table that has row-level security.
const readsAll = "fleet_reads"

// letReaderRead gives a reader that can't go around row-level security the right to read what there is by now. The policy of a new table takes
// its lock for a moment: who can't have it gives up and is told, rather than have others queue up behind.
func (p *Platform) letReaderRead(ctx context.Context, admin *pgx.Conn, s platform.Set) error {
	role := quoted(realRole(s, readerRole))
	var there bool
	if err := admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", realRole(s, readerRole)).Scan(&there); err != nil {
		return err
	}
	if !there { // of a set that was made before readers were
		if err := batch(ctx, admin, makeReader(s)...); err != nil {
			return err
		}
	}
	conn, err := p.connect(ctx, s, databaseName(s))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	list := func(query string, args ...any) ([]string, error) {
		rows, _ := conn.Query(ctx, query, args...) // the next call tells
		return pgx.CollectRows(rows, pgx.RowTo[string])
	}
	schemas, err := list("SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'public') AND nspname NOT LIKE 'pg\\_%' ORDER BY 1")
	if err != nil {
		return fmt.Errorf("list the schemas: %w", err)
	}
	statements := []string{"SET LOCAL lock_timeout = '5s'"}
	if len(schemas) > 0 {
		in := strings.Join(schemas, ", ")
		statements = append(statements, "GRANT USAGE ON SCHEMA "+in+" TO "+role, "GRANT SELECT ON ALL TABLES IN SCHEMA "+in+" TO "+role, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA "+in+" TO "+role)
	}
	closed, err := list(`SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relrowsecurity AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = $1) ORDER BY 1`, readsAll)
	if err != nil {
		return fmt.Errorf("list the tables with row-level security: %w", err)
	}
	for _, table := range closed {
		statements = append(statements, "CREATE POLICY "+readsAll+" ON "+table+" FOR SELECT TO "+role+" USING (true)")
	}
	return batch(ctx, conn, statements...)
}

// takeReaderBack takes the login back. One that reads, of a command that was killed, ends with it.
func (p *Platform) takeReaderBack(ctx context.Context, admin *pgx.Conn, s platform.Set, super bool) error {
	name := realRole(s, readerRole)
	role := quoted(name)
	var there, database bool
	err := admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), EXISTS (SELECT FROM pg_database WHERE datname = $2)", name, databaseName(s)).Scan(&there, &database)
	if err != nil || !there {
		return err
	}
	if !super {
		if _, err := admin.Exec(ctx, "ALTER ROLE "+role+" WITH NOLOGIN PASSWORD NULL"); err != nil {
			return fmt.Errorf("take back the login %s: %w", name, err)
		}
	}
	_, err = admin.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)
	if database {
		_, revoked := admin.Exec(ctx, "REVOKE ALL ON DATABASE "+quoted(databaseName(s))+" FROM "+role)
		err = errors.Join(err, revoked)
	}
	if super {
		_, dropped := admin.Exec(ctx, "DROP ROLE "+role)
		err = errors.Join(err, dropped)
	}
	if err != nil {
		return fmt.Errorf("take back the login %s: %w", name, err)
	}
	return nil
}
