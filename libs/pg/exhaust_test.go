package pg_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
)

// Attack D35, in a crowd: far more callers than connections, of several workspaces, who give up, panic, fail and are shed, while the
// statements that they share rest prepared on the connections and a plan of theirs goes stale. None of them ever reads a row of another.
func TestExhaustedPoolLendsNoScope(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	const workspaces, callers, rounds = 5, 24, 20
	var all []id.Workspace
	setup := open(t, b.iam, 1)
	for i := range workspaces {
		w := id.NewWorkspace()
		all = append(all, w)
		for n := range i + 1 {
			if err := setup.Workspace(in(t.Context(), w), inTx("INSERT INTO app.things (workspace_id, id) VALUES ($1, $2)", w, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	db := open(t, b.iam, 2)
	var right, shed atomic.Int64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for r := range rounds {
				i := (c + r) % workspaces
				err := crowded(t, func(ctx context.Context) error {
					return db.Workspace(in(ctx, all[i]), func(ctx context.Context, tx pgx.Tx) error {
						rows, err := tx.Query(ctx, "SELECT * FROM app.things")
						if err != nil {
							return err
						}
						n, foreign := 0, 0
						for rows.Next() {
							values, err := rows.Values()
							if err != nil {
								return err
							}
							n++
							if got, ok := values[0].([16]byte); !ok || got != all[i].Bytes() {
								foreign++
							}
						}
						if rows.Err() != nil {
							return rows.Err()
						}
						if foreign > 0 || n != i+1 {
							t.Errorf("workspace %d of %d reads %d rows, %d of them another's", i, workspaces, n, foreign)
						}
						right.Add(1)
						return leave(ctx, tx, r)
					})
				})
				if fault.KindOf(err) == fault.ResourceExhausted {
					shed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	var left int64
	if err := db.Service(t.Context(), count(&left, "SELECT count(*) FROM app.things")); !denied(err) {
		t.Errorf("whoever comes after the crowd reads %d rows in no workspace, %v", left, err)
	}
	if right.Load() < callers*rounds/4 {
		t.Errorf("%d of %d readings came to anything: the crowd tried too little", right.Load(), callers*rounds)
	}
	t.Attr("row", fmt.Sprintf("D35 %d", right.Load()))
	t.Logf("%d readings, %d shed", right.Load(), shed.Load())
}

// Callers who waited in vain for a connection are told that the service is busy, also where the connections come back in the very moment
// in which they give up: the database is as well as before.
func TestConnectionsThatComeBackTooLateAreNoFaultOfTheDatabase(t *testing.T) {
	t.Parallel()
	b := newThings(t)
	const callers, rounds = 200, 3
	db := open(t, b.iam, 1)
	for range rounds {
		held, release, released := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			released <- db.Service(t.Context(), func(context.Context, pgx.Tx) error { close(held); <-release; return nil })
		}()
		<-held
		var told sync.Map
		var late sync.Once
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				// One after another, so that some give up while the connection goes from hand to hand among the others.
				<-time.After(time.Duration(i) * time.Millisecond / 2)
				err := db.Service(t.Context(), func(context.Context, pgx.Tx) error { return nil })
				if fault.KindOf(err) == fault.ResourceExhausted {
					late.Do(func() { close(release) })
				}
				if err != nil {
					told.Store(fault.KindOf(err), err)
				}
			})
		}
		wg.Wait()
		if err := <-released; err != nil {
			t.Fatal(err)
		}
		told.Range(func(kind, err any) bool {
			if kind != fault.ResourceExhausted {
				t.Errorf("a caller learnt %v", err)
			}
			return true
		})
	}
}

// crowded calls with a deadline that some don't keep, and survives a panic as a server does.
func crowded(t *testing.T, call func(ctx context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2000)+5)*time.Millisecond)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return call(ctx)
}

// leave ends a transaction in one of the ways that there are.
func leave(ctx context.Context, tx pgx.Tx, round int) error {
	switch round % 6 {
	case 0:
		return errHandler
	case 1:
		panic("handler")
	case 2:
		_, err := tx.Exec(ctx, "SELECT pg_sleep(0.02)")
		return err
	case 3:
		_, err := tx.Exec(ctx, "SELECT 1/0")
		return errors.Join(err, errHandler)
	case 4:
		// From now on one plan for every workspace, which must not have one of them folded into it.
		_, err := tx.Exec(ctx, "SET LOCAL plan_cache_mode = force_generic_plan")
		return err
	default:
		return nil
	}
}
