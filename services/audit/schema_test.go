package audit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"a3os.app/libs/id"

	"a3os.app/services/audit/internal/audittest"
)

// code is the SQLSTATE of err, empty for success.
func code(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatalf("not an error of the database: %v", err)
	}
	return pe.Code
}

func TestProducersInsertIdAndBodyAndNothingElse(t *testing.T) {
	db := audittest.New(t)
	for _, role := range audittest.Roles() {
		conn := db.As(t, role)
		put := func(sql string) string {
			_, err := conn.Exec(t.Context(), sql, id.NewEvent(), []byte("x"))
			return code(t, err)
		}
		want := ""
		if role == "role_worker" {
			want = "42501"
		}
		if got := put("INSERT INTO audit.inbox (id, body) VALUES ($1, $2)"); got != want {
			t.Errorf("%s inserts (id, body): %q, want %q", role, got, want)
		}
		for _, column := range []string{"producer", "recorded_at", "seq"} {
			sql := fmt.Sprintf("INSERT INTO audit.inbox (id, body, %s) OVERRIDING SYSTEM VALUE VALUES ($1, $2, %s)", column,
				map[string]string{"producer": "'role_iam'", "recorded_at": "now()", "seq": "1"}[column])
			if got := put(sql); got != "42501" {
				t.Errorf("%s chooses %s: %q, want 42501", role, column, got)
			}
		}
	}
	var producers []string
	rows, err := db.As(t, "role_audit").Query(t.Context(), "SELECT producer::text FROM audit.inbox ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	if producers, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		t.Fatal(err)
	}
	if len(producers) != len(audittest.Roles())-1 {
		t.Fatalf("%d rows", len(producers))
	}
	for i, p := range producers[:6] {
		if want := db.RoleName(db.URL[audittest.Roles()[i]]); p != want {
			t.Errorf("row %d was recorded by %q, want %q", i, p, want)
		}
	}
}

// Row A53.
func TestNoRoleOfTheSetChangesTheLog(t *testing.T) {
	db, refused := audittest.New(t), 0
	for _, role := range audittest.Roles() {
		conn := db.As(t, role)
		for _, table := range []string{"entries", "tiles", "checkpoints"} {
			column := map[string]string{"entries": "leaf", "tiles": "hashes", "checkpoints": "note"}[table]
			for _, sql := range []string{"UPDATE audit.%[1]s SET %[2]s = %[2]s", "DELETE FROM audit.%[1]s", "TRUNCATE audit.%[1]s",
				"DROP TABLE audit.%[1]s", "ALTER TABLE audit.%[1]s DISABLE TRIGGER USER"} {
				sql = fmt.Sprintf(sql, table, column)
				if _, err := conn.Exec(t.Context(), sql); code(t, err) != "42501" {
					t.Errorf("%s: %s: %v", role, sql, err)
				}
				refused++
			}
		}
		if role == "role_audit" {
			continue
		}
		for _, sql := range []string{"SELECT body FROM audit.inbox", "DELETE FROM audit.inbox", "SELECT leaf FROM audit.entries",
			"UPDATE audit.settings SET max_backlog_rows = 1000000", "UPDATE audit.progress SET drained_seq = 1000000",
			"SELECT setval('audit.open_to_seq', 1000000)", "SELECT setval('audit.open_until', 9999999999)", "SELECT nextval('audit.open_until')"} {
			if _, err := conn.Exec(t.Context(), sql); code(t, err) != "42501" {
				t.Errorf("%s: %s: %v", role, sql, err)
			}
		}
	}
	t.Attr("row", fmt.Sprintf("A53 %d", refused))
}

func TestEvenWhoMayChangeTheLogIsStopped(t *testing.T) {
	db := audittest.New(t)
	for _, table := range []string{"entries", "tiles", "checkpoints", "inbox"} {
		column := map[string]string{"entries": "leaf", "tiles": "hashes", "checkpoints": "note", "inbox": "body"}[table]
		for _, sql := range []string{"UPDATE audit.%[1]s SET %[2]s = %[2]s", "DELETE FROM audit.%[1]s", "TRUNCATE audit.%[1]s"} {
			if table == "inbox" && strings.HasPrefix(sql, "DELETE") {
				continue // that is how it is drained
			}
			sql = fmt.Sprintf(sql, table, column)
			for _, before := range []string{"SELECT 1", "SET session_replication_role = replica"} {
				conn, err := pgx.Connect(t.Context(), db.Database.URL)
				if err != nil {
					t.Fatal(err)
				}
				_, err = conn.Exec(t.Context(), before)
				if err != nil {
					t.Fatal(err)
				}
				if _, err = conn.Exec(t.Context(), sql); code(t, err) != "42501" || !strings.Contains(err.Error(), "append-only") {
					t.Errorf("superuser after %q: %s: %v", before, sql, err)
				}
				_ = conn.Close(t.Context())
			}
		}
	}
}

func TestInboxClosesWhenTheBacklogPassesItsBound(t *testing.T) {
	put := "INSERT INTO audit.inbox (id, body) VALUES ($1, 'x')"
	t.Run("rows", func(t *testing.T) {
		db := audittest.New(t)
		db.Exec(t, "UPDATE audit.settings SET max_backlog_rows = 3")
		conn := db.As(t, "role_iam")
		for range 3 {
			if _, err := conn.Exec(t.Context(), put, id.NewEvent()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Exec(t.Context(), put, id.NewEvent()); code(t, err) != "A3001" {
			t.Errorf("the fourth row: %v, want A3001", err)
		}
	})
	t.Run("age", func(t *testing.T) {
		db := audittest.New(t)
		conn := db.As(t, "role_iam")
		if _, err := conn.Exec(t.Context(), put, id.NewEvent()); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), put, id.NewEvent()); err != nil {
			t.Fatalf("within the bound: %v", err)
		}
		db.Exec(t, "UPDATE audit.settings SET max_backlog_age = '1 microsecond'")
		if _, err := conn.Exec(t.Context(), put, id.NewEvent()); code(t, err) != "A3001" {
			t.Errorf("past the bound: %v, want A3001", err)
		}
		db.Exec(t, "DELETE FROM audit.inbox")
		if _, err := conn.Exec(t.Context(), put, id.NewEvent()); err != nil {
			t.Errorf("an empty inbox is never too old: %v", err)
		}
	})
	t.Run("what is in it stays bounded in size", func(t *testing.T) {
		conn := audittest.New(t).As(t, "role_iam")
		if _, err := conn.Exec(t.Context(), "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", id.NewEvent(), make([]byte, 65001)); code(t, err) != "23514" {
			t.Errorf("a body past the bound: %v, want 23514", err)
		}
	})
}
