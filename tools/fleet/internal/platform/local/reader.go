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
	name, password := realRole(s, "reader"), rand.Text()
	role, db := pgx.Identifier{name}.Sanitize(), pgx.Identifier{databaseName(s)}.Sanitize()
	if err := p.dropReader(ctx, admin, s); err != nil {
		return url, nil, err
	}
	const connections = 4
	_, err = admin.PgConn().Exec(ctx, strings.Join([]string{
		fmt.Sprintf("CREATE ROLE %s LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS CONNECTION LIMIT %d PASSWORD %s VALID UNTIL %s IN ROLE pg_read_all_data",
			role, connections, literal(password), literal(p.Now().Add(readFor).UTC().Format(time.RFC3339))),
		"ALTER ROLE " + role + " SET search_path = pg_catalog", "ALTER ROLE " + role + " SET default_transaction_read_only = on",
		"ALTER ROLE " + role + " SET statement_timeout = 0", "ALTER ROLE " + role + " SET idle_in_transaction_session_timeout = 0",
		"GRANT CONNECT ON DATABASE " + db + " TO " + role,
	}, ";")).ReadAll()
	if err != nil {
		return url, nil, fmt.Errorf("lend a login that reads %s: %w", databaseName(s), err)
	}
	return config.NewSecret(server.URLAs(name, password, databaseName(s))), func() error {
		ctx := context.WithoutCancel(ctx)
		admin, err := p.connect(ctx, s, "postgres")
		if err != nil {
			return errors.Join(err, rest())
		}
		err = p.dropReader(ctx, admin, s)
		return errors.Join(err, admin.Close(ctx), rest())
	}, nil
}

// dropReader takes the login back. One that reads, of a command that was killed, ends with it.
func (p *Platform) dropReader(ctx context.Context, admin *pgx.Conn, s platform.Set) error {
	name := realRole(s, "reader")
	role := pgx.Identifier{name}.Sanitize()
	var there, database bool
	err := admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), EXISTS (SELECT FROM pg_database WHERE datname = $2)", name, databaseName(s)).Scan(&there, &database)
	if err != nil || !there {
		return err
	}
	_, err = admin.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)
	if database {
		_, revoked := admin.Exec(ctx, "REVOKE ALL ON DATABASE "+pgx.Identifier{databaseName(s)}.Sanitize()+" FROM "+role)
		err = errors.Join(err, revoked)
	}
	_, dropped := admin.Exec(ctx, "DROP ROLE "+role)
	if err = errors.Join(err, dropped); err != nil {
		return fmt.Errorf("take back the login %s: %w", name, err)
	}
	return nil
}
