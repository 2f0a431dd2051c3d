package pg_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/scope"
)

var errHandler = errors.New("the handler failed")

// denied says that the database itself refused, as the policies' function does where no workspace is set.
func denied(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pe.Code == "42501" && pe.Message == "no workspace is set in this transaction"
}

// Attack D35: however a transaction ends, whoever borrows its connection next is in nobody's workspace.
func TestNoScopeIsLeftOnTheConnection(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	mine, other := id.NewWorkspace(), id.NewWorkspace()
	setup := open(t, b.iam, 1)
	for _, w := range []id.Workspace{mine, other} {
		if err := setup.Workspace(in(t.Context(), w), inTx("INSERT INTO app.things (workspace_id, id) VALUES ($1, 1)", w)); err != nil {
			t.Fatal(err)
		}
	}
	const read = "SELECT count(*) FROM app.things"
	ways := map[string]func(t *testing.T, db *pg.DB){
		"commit": func(t *testing.T, db *pg.DB) {
			if err := db.Workspace(in(t.Context(), mine), inTx("UPDATE app.things SET count = count + 1")); err != nil {
				t.Error(err)
			}
		},
		"read": func(t *testing.T, db *pg.DB) {
			var n int64
			if err := db.ReadWorkspace(in(t.Context(), mine), count(&n, read)); err != nil || n != 1 {
				t.Errorf("%d rows, %v", n, err)
			}
		},
		"handler's error": func(t *testing.T, db *pg.DB) {
			err := db.Workspace(in(t.Context(), mine), func(context.Context, pgx.Tx) error { return errHandler })
			if !errors.Is(err, errHandler) {
				t.Error(err)
			}
		},
		"error of the database": func(t *testing.T, db *pg.DB) {
			if err := db.Workspace(in(t.Context(), mine), inTx("SELECT 1/0")); err == nil {
				t.Error("no error")
			}
		},
		"error of the database that the handler swallows": func(t *testing.T, db *pg.DB) {
			err := db.Workspace(in(t.Context(), mine), func(ctx context.Context, tx pgx.Tx) error {
				_, _ = tx.Exec(ctx, "SELECT 1/0")
				return nil
			})
			if err == nil {
				t.Error("a transaction that was rolled back is told as committed")
			}
		},
		"savepoint rolled back": func(t *testing.T, db *pg.DB) {
			err := db.Workspace(in(t.Context(), mine), func(ctx context.Context, tx pgx.Tx) error {
				err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return inTx("SELECT 1/0")(ctx, tx) })
				if err == nil {
					return errors.New("no error of the savepoint")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		},
		"panic": func(t *testing.T, db *pg.DB) {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.Workspace(in(t.Context(), mine), func(context.Context, pgx.Tx) error { panic("handler") })
		},
		"handler ends the transaction itself": func(t *testing.T, db *pg.DB) {
			_ = db.Workspace(in(t.Context(), mine), inTx("COMMIT"))
		},
		"cancelled in a query": func(t *testing.T, db *pg.DB) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := db.Workspace(in(ctx, mine), inTx("SELECT pg_sleep(60)")); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		},
		"cancelled between queries": func(t *testing.T, db *pg.DB) {
			ctx, cancel := context.WithCancel(t.Context())
			err := db.Workspace(in(ctx, mine), func(context.Context, pgx.Tx) error { cancel(); return nil })
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		},
		"rows not read to the end": func(t *testing.T, db *pg.DB) {
			_ = db.Workspace(in(t.Context(), mine), func(ctx context.Context, tx pgx.Tx) error {
				rows, err := tx.Query(ctx, "SELECT generate_series(1, 100000)") //nolint:sqlclosecheck // left open is what is tried
				if err != nil {
					return err
				}
				rows.Next()
				return errHandler
			})
		},
	}
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t, b.iam, 1)
			// The same statement before, between and after, so that a cached plan would show.
			for range 6 {
				var n int64
				if err := db.Workspace(in(t.Context(), mine), count(&n, read)); err != nil || n != 1 {
					t.Fatalf("%d rows, %v", n, err)
				}
			}
			end(t, db)
			var left *string
			err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				return tx.QueryRow(ctx, "SELECT current_setting('a3.workspace_id', true)").Scan(&left)
			})
			if err != nil || left != nil && *left != "" {
				t.Errorf("the next borrower finds workspace %v, %v", left, err)
			}
			var n int64
			if err := db.Service(t.Context(), count(&n, read)); !denied(err) {
				t.Errorf("the next borrower without a workspace reads %d rows, %v", n, err)
			}
			var whose id.Workspace
			err = db.Workspace(in(t.Context(), other), func(ctx context.Context, tx pgx.Tx) error {
				if err := count(&n, read)(ctx, tx); err != nil {
					return err
				}
				return tx.QueryRow(ctx, "SELECT workspace_id FROM app.things").Scan(&whose)
			})
			if err != nil || n != 1 || whose != other {
				t.Errorf("the next workspace reads %d rows of %s, %v", n, whose, err)
			}
		})
	}
	t.Attr("row", fmt.Sprintf("D35 %d", len(ways)))
}

