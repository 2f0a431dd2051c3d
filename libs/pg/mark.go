package pg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/binding"
)

// A database keeps its mark in its comment, and a queue in that of its schema: every role may read them, only the owner may write them,
// and a dump carries them along.
const markQuery = `SELECT current_database(), coalesce(shobj_description(d.oid, 'pg_database'), ''),
	coalesce((SELECT obj_description(n.oid, 'pg_namespace') FROM pg_catalog.pg_namespace n WHERE n.nspname = $1), '')
	FROM pg_catalog.pg_database d WHERE d.datname = current_database()`

// marked is shown each new connection before anybody uses it, so that a server that was exchanged under a running service is noticed too.
func marked(cfg Config) func(ctx context.Context, conn *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		var name, database, queue string
		if err := conn.QueryRow(ctx, markQuery, pgx.QueryExecModeExec, cfg.Queue).Scan(&name, &database, &queue); err != nil {
			// Nothing was done on this connection yet, so another one can be tried.
			return fmt.Errorf("read whose the database is: %w", errors.Join(errNotBegun, err))
		}
		place := binding.Place{What: "database " + strconv.Quote(name), Setting: cfg.Setting}
		if err := cfg.Owner.Check(binding.Mark{Kind: binding.Database, Name: name}, database, place); err != nil {
			return err
		}
		if cfg.Queue == "" {
			return nil
		}
		place.What = fmt.Sprintf("queue %q of database %q", cfg.Queue, name)
		return cfg.Owner.Check(binding.Mark{Kind: binding.Queue, Name: name + "/" + cfg.Queue}, queue, place)
	}
}

// reachQuery names what a service's role may do beyond its own database: the databases of the server that it could connect to, roles
// that it could become, but for the one by whose membership it logs in ($1), and attributes that go around every policy.
const reachQuery = `
	SELECT 'connect to database ' || quote_ident(d.datname) FROM pg_catalog.pg_database d
		WHERE d.datallowconn AND d.datname <> current_database() AND has_database_privilege(d.oid, 'CONNECT')
	UNION ALL SELECT 'make objects in the whole database' WHERE has_database_privilege(current_database(), 'CREATE')
	UNION ALL SELECT 'become role ' || quote_ident(r.rolname) FROM pg_catalog.pg_roles r WHERE r.rolname NOT IN (current_user, $1) AND pg_has_role(r.oid, 'MEMBER')
	UNION ALL SELECT 'do what its attributes allow: ' || concat_ws(', ', CASE WHEN r.rolsuper THEN 'superuser' END, CASE WHEN r.rolcreatedb THEN 'createdb' END,
			CASE WHEN r.rolcreaterole THEN 'createrole' END, CASE WHEN r.rolbypassrls THEN 'bypassrls' END, CASE WHEN r.rolreplication THEN 'replication' END)
		FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND (r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolbypassrls OR r.rolreplication)
	LIMIT 6`

// Prove implements binding.Resource: it waits for the database, and fails where that is not its owner's, or where the role can open more
// than it.
func (db *DB) Prove(ctx context.Context) error {
	if err := db.Await(ctx); err != nil {
		return err
	}
	rows, err := db.pool.Query(ctx, reachQuery, db.loginRole)
	if err != nil {
		return fmt.Errorf("ask what the role can reach: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("ask what the role can reach: %w", err)
	}
	if len(found) > 0 {
		c := db.pool.Config().ConnConfig
		return binding.Refuse(binding.ErrReach, "role %q of database %q can %s, and %s is to reach its own database alone: take that from the role, and check %s",
			c.User, c.Database, strings.Join(found, ", and "), db.owner, db.setting)
	}
	return nil
}

// Queue is the schema of the queue whose mark was proven with the database's; empty where none was named.
func (db *DB) Queue() string { return db.queue }
