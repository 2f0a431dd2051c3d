// Package dump takes a database as of one moment out of a PostgreSQL server and puts it into another, with PostgreSQL's own programs. It
// promises that everything which a Snapshot answers, rows, counts and values, is as of the same moment, that reading stops no writer, that
// nothing is held in memory, and that no password stands on a command line. It relies on the role that it is given to see every row.
package dump

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/config"
	"a3os.app/libs/pg"
)

// Programs are PostgreSQL's own, of one installation.
type Programs struct {
	// Dir holds pg_dump and pg_restore.
	Dir string
}

// Find says whether the programs are there.
func (p Programs) Find() error {
	for _, name := range []string{"pg_dump", "pg_restore"} {
		if _, err := os.Stat(filepath.Join(p.Dir, name)); err != nil {
			return fmt.Errorf("%s has no %s: install PostgreSQL's client programs, or name a whole installation with A3_PG_BIN", p.Dir, name)
		}
	}
	return nil
}

// Table is a table and how many rows it has.
type Table struct {
	// Schema and Name of it.
	Schema, Name string
	// Rows in it.
	Rows int64
}

// String is the table's name with its schema.
func (t Table) String() string { return t.Schema + "." + t.Name }

// Snapshot is a database as of one moment, for as long as it is open.
type Snapshot struct {
	// TakenAt is that moment, by the server's clock.
	TakenAt time.Time

	conn *pgx.Conn
	tx   pgx.Tx
	id   string
	url  config.Secret
	// secured says that row-level security holds for the role, which sees every row by its policies.
	secured bool
}

