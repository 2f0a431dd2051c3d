package postgres

import (
	"context"
	"embed"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/services/discoveryworker/internal/connector"
)

//go:embed queries/*.sql
var queries embed.FS

// query is the text of queries/<name>.sql.
func query(name string) string {
	text, err := queries.ReadFile("queries/" + name + ".sql")
	if err != nil {
		panic("postgres: no query " + name) // the name is a constant of this package, and a test runs every query
	}
	return string(text)
}

// session is one read-only snapshot of one database.
type session struct {
	emitter
	server      *server
	conn        *pgx.Conn
	tx          pgx.Tx
	version     int // major
	versionName string
	database    string
	privileges  map[string][]string
	listed      map[string]bool
}

// open connects to a database and takes a snapshot. sink may be nil when nothing is emitted.
func (s *server) open(ctx context.Context, database, scope string, sink connector.Sink) (*session, error) {
	conn, err := s.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	session := &session{server: s, conn: conn, database: database, privileges: map[string][]string{}, emitter: emitter{scope: scope, sink: sink}}
	if err := session.begin(ctx); err != nil {
		session.close(ctx)
		return nil, err
	}
	return session, nil
}

func (s *session) begin(ctx context.Context) error {
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	s.tx = tx
	var number int
	var current, user string
	ignored := make([]string, 6)
	err = tx.QueryRow(ctx, query("begin"), strconv.FormatInt(patience.Milliseconds(), 10)).Scan(&number, &s.versionName, &current, &user,
		&ignored[0], &ignored[1], &ignored[2], &ignored[3], &ignored[4], &ignored[5])
	if err != nil {
		return err
	}
	s.version = number / 10000
	if s.version < oldest {
		return connector.Permanent(fmt.Errorf("%s runs PostgreSQL %s, whose catalogues are not read: version %d or newer is needed", s.server,
			s.versionName, oldest))
	}
	return nil
}

// restart takes a new snapshot after a refused query ended the old one.
func (s *session) restart(ctx context.Context) error {
	if err := s.tx.Rollback(ctx); err != nil {
		return err
	}
	return s.begin(ctx)
}

// close lets go of the server, even where ctx has ended; what was read needs no commit.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // the server ends the snapshot with the connection
}

// explain says what could not be read.
func (s *session) explain(what string, err error) error {
	if code(err) == codeTimeout {
		return fmt.Errorf("reading %s of database %q at %s took longer than %s: try again when the server has less to do", what, s.database, s.server,
			patience)
	}
	return fmt.Errorf("read %s of database %q at %s: %w", what, s.database, s.server, err)
}

// database is one database of the server.
type database struct {
	name string
	// open says that it accepts connections at all, granted that this role may make one.
	open, template, granted bool
}

// closed says why the database can't be read, if so. A template that nobody can connect to is left out in silence: there is one in
// every server.
func (d database) closed(user string) string {
	switch {
	case !d.open && !d.template:
		return fmt.Sprintf("database %q accepts no connections: ALTER DATABASE %s ALLOW_CONNECTIONS true", d.name, quote(d.name))
	case d.open && !d.granted:
		return fmt.Sprintf("role %q may not connect to database %q: GRANT CONNECT ON DATABASE %s TO %s", user, d.name, quote(d.name), quote(user))
	default:
		return ""
	}
}

// databases lists the databases by name, from a name on; there is always one.
func (s *session) databases(ctx context.Context, from string) ([]database, error) {
	rows, err := s.tx.Query(ctx, query("database_names"), from)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (database, error) {
		var d database
		err := row.Scan(&d.name, &d.open, &d.template, &d.granted)
		return d, err
	})
}

// databases lists the databases by name, from a name on.
func (s *server) databases(ctx context.Context, from string) ([]database, error) {
	home := s.settings.GetDatabase()
	session, err := s.open(ctx, home, rolesScope, nil)
	if err != nil {
		return nil, s.explain(home, err)
	}
	defer session.close(ctx)
	names, err := session.databases(ctx, from)
	if err != nil {
		return nil, session.explain("the names of databases", err)
	}
	return names, nil
}

// privilegesOf lists what can be granted on a kind of object, by the letter that acldefault knows it by.
func (s *session) privilegesOf(ctx context.Context, kind string) ([]string, error) {
	if kind == columnACL {
		// A column's default is that nobody has anything, so the server can't be asked.
		return []string{"INSERT", "REFERENCES", "SELECT", "UPDATE"}, nil
	}
	if known, ok := s.privileges[kind]; ok {
		return known, nil
	}
	rows, err := s.tx.Query(ctx, query("privileges"), kind)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	s.privileges[kind] = all
	return all, nil
}
