package pg_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A session costs a server more than most of what is asked in it: one after the other is asked in one.
func TestWhatIsAskedInTurnIsAskedInOneSession(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 4)
	if err := db.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	const times = 50
	for range times {
		if err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT 1")
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n := db.Pool().Stat().NewConnsCount(); n != 1 {
		t.Errorf("%d transactions one after the other took %d sessions", times, n)
	}
}

// A connection on which a transaction was left open is nobody else's: it has its workspace.
func TestSessionWithALeftTransactionIsClosed(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	session := func(leave string) (pid int) {
		c, err := db.Pool().Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
		if err := c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), leave); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	first := session("SELECT 1")
	if again := session("BEGIN"); again != first {
		t.Errorf("a session on which nothing was left is not used again: %d, then %d", first, again)
	}
	if next := session("SELECT 1"); next == first {
		t.Error("a session with an open transaction is used again")
	}
}