// Begin opens a snapshot.
func Begin(ctx context.Context, url config.Secret) (*Snapshot, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{conn: conn, url: url}
	s.tx, err = conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err == nil {
		// The clock first: what committed before it was read is in the snapshot.
		err = s.tx.QueryRow(ctx, "SELECT clock_timestamp(), pg_export_snapshot()").Scan(&s.TakenAt, &s.id)
	}
	if err == nil {
		err = s.seesAll(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take a snapshot of the database: %w", err), conn.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// seesAll refuses a role that row-level security keeps rows from: what it doesn't see would be missed in silence.
func (s *Snapshot) seesAll(ctx context.Context) error {
	if err := s.tx.QueryRow(ctx, "SELECT NOT (rolsuper OR rolbypassrls) FROM pg_roles WHERE rolname = current_user").Scan(&s.secured); err != nil || !s.secured {
		return err
	}
	rows, _ := s.tx.Query(ctx, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relrowsecurity AND (
			NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*') AND pg_get_expr(p.polqual, p.polrelid) = 'true'
				AND EXISTS (SELECT FROM unnest(p.polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE')))
			OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive))
		ORDER BY 1`) // the next call tells
	hidden, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(hidden) > 0 {
		err = fmt.Errorf("row-level security keeps rows of %s from the login that copies it: a table was made meanwhile, try again", strings.Join(hidden, ", "))
	}
	return err
}

// lockWait is how long a lock is waited for on a table that somebody holds: whoever may write to one may keep it for as long as they like, and others'
// backups are made after this one.
const lockWait = "20s"

func connect(ctx context.Context, url config.Secret) (*pgx.Conn, error) {
	cfg, err := pg.ParseConfig(url.Reveal())
	if err != nil {
		return nil, errors.New("the database URL is not a PostgreSQL connection string") // the parser repeats it, password and all
	}
	cfg.RuntimeParams["timezone"], cfg.RuntimeParams["application_name"], cfg.RuntimeParams["lock_timeout"] = "UTC", "fleet", lockWait
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to database %s as %s: %w", cfg.Database, cfg.User, err)
	}
	return conn, nil
}

// Close lets the moment go.
func (s *Snapshot) Close(ctx context.Context) error { return s.conn.Close(context.WithoutCancel(ctx)) }

// Value reads one text; empty where there is no row.
func (s *Snapshot) Value(ctx context.Context, query string) (string, error) {
	var out string
	err := s.tx.QueryRow(ctx, query).Scan(&out)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return out, err
}

// Tables are all tables, with their rows counted.
func (s *Snapshot) Tables(ctx context.Context) ([]Table, error) { return tables(ctx, s.tx) }

// Size is what a database takes on its server's disk, in bytes.
func Size(ctx context.Context, url config.Secret) (n int64, err error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&n); err != nil {
		return 0, fmt.Errorf("ask for the size of the database: %w", err)
	}
	return n, nil
}

// Count counts the rows of every table of a database.
func Count(ctx context.Context, url config.Secret) ([]Table, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	return tables(ctx, tx)
}

func tables(ctx context.Context, tx pgx.Tx) ([]Table, error) {
	rows, err := tx.Query(ctx, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%'
		ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Table, err error) { return t, row.Scan(&t.Schema, &t.Name) })
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	for i, t := range out {
		if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{t.Schema, t.Name}.Sanitize()).Scan(&out[i].Rows); err != nil {
			return nil, fmt.Errorf("count the rows of %s: %w", t, err)
		}
	}
	return out, nil
}

// Dump writes the whole database, as of the snapshot, in pg_dump's custom format. Roles are not in it, nor what the server says of the
// database itself (its mark, who may connect).
func (s *Snapshot) Dump(ctx context.Context, p Programs, w io.Writer) error {
	// A light compression: the parts are written to disk once, and read on the day that everybody waits.
	return s.dump(ctx, p, w, "--format=custom", "--compress=1")
}

// SQL writes it as statements into a file, for who has no server of ours: without roles' rights.
func (s *Snapshot) SQL(ctx context.Context, p Programs, file string) error {
	return s.dump(ctx, p, nil, "--no-owner", "--no-privileges", "--file="+file)
}

func (s *Snapshot) dump(ctx context.Context, p Programs, w io.Writer, args ...string) error {
	args = append(args, "--snapshot="+s.id, "--lock-wait-timeout="+lockWait, "--no-password")
	if s.secured {
		args = append(args, "--enable-row-security")
	}
	return run(ctx, s.url, nil, w, filepath.Join(p.Dir, "pg_dump"), args...)
}

// Restore puts a dump into an empty database. url is the owner's: what is in a dump runs with the rights of the one database that it is
// for. Indexes and keys are built as it goes.
func Restore(ctx context.Context, p Programs, url config.Secret, r io.Reader) error {
	cfg, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		return errors.New("the database URL is not a PostgreSQL connection string")
	}
	return run(ctx, url, r, nil, filepath.Join(p.Dir, "pg_restore"), "--dbname="+cfg.Database, "--no-owner", "--exit-on-error", "--no-password")
}

// TLS is how PostgreSQL's own programs are to reach a server, from its connection string: as whoever else has that. A server of this machine's
// has no TLS.
func TLS(url config.Secret) []string {
	u, err := neturl.Parse(url.Reveal())
	if err != nil || u.Query().Get("sslmode") == "" {
		return []string{"PGSSLMODE=disable"}
	}
	out := []string{"PGSSLMODE=" + u.Query().Get("sslmode")}
	if roots := u.Query().Get("sslrootcert"); roots != "" {
		out = append(out, "PGSSLROOTCERT="+roots)
	}
	return out
}

// run runs a program that connects to a database.
func run(ctx context.Context, url config.Secret, in io.Reader, out io.Writer, program string, args ...string) error {
	cfg, err := pg.ParseConfig(url.Reveal())
	if err != nil {
		return errors.New("the database URL is not a PostgreSQL connection string")
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // PostgreSQL's own program, with arguments of ours
	cmd.Env = append(TLS(url), "PATH="+cmp.Or(os.Getenv("PATH"), "/usr/bin:/bin"), "LC_ALL=C", "TZ=UTC", "PGHOST="+cfg.Host, "PGPORT="+strconv.Itoa(int(cfg.Port)),
		"PGUSER="+cfg.User, "PGPASSWORD="+cfg.Password, "PGDATABASE="+cfg.Database, "PGAPPNAME=fleet",
		"PGREQUIREAUTH="+cfg.RequireAuth) // which versions before 16 pass over
	cmd.Dir = "/"
	var said tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, said.text())
	}
	return nil
}

// tail keeps the last of what a program says.
type tail struct{ buf bytes.Buffer }

const mostSaid = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if t.buf.Len()+n > mostSaid {
		t.buf.Reset()
		p = p[max(0, n-mostSaid):]
	}
	t.buf.Write(p)
	return n, nil
}

func (t *tail) text() string { return strings.Join(strings.Fields(t.buf.String()), " ") }
