package pg

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Roles maps the role names that migrations use (`role_iam`, `role_iam_tenant`, …) to the real ones, which carry the tenant's id.
type Roles map[string]string

// Migration is the migrations of one schema.
type Migration struct {
	// Schema the migrations make and keep their version table in.
	Schema string
	// Files are goose SQL migrations, named NNNNN_what.sql. A word `role_x` in them is replaced by the real role.
	Files fs.FS
}

// Migrate brings schemas up to date, in the order given, with the owner's role. Two at once wait for each other (a session lock),
// and each migration is one transaction, so that a killed one is as if never begun.
func Migrate(ctx context.Context, ownerURL string, roles Roles, migrations ...Migration) error {
	cc, err := ParseConfig(ownerURL)
	if err != nil {
		return fmt.Errorf("the owner's database URL: %w", err)
	}
	cc.RuntimeParams["application_name"] = "migrate"
	// A migration that waits longer for a lock than this would make every query behind it wait as well.
	cc.RuntimeParams["lock_timeout"] = "5s"
	db := stdlib.OpenDB(*cc)
	defer func() { _ = db.Close() }()
	for _, m := range migrations {
		if err := migrate(ctx, db, roles, m); err != nil {
			return fmt.Errorf("migrate schema %s: %w", m.Schema, err)
		}
	}
	return nil
}

// lockSchemas takes the advisory lock of who creates a schema; the number is any that nobody else uses in these databases.
const lockSchemas = "SELECT pg_advisory_xact_lock(1630760819)"

func migrate(ctx context.Context, db *sql.DB, roles Roles, m Migration) error {
	// IF NOT EXISTS alone fails where two come at once. Statements sent together are one transaction, which lets go of the lock.
	create := "CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{m.Schema}.Sanitize()
	if _, err := db.ExecContext(ctx, lockSchemas+"; "+create); err != nil {
		return fmt.Errorf("create the schema: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("make the lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, roleFS{FS: m.Files, roles: roles},
		goose.WithTableName(m.Schema+".schema_migrations"), goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return err
	}
	return nil
}

var roleWord = regexp.MustCompile(`\brole_[a-z_]+\b`)

// RoleWords are the words for roles that a migration's text uses.
func RoleWords(text string) []string { return roleWord.FindAllString(text, -1) }

// ReplaceRoles puts what real answers in the place of each word for a role.
func ReplaceRoles(text string, real func(word string) string) string {
	return roleWord.ReplaceAllStringFunc(text, real)
}

// roleFS reads files with the real roles in the place of their words.
type roleFS struct {
	fs.FS
	roles Roles
}

// Open opens a file, its role words replaced. A word without a role is an error: a policy for a role that isn't there would leave
// the table to whoever comes first.
func (r roleFS) Open(name string) (fs.File, error) {
	if !strings.HasSuffix(name, ".sql") {
		return r.FS.Open(name)
	}
	raw, err := fs.ReadFile(r.FS, name)
	if err != nil {
		return nil, err
	}
	var missing error
	text := ReplaceRoles(string(raw), func(word string) string {
		real, ok := r.roles[word]
		if !ok {
			missing = fmt.Errorf("%s names %s, and no such role was given", name, word)
			return word
		}
		return pgx.Identifier{real}.Sanitize()
	})
	if missing != nil {
		return nil, missing
	}
	return &textFile{Reader: strings.NewReader(text), info: textInfo{name: name, size: int64(len(text))}}, nil
}

// ReadDir, Glob and Stat are the embedded file system's.
func (r roleFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(r.FS, name) }

type textFile struct {
	io.Reader
	info textInfo
}

func (f *textFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *textFile) Close() error               { return nil }

type textInfo struct {
	name string
	size int64
}

func (i textInfo) Name() string       { return i.name }
func (i textInfo) Size() int64        { return i.size }
func (i textInfo) Mode() fs.FileMode  { return 0o444 }
func (i textInfo) ModTime() time.Time { return time.Time{} }
func (i textInfo) IsDir() bool        { return false }
func (i textInfo) Sys() any           { return nil }