// Attack D37: a clash with a row of another workspace can't happen, since every key begins with the workspace, and a reference to one
// is told exactly as one to a row that never was.
func TestClashWithAnotherWorkspacesRowTellsNothing(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	b.Exec(t, `CREATE TABLE app.parts (workspace_id uuid NOT NULL, id bigint NOT NULL, thing bigint NOT NULL, name text NOT NULL,
			PRIMARY KEY (workspace_id, id), UNIQUE (workspace_id, name), FOREIGN KEY (workspace_id, thing) REFERENCES app.things (workspace_id, id));
		ALTER TABLE app.parts ENABLE ROW LEVEL SECURITY; ALTER TABLE app.parts FORCE ROW LEVEL SECURITY;
		CREATE POLICY workspace ON app.parts TO "`+b.roles["role_iam"]+`" USING (workspace_id = (SELECT a3.current_workspace()));
		GRANT SELECT, INSERT, UPDATE ON app.parts TO "`+b.roles["role_iam"]+`"`)
	db := open(t, b.iam, 1)
	mine, other := id.NewWorkspace(), id.NewWorkspace()
	const theirs, nobodys = 7, 8
	err := db.Workspace(in(t.Context(), other), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO app.things (workspace_id, id) VALUES ($1, $2)", other, theirs)
		if err == nil {
			_, err = tx.Exec(ctx, "INSERT INTO app.parts VALUES ($1, $2, $2, 'taken')", other, theirs)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Workspace(in(t.Context(), mine), inTx("INSERT INTO app.things (workspace_id, id) VALUES ($1, 1)", mine)); err != nil {
		t.Fatal(err)
	}
	// told is all that a caller could learn: whether it worked, and what the database says, but for the value itself.
	told := func(sql string, args ...any) string {
		err := db.Workspace(in(t.Context(), mine), func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, sql, args...); err != nil {
				return err
			}
			return errHandler // nothing stays
		})
		pe, ok := errors.AsType[*pgconn.PgError](err)
		if !ok {
			return fmt.Sprint(err)
		}
		return fmt.Sprint(pe.Code, pe.Message, pe.ConstraintName, strings.NewReplacer(strconv.Itoa(theirs), "N", strconv.Itoa(nobodys), "N").Replace(strings.ReplaceAll(pe.Detail, uuid(mine), "W")))
	}
	cases := 0
	for name, sql := range map[string]string{
		"primary key": "INSERT INTO app.things (workspace_id, id) VALUES ($1, $2)",
		"foreign key": "INSERT INTO app.parts VALUES ($1, 1, $2, 'free')",
		"move to it":  "UPDATE app.things SET id = $2 WHERE workspace_id = $1",
	} {
		cases++
		if a, b := told(sql, mine, theirs), told(sql, mine, nobodys); a != b {
			t.Errorf("%s: where the other workspace has such a row it is told %q, and else %q", name, a, b)
		}
	}
	for _, taken := range []string{"taken", "free"} {
		cases++
		if got := told("INSERT INTO app.parts VALUES ($1, 1, 1, $2)", mine, taken); got != errHandler.Error() {
			t.Errorf("a name that is %s in the other workspace: %s", taken, got)
		}
	}
	t.Attr("row", fmt.Sprintf("D37 %d", cases))
}

