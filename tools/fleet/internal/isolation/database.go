package isolation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"a3os.app/libs/config"
	"a3os.app/libs/pg"
)

// SQLSTATE codes of a door that is shut: this role may not, and this is not its password.
const (
	insufficientPrivilege = "42501"
	invalidAuthorization  = "28000"
	invalidPassword       = "28P01"
)

// connect opens one connection with a role's credentials, as another user or at another database where those are named.
func connect(ctx context.Context, url config.Secret, user, database string) (*pgx.Conn, error) {
	return connectAt(ctx, url, user, database, config.Secret{})
}

// connectAt shows the credentials at the server that another connection string leads to, where one is given.
func connectAt(ctx context.Context, url config.Secret, user, database string, server config.Secret) (*pgx.Conn, error) {
	cfg, err := pg.ParseConfig(url.Reveal())
	if err != nil {
		return nil, errors.New("the connection string can't be read") // the parser's error repeats the password
	}
	if server.Reveal() != "" {
		there, err := pg.ParseConfig(server.Reveal())
		if err != nil {
			return nil, errors.New("the connection string can't be read")
		}
		cfg.Host, cfg.Port, cfg.Fallbacks, cfg.TLSConfig = there.Host, there.Port, nil, there.TLSConfig
		cfg.RequireAuth = there.RequireAuth
	}
	if user != "" {
		cfg.User = user
	}
	if database != "" {
		cfg.Database = database
	}
	cfg.RuntimeParams["application_name"] = "isolation verify"
	return pgx.ConnectConfig(ctx, cfg)
}

// login is one login, and a query where it works.
func login(url config.Secret, user, database string) ask {
	return loginAt(url, user, database, config.Secret{})
}

// loginAt is login at the server of another.
func loginAt(url config.Secret, user, database string, server config.Secret) ask {
	return func(ctx context.Context) answer {
		conn, err := connectAt(ctx, url, user, database, server)
		if err != nil {
			return judge(err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "SELECT 1"); err != nil {
			return judge(err)
		}
		return openedWith("logged in")
	}
}

// judge reads an error of the server: only what says that this role may not is a refusal.
func judge(err error) answer {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return unclearWith("%v", err)
	}
	text := fmt.Sprintf("%s (SQLSTATE %s)", pe.Message, pe.Code)
	if slices.Contains([]string{insufficientPrivilege, invalidAuthorization, invalidPassword}, pe.Code) {
		return answer{refused, text}
	}
	return answer{unclear, text}
}

// both asks two questions of which each has to be answered with an open door.
func both(a, b ask) ask {
	return func(ctx context.Context) answer {
		if got := a(ctx); got.verdict != opened {
			return got
		}
		return b(ctx)
	}
}

// userOf is the role that a connection string logs in as.
func userOf(url config.Secret) string {
	cfg, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return ""
	}
	return cfg.User
}

func (s *Set) lane(r *Role) string { return "role " + s.Tenant.String() + " " + r.Name }

// wallOf is the queue's for a role that works with it, and the database's for any other.
func (s *Set) wallOf(r *Role) string {
	if s.Queue != "" && slices.Contains(r.Schemas, s.Queue) {
		return wallQueue
	}
	return wallDatabase
}

// logins of one set's roles at the database of another, and as the other's roles.
func (w *World) logins(from, at *Set) []attempt {
	if at.Database == "" {
		return nil
	}
	// Where a set has a server of its own the others are elsewhere, and it is at theirs that it is tried.
	var server config.Secret
	if from.OwnServer || at.OwnServer {
		server = at.OwnerURL
	}
	var out []attempt
	for i, r := range from.Roles {
		theirs := at.Roles[min(i, len(at.Roles)-1)]
		who, where := from.Name()+" (role "+r.Name+")", "database of "+at.Name()
		out = append(out,
			attempt{wall: from.wallOf(r), from: who, at: where, what: "log in with its own password", lane: from.lane(r), ask: loginAt(r.URL, "", at.Database, server),
				control: &control{what: "the same password at its own database, and " + at.Name() + "'s role " + theirs.Name + " at this one", ask: both(login(r.URL, "", ""), login(theirs.URL, "", ""))}},
			attempt{wall: from.wallOf(r), from: who, at: where, what: "log in as " + at.Name() + "'s role " + theirs.Name + " with its own password", lane: at.lane(theirs),
				ask: loginAt(r.URL, userOf(theirs.URL), at.Database, server), control: &control{what: "that role with its own password", ask: login(theirs.URL, "", "")}})
	}
	return out
}

