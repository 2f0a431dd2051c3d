package audittest

import (
	"context"
	"iter"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"
)

// Signer makes a log key for a tenant of its own.
func Signer(t testing.TB) *tlog.Signer {
	t.Helper()
	secret, _, err := tlog.NewKey(tlog.Origin("dev", id.NewTenant()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// DB is the pool that the service itself uses.
func (d *Database) DB(t testing.TB) *pg.DB {
	t.Helper()
	return d.Open(t, "role_audit")
}

// Open is a pool of the role with this word.
func (d *Database) Open(t testing.TB, word string) *pg.DB {
	t.Helper()
	db, err := pg.Open(t.Context(), pg.Config{URL: d.URL[word], Service: "audit", Owner: bindingtest.Somebody(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// Stored is the log as its tables have it, read by the superuser: a source that shares no code with the service.
func (d *Database) Stored(t testing.TB) Stored { return Stored{pool: d.Pool(t)} }

// Stored implements tlog.Source.
type Stored struct{ pool *pgxpool.Pool }

// Checkpoint implements tlog.Source.
func (s Stored) Checkpoint(ctx context.Context) (string, error) {
	var note string
	err := s.pool.QueryRow(ctx, "SELECT note FROM audit.checkpoints ORDER BY size DESC LIMIT 1").Scan(&note)
	if err == pgx.ErrNoRows { //nolint:errorlint // QueryRow returns it bare
		return "", tlog.ErrEmpty
	}
	return note, err
}

// Checkpoints implements tlog.Source.
func (s Stored) Checkpoints(ctx context.Context) iter.Seq2[string, error] {
	return query(ctx, s.pool, pgx.RowTo[string], "SELECT note FROM audit.checkpoints ORDER BY size")
}

// Leaves implements tlog.Source.
func (s Stored) Leaves(ctx context.Context, size uint64) iter.Seq2[tlog.Entry, error] {
	return query(ctx, s.pool, pgx.RowToStructByPos[tlog.Entry],
		"SELECT idx, leaf, leaf_hash FROM audit.entries WHERE idx < $1 ORDER BY idx", int64(size))
}

func query[T any](ctx context.Context, pool *pgxpool.Pool, scan pgx.RowToFunc[T], sql string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := pool.Query(ctx, sql, args...)
		if err != nil {
			yield(none, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			if v, err := scan(rows); !yield(v, err) {
				return
			}
		}
		if rows.Err() != nil {
			yield(none, rows.Err())
		}
	}
}

// Whole fails the test unless the log is whole, goes on from what was remembered (a note, or empty), and holds just these events,
// each once. It returns the newest checkpoint.
func (d *Database) Whole(t testing.TB, v *tlog.Verifier, remembered string, events map[string]bool) string {
	t.Helper()
	source := d.Stored(t)
	report, err := tlog.Verify(t.Context(), source, v, remembered)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	for _, f := range report.Findings {
		t.Errorf("%s: %s", f.Kind, f.Text)
	}
	seen := make(map[string]bool)
	for e, err := range source.Leaves(t.Context(), report.Newest.Size) {
		if err != nil {
			t.Fatal(err)
		}
		_, event, err := tlog.ParseLeaf(e.Leaf)
		if err != nil {
			t.Fatal(err)
		}
		if seen[event.GetId()] {
			t.Errorf("event %s is in the log twice", event.GetId())
		}
		seen[event.GetId()] = true
		if !events[event.GetId()] {
			t.Errorf("event %s was never recorded", event.GetId())
		}
	}
	if len(seen) != len(events) {
		t.Errorf("the checkpoint stands for %d events, %d were recorded", len(seen), len(events))
	}
	return report.Newest.Note
}