func TestNoWorkspaceIsAnErrorAndNotNoRows(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	w := id.NewWorkspace()
	db := open(t, b.iam, 1)
	statements := map[string]string{
		"select": "SELECT * FROM app.things",
		"insert": "INSERT INTO app.things (workspace_id, id) VALUES ('" + uuid(w) + "', 2)",
		"update": "UPDATE app.things SET count = 7",
		"delete": "DELETE FROM app.things",
	}
	try := func(t *testing.T, when string) {
		t.Helper()
		for name, sql := range statements {
			if err := db.Service(t.Context(), inTx(sql)); !denied(err) {
				t.Errorf("%s with %s: %v", name, when, err)
			}
		}
	}
	b.Exec(t, "INSERT INTO app.things (workspace_id, id) VALUES ($1, 1)", w)
	try(t, "no workspace set ever")
	if err := db.Workspace(in(t.Context(), w), inTx("UPDATE app.things SET count = 1")); err != nil {
		t.Fatal(err)
	}
	try(t, "'' left behind by a transaction before")
	var n int64
	if err := b.Pool(t).QueryRow(t.Context(), "SELECT sum(count) FROM app.things").Scan(&n); err != nil || n != 1 {
		t.Errorf("the table's sum is %d, %v: something was changed by nobody's transaction", n, err)
	}
}

func TestWorkspaceCanNotReachAnother(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 2)
	mine, other := id.NewWorkspace(), id.NewWorkspace()
	for _, w := range []id.Workspace{mine, other} {
		if err := db.Workspace(in(t.Context(), w), inTx("INSERT INTO app.things (workspace_id, id, count) VALUES ($1, 1, 5)", w)); err != nil {
			t.Fatal(err)
		}
	}
	for name, sql := range map[string]string{
		"insert": "INSERT INTO app.things (workspace_id, id) VALUES ($1, 9)",
		"move":   "UPDATE app.things SET workspace_id = $1",
	} {
		err := db.Workspace(in(t.Context(), mine), inTx(sql, other))
		if pe, ok := errors.AsType[*pgconn.PgError](err); !ok || pe.Code != "42501" {
			t.Errorf("%s into another workspace: %v", name, err)
		}
	}
	for name, sql := range map[string]string{"update": "UPDATE app.things SET count = 6 WHERE workspace_id = $1", "delete": "DELETE FROM app.things WHERE workspace_id = $1"} {
		err := db.Workspace(in(t.Context(), mine), func(ctx context.Context, tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, sql, other)
			if tag.RowsAffected() != 0 {
				t.Errorf("%s reached %d rows of another workspace", name, tag.RowsAffected())
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadWorkspaceWritesNothing(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	w := id.NewWorkspace()
	err := open(t, b.iam, 1).ReadWorkspace(in(t.Context(), w), inTx("INSERT INTO app.things (workspace_id, id) VALUES ($1, 1)", w))
	if pe, ok := errors.AsType[*pgconn.PgError](err); !ok || pe.Code != "25006" {
		t.Errorf("a write in a read: %v", err)
	}
}

func TestTransactionWithoutItsScopeDoesNotBegin(t *testing.T) {
	t.Parallel()
	// Nothing listens there: a transaction that began would say so.
	db := open(t, "postgres://nobody@127.0.0.1:1/none", 1)
	run := func(context.Context, pgx.Tx) error { t.Error("the work ran"); return nil }
	for name, err := range map[string]error{
		"no scope, workspace":        db.Workspace(t.Context(), run),
		"no scope, read":             db.ReadWorkspace(t.Context(), run),
		"no scope, tenant":           db.Tenant(t.Context(), run),
		"no workspace in the scope":  db.Workspace(in(t.Context(), id.Workspace{}), run),
		"no workspace, read":         db.ReadWorkspace(in(t.Context(), id.Workspace{}), run),
		"no principal in the scope":  db.Tenant(as(t.Context(), "", id.NewWorkspace()), run),
		"no principal for workspace": db.Workspace(as(t.Context(), "", id.NewWorkspace()), run),
	} {
		if !errors.Is(err, scope.ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func uuid(w id.Workspace) string {
	v, _ := w.Value()
	s, _ := v.(string)
	return s
}
