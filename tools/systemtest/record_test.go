package systemtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// databases are the connection strings of all roles that a tenant has in PostgreSQL, by the role's name in the blueprint.
func (x *tenant) databases(t testing.TB) map[string]string {
	t.Helper()
	found, err := filepath.Glob(x.file("database", "*.url"))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s has no connection strings, %v", x.slug, err)
	}
	out := map[string]string{}
	for _, f := range found {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".url")] = strings.TrimSpace(string(raw))
	}
	return out
}

// roles are those that services log in with: all but the owner, whom only migrations are.
func (x *tenant) roles(t testing.TB) map[string]string {
	t.Helper()
	out := x.databases(t)
	delete(out, "owner")
	const atLeast = 8
	if len(out) < atLeast {
		t.Fatalf("%s has the roles %v", x.slug, slices.Sorted(maps.Keys(out)))
	}
	return out
}

// Row A54, the least of it: the owner of the database changes one byte of one stored entry.
func TestOneChangedByteIsFound(t *testing.T) {
	full(t)
	if s := shared.tryA3(t, "globex-admin", "audit", "verify"); s.code != 0 {
		t.Fatalf("the log is not whole to begin with: %s", s)
	}
	owner := dial(t, globex().databases(t)["owner"])
	var index int64
	if err := owner.QueryRow(t.Context(), "SELECT size/2 FROM audit.checkpoints ORDER BY size DESC LIMIT 1").Scan(&index); err != nil {
		t.Fatal(err)
	}
	flip := func() {
		// What an owner can do who means to: nothing in the database holds them.
		_, err := owner.PgConn().Exec(t.Context(), fmt.Sprintf(`BEGIN;
			ALTER TABLE audit.entries NO FORCE ROW LEVEL SECURITY;
			ALTER TABLE audit.entries DISABLE TRIGGER append_only;
			UPDATE audit.entries SET leaf = set_byte(leaf, 20, get_byte(leaf, 20) # 1) WHERE idx = %d;
			ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only;
			ALTER TABLE audit.entries FORCE ROW LEVEL SECURITY;
			COMMIT`, index)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
	}
	flip()
	s := shared.tryA3(t, "globex-admin", "audit", "verify")
	flip()
	if s.code != 1 || !strings.Contains(s.err+s.out, fmt.Sprintf("entry %d", index)) {
		t.Errorf("entry %d was changed, and audit verify says %s", index, s)
	}
	if s := shared.tryA3(t, "globex-admin", "audit", "verify"); s.code != 0 {
		t.Errorf("the byte is as it was, and audit verify says %s", s)
	}
	t.Attr("row", "A54 1")
}

// denied says what is wrong with an error that should be PostgreSQL's refusal for want of a privilege.
func denied(err error) error {
	const insufficientPrivilege, invalidAuthorization = "42501", "28000"
	if err == nil {
		return errors.New("want a refusal for want of a privilege, got none")
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != insufficientPrivilege && pgErr.Code != invalidAuthorization {
		return fmt.Errorf("want a refusal for want of a privilege, got %w", err)
	}
	return nil
}

// forbidden runs statements that each have to be denied, none of which may take effect, and answers how many.
func forbidden(t *testing.T, role string, conn *pgx.Conn, statements ...string) (tried int) {
	t.Helper()
	for _, sql := range statements {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), sql)
		if e := denied(err); e != nil {
			t.Errorf("%s: %s: %v", role, sql, e)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return len(statements)
}

// Row A53.
func TestLogIsAppendOnlyForEveryRole(t *testing.T) {
	full(t)
	t.Parallel()
	refused := 0
	for role, at := range acme().roles(t) {
		conn := dial(t, at)
		for _, table := range []string{"entries", "tiles", "checkpoints", "inbox", "progress", "settings"} {
			column := map[string]string{"entries": "leaf", "tiles": "root", "checkpoints": "note", "inbox": "body", "progress": "only_row", "settings": "max_backlog_rows"}[table]
			forbidden(t, role, conn, fmt.Sprintf("UPDATE audit.%s SET %s = %[2]s", table, column), "TRUNCATE audit."+table)
			refused += 2
			if role == "audit" && table == "inbox" {
				continue // what is sealed leaves the inbox
			}
			forbidden(t, role, conn, "DELETE FROM audit."+table)
		}
		if role != "audit" {
			forbidden(t, role, conn, "SELECT FROM audit.entries", "SELECT FROM audit.inbox", "INSERT INTO audit.entries SELECT", "INSERT INTO audit.inbox (id, body, producer) VALUES (gen_random_uuid(), 'x', 'role_iam')")
		}
	}
	t.Attr("row", fmt.Sprintf("A53 %d", refused))
}
