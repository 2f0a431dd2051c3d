package pg_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
)

// code is what a caller learns of an error.
func code(err error) connect.Code { return fault.Connect(err).Code() }

// Attack D38 and fault F22.
func TestWorkStopsInTheDatabaseWhenItsCallerDoes(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	watch := b.Pool(t)
	for name, sql := range map[string]string{
		"sleeping": "SELECT pg_sleep(600)",
		"counting": "SELECT count(*) FROM generate_series(1, 1000000000000)",
	} {
		for _, end := range []struct {
			name string
			with func(context.Context) (context.Context, context.CancelFunc)
			want connect.Code
		}{
			{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 300*time.Millisecond)
			}, connect.CodeDeadlineExceeded},
			{"caller gives up", func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(300*time.Millisecond, cancel)
				return ctx, cancel
			}, connect.CodeCanceled},
		} {
			t.Run(name+", "+end.name, func(t *testing.T) {
				db := open(t, b.iam, 1)
				ctx, cancel := end.with(t.Context())
				defer cancel()
				begun := time.Now()
				err := db.Workspace(in(ctx, id.NewWorkspace()), inTx(sql))
				if took := time.Since(begun); code(err) != end.want || took > 2*time.Second {
					t.Errorf("after %s: %v, want %s", took, err, end.want)
				}
				eventually(t, 3*time.Second, "the backend stops", func() bool {
					var active int
					err := watch.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
						WHERE datname = current_database() AND application_name = 'pgtest' AND state <> 'idle'`).Scan(&active)
					return err == nil && active == 0
				})
				var n int64
				if err := db.Service(t.Context(), count(&n, "SELECT 7")); err != nil || n != 7 {
					t.Errorf("the pool afterwards: %v", err)
				}
			})
		}
	}
}

// Fault F14, with two transactions that really wait for each other.
func TestDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	b.Exec(t, "ALTER ROLE "+b.RoleName(b.iam)+" SET deadlock_timeout = '20ms'")
	db := open(t, b.iam, 2)
	const first, second = "UPDATE app.counters SET count = count + 1 WHERE id = 1", "UPDATE app.counters SET count = count + 1 WHERE id = 2"
	// Each holds its first row before either asks for its second; when tried again they run as they come.
	var met sync.WaitGroup
	met.Add(2)
	var runs atomic.Int32
	var both sync.WaitGroup
	for _, order := range [][2]string{{first, second}, {second, first}} {
		both.Go(func() {
			meet := sync.OnceFunc(func() { met.Done(); met.Wait() })
			err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				runs.Add(1)
				if err := inTx(order[0])(ctx, tx); err != nil {
					return err
				}
				meet()
				return inTx(order[1])(ctx, tx)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if runs.Load() < 3 {
		t.Errorf("%d runs: there was no deadlock", runs.Load())
	}
	var n int64
	if err := db.Service(t.Context(), count(&n, "SELECT min(count) FROM app.counters")); err != nil || n != 2 {
		t.Errorf("each counter should be 2, the least is %d, %v", n, err)
	}
	t.Attr("row", "F14 2")
}

// Fault F14: what is told as done was done once, and what wasn't is told so.
func TestSerializationFailureIsTriedAgainWithinABound(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	b.Exec(t, "ALTER ROLE "+b.RoleName(b.iam)+" SET default_transaction_isolation = 'serializable'")
	db := open(t, b.iam, 4)
	const callers = 4
	var done, runs atomic.Int64
	var all, read sync.WaitGroup
	read.Add(callers)
	for range callers {
		all.Go(func() {
			// All have read the same before the first of them writes: all but one lose then.
			meet := sync.OnceFunc(func() { read.Done(); read.Wait() })
			for range 25 {
				err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
					runs.Add(1)
					var n int64
					if err := count(&n, "SELECT count FROM app.counters WHERE id = 1")(ctx, tx); err != nil {
						return err
					}
					meet()
					return inTx("UPDATE app.counters SET count = $1 WHERE id = 1", n+1)(ctx, tx)
				})
				switch {
				case err == nil:
					done.Add(1)
				case code(err) != connect.CodeAborted:
					t.Errorf("a lost conflict is told as %v", err)
				}
			}
		})
	}
	all.Wait()
	var n int64
	if err := db.Service(t.Context(), count(&n, "SELECT count FROM app.counters WHERE id = 1")); err != nil || n != done.Load() {
		t.Errorf("%d were told as done, the counter is %d, %v", done.Load(), n, err)
	}
	if runs.Load() <= 100 || done.Load() < 50 {
		t.Errorf("%d runs, %d of 100 done: no conflict, or hardly one outlived", runs.Load(), done.Load())
	}

	tries := 0
	err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		tries++
		return inTx("DO $$ BEGIN RAISE EXCEPTION 'always' USING ERRCODE = 'serialization_failure'; END $$")(ctx, tx)
	})
	if code(err) != connect.CodeAborted || tries < 2 || tries > 10 {
		t.Errorf("a conflict that is always lost: %d tries, %v", tries, err)
	}
	t.Attr("row", fmt.Sprint("F14 ", runs.Load()))
}

// Fault F15.
func TestExhaustedPoolShedsAndRecovers(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 2)
	hold, held := make(chan struct{}), make(chan struct{})
	var holders, waiters sync.WaitGroup
	for range 2 {
		holders.Go(func() {
			err := db.Service(t.Context(), func(context.Context, pgx.Tx) error { held <- struct{}{}; <-hold; return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	<-held
	<-held
	begun := time.Now()
	for range 20 {
		waiters.Go(func() {
			err := db.Service(t.Context(), inTx("SELECT 1"))
			if took := time.Since(begun); code(err) != connect.CodeResourceExhausted || took > 3*time.Second {
				t.Errorf("after %s: %v, want resource_exhausted", took, err)
			}
		})
	}
	// A caller with less time than the pool gives is told of its own deadline.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := db.Service(ctx, inTx("SELECT 1")); code(err) != connect.CodeDeadlineExceeded {
		t.Errorf("a caller in a hurry: %v", err)
	}
	waiters.Wait()
	close(hold)
	holders.Wait()
	for range 20 {
		if err := db.Service(t.Context(), inTx("SELECT 1")); err != nil {
			t.Fatalf("the pool afterwards: %v", err)
		}
	}
	t.Attr("row", "F15 20")
}

func TestServerThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refusing.Close()
	for name, addr := range map[string]net.Addr{"silent": l.Addr(), "refusing": refusing.Addr()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t, "postgres://a:b@"+addr.String()+"/c?sslmode=disable", 2)
			begun := time.Now()
			err := db.Service(t.Context(), inTx("SELECT 1"))
			if took := time.Since(begun); code(err) != connect.CodeUnavailable || took > 3*time.Second {
				t.Errorf("after %s: %v, want unavailable", took, err)
			}
		})
	}
}

func TestURLThatCanNotBeReadIsNotRepeated(t *testing.T) {
	_, err := pg.Open(t.Context(), pg.Config{URL: "postgres://iam:c4nary%zz@host/db?pool_max_conns=x", Owner: bindingtest.Somebody(t)})
	if err == nil || !safe(err) {
		t.Errorf("error is %v", err)
	}
	err = pg.Migrate(t.Context(), "postgres://iam:c4nary%zz@host/db", nil)
	if err == nil || !safe(err) {
		t.Errorf("error is %v", err)
	}
}

// Fault F9: PostgreSQL is killed under load. What was acknowledged is there, callers are told "unavailable", and the pool heals.
func TestKilledServerIsUnavailableAndThePoolHeals(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t, 15)
	url, err := server.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	bindingtest.Database(t, url)
	db := open(t, url, 4)
	if err := db.Service(t.Context(), inTx("CREATE TABLE numbers (n bigint PRIMARY KEY)")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var next, acknowledged, refused atomic.Int64
	var mu sync.Mutex
	var acked []int64
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				switch err := db.Service(ctx, inTx("INSERT INTO numbers VALUES ($1)", n)); {
				case err == nil:
					acknowledged.Add(1)
					mu.Lock()
					acked = append(acked, n)
					mu.Unlock()
				case ctx.Err() != nil:
				case code(err) == connect.CodeUnavailable:
					refused.Add(1)
				default:
					t.Errorf("an error while the server is away: %v", err)
					return
				}
			}
		})
	}
	grows := func(n *atomic.Int64, what string) {
		from := n.Load()
		eventually(t, 10*time.Second, what, func() bool { return n.Load() > from+20 })
	}
	grows(&acknowledged, "writes are acknowledged")
	// A query that is under way when the server dies.
	inFlight := make(chan error, 1)
	go func() { inFlight <- db.Service(t.Context(), inTx("SELECT pg_sleep(60)")) }()
	grows(&acknowledged, "writes go on")
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	grows(&refused, "writes are refused")
	if err := <-inFlight; code(err) != connect.CodeUnavailable {
		t.Errorf("the query under way: %v", err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	grows(&acknowledged, "writes are acknowledged again")
	// One backend dies without a word, and the server throws out all the others.
	err = db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		var pid int64
		if err := count(&pid, "SELECT pg_backend_pid()")(ctx, tx); err != nil {
			return err
		}
		if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
			return err
		}
		return inTx("SELECT pg_sleep(60)")(ctx, tx)
	})
	if code(err) != connect.CodeUnavailable {
		t.Errorf("a backend that was killed: %v", err)
	}
	grows(&acknowledged, "writes are acknowledged after the server threw out its backends")
	stop()
	writers.Wait()
	var there int64
	eventually(t, 10*time.Second, "the database answers", func() bool {
		return db.Service(t.Context(), count(&there, "SELECT count(*) FROM numbers WHERE n = ANY($1)", acked)) == nil
	})
	if there != int64(len(acked)) {
		t.Errorf("%d of %d acknowledged rows are there", there, len(acked))
	}
	t.Attr("row", fmt.Sprint("F9 ", len(acked)))
}

func TestDatabaseInGoodOrderlyRestartIsUnavailable(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		var pid int64
		if err := count(&pid, "SELECT pg_backend_pid()")(ctx, tx); err != nil {
			return err
		}
		b.Exec(t, "SELECT pg_terminate_backend($1)", pid)
		return inTx("SELECT 1")(ctx, tx)
	})
	if code(err) != connect.CodeUnavailable {
		t.Errorf("a backend that an administrator ended: %v", err)
	}
	if err := db.Service(t.Context(), inTx("SELECT 1")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestErrorThatHasAKindKeepsIt(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	db := open(t, b.iam, 1)
	want := fault.Declare(fault.FailedPrecondition, "OWNER", "transfer first")
	err := db.Service(t.Context(), func(context.Context, pgx.Tx) error { return want })
	if !errors.Is(err, want) || fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("error is %v", err)
	}
	err = db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		return inTx("INSERT INTO app.counters (id) VALUES (1)")(ctx, tx)
	})
	if !pg.IsUnique(err, "") || !pg.IsUnique(err, "counters_pkey") || pg.IsUnique(err, "things_pkey") || code(err) != connect.CodeInternal {
		t.Errorf("a clash is %v", err)
	}
	err = db.Service(t.Context(), inTx("DO $$ BEGIN RAISE EXCEPTION 'behind' USING ERRCODE = '"+pg.RecordClosed+"'; END $$"))
	if code(err) != connect.CodeUnavailable {
		t.Errorf("the record is behind: %v", err)
	}
}

// Attack D33: PostgreSQL's text holds no NUL, and who sends one learns that it is theirs to mend.
func TestTextThatCannotBeStoredIsTheCallersMistake(t *testing.T) {
	t.Parallel()
	db := open(t, newThings(t).iam, 1)
	for _, sql := range []string{"SELECT $1::text", `SELECT $1::jsonb`} {
		err := db.Service(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			text := "a\x00b"
			if sql != "SELECT $1::text" {
				text = `"a\u0000b"`
			}
			_, err := tx.Exec(ctx, sql, text)
			return err
		})
		if code(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