// planeDatabases are those that belong to no set: the plane's, and those that came with a set's own server.
func (w *World) planeDatabases(s *Set) []attempt {
	var out []attempt
	for _, r := range s.Roles {
		for _, database := range w.Databases {
			out = append(out, s.closedDatabase(r, database, "database "+database, w.AdminURL, s.OwnServer))
		}
		if !s.OwnServer {
			continue
		}
		for _, database := range []string{"postgres", "template1"} {
			out = append(out, s.closedDatabase(r, database, "database "+database+" of its own server", s.AdminURL, false))
		}
	}
	return out
}

// closedDatabase is a database that no role of a set enters, on the role's own server or on the provisioner's.
func (s *Set) closedDatabase(r *Role, database, at string, adminURL func(string) (config.Secret, error), elsewhere bool) attempt {
	admin := func(ctx context.Context) answer {
		url, err := adminURL(database)
		if err != nil {
			return unclearWith("%v", err)
		}
		return login(url, "", "")(ctx)
	}
	enter := func(ctx context.Context) answer {
		var server config.Secret
		if elsewhere {
			var err error
			if server, err = adminURL(database); err != nil {
				return unclearWith("%v", err)
			}
		}
		return loginAt(r.URL, "", database, server)(ctx)
	}
	return attempt{wall: wallDatabase, from: s.Name() + " (role " + r.Name + ")", at: at, what: "log in with its own password",
		lane: s.lane(r), ask: enter, control: &control{what: "the provisioner", ask: admin}}
}

// tablesQuery is what lies in a schema, whoever owns it: everybody can read names.
const tablesQuery = `SELECT quote_ident(n.nspname) || '.' || quote_ident(k.relname) FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
	WHERE k.relkind IN ('r', 'p', 'v', 'm') AND n.nspname = $1 ORDER BY 1`

// schemasQuery are the schemas that PostgreSQL did not come with.
const schemasQuery = `SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema' ORDER BY 1`

// schemas of siblings, tried by each role of the set's own database: every table of every schema that the blueprint doesn't give it.
func (w *World) schemas(s *Set) []attempt {
	var out []attempt
	for _, r := range s.Roles {
		out = append(out, attempt{wall: s.wallOf(r), from: s.Name() + " (role " + r.Name + ")", at: "database of " + s.Name(), lane: s.lane(r),
			what:    "read every table of every schema but " + strings.Join(r.Schemas, ", "),
			ask:     func(ctx context.Context) answer { return readTables(ctx, r.URL, r.Schemas, refused) },
			control: &control{what: "the database's owner", ask: func(ctx context.Context) answer { return readTables(ctx, s.OwnerURL, r.Schemas, opened) }}, optional: true})
		out = append(out, attempt{wall: wallDatabase, from: s.Name() + " (role " + r.Name + ")", at: "database of " + s.Name(), lane: s.lane(r),
			what: "become the database's owner", ask: become(r.URL, userOf(s.OwnerURL)),
			control: &control{what: "the owner with its own password", ask: login(s.OwnerURL, "", "")}})
	}
	return out
}

func become(url config.Secret, role string) ask {
	return func(ctx context.Context) answer {
		conn, err := connect(ctx, url, "", "")
		if err != nil {
			return unclearWith("%v", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "SET ROLE "+pgx.Identifier{role}.Sanitize()); err != nil {
			return judge(err)
		}
		return openedWith("it became %s", role)
	}
}

// readTables reads every table outside of some schemas, no row of it. All of them have to answer as wanted; the first that doesn't is told.
func readTables(ctx context.Context, url config.Secret, but []string, want verdict) answer {
	conn, err := connect(ctx, url, "", "")
	if err != nil {
		return unclearWith("%v", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	all, err := texts(ctx, conn, schemasQuery)
	if err != nil {
		return unclearWith("%v", err)
	}
	n := 0
	var found []string
	for _, schema := range all {
		if slices.Contains(but, schema) {
			continue
		}
		tables, err := texts(ctx, conn, tablesQuery, schema)
		if err != nil {
			return unclearWith("%v", err)
		}
		for _, table := range tables {
			n++
			got := openedWith("it reads %s", table)
			if _, err := conn.Exec(ctx, "SELECT FROM "+table+" LIMIT 0"); err != nil {
				got = judge(err)
			}
			switch got.verdict {
			case want:
			case opened:
				found = append(found, table)
			default:
				return answer{got.verdict, table + ": " + got.text}
			}
		}
	}
	if len(found) > 0 {
		return openedWith("it reads %s", some(found))
	}
	if n == 0 {
		// A set whose one role is given every schema that there is has no sibling's to be kept from.
		return answer{absent, "there is no other table"}
	}
	if want == opened {
		return openedWith("%d tables read", n)
	}
	return refusedWith("%d tables, each: permission denied (SQLSTATE %s)", n, insufficientPrivilege)
}

func texts(ctx context.Context, conn *pgx.Conn, query string, args ...any) ([]string, error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// some are the first few of many.
func some(all []string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}
