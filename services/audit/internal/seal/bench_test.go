package seal_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
)

// producers is how many work at once, each on a connection of its own.
const producers = 64

// perSecond lets all producers call fn again and again for a while, and answers calls a second.
func perSecond(b *testing.B, during time.Duration, fn func(ctx context.Context, producer int) error) float64 {
	b.Helper()
	for i := range producers { // what a connection learns on its first call is no part of the measure
		if err := fn(b.Context(), i); err != nil {
			b.Fatal(err)
		}
	}
	var n atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range producers {
		all.Go(func() {
			for time.Since(began) < during {
				if err := fn(b.Context(), i); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	all.Wait()
	return float64(n.Load()) / time.Since(began).Seconds()
}

// BenchmarkSealing measures events sealed a second beside plain one-row INSERTs a second by 64 producers, on a server that syncs.
func BenchmarkSealing(b *testing.B) {
	pgtest.Synced(b)
	for b.Loop() {
		db, signer := audittest.New(b), audittest.Signer(b)
		db.Exec(b, "UPDATE audit.settings SET max_backlog_rows = 100000000; CREATE TABLE public.plain (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid, body bytea); GRANT INSERT ON public.plain TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC")
		_, body := audittest.Encode(b, audittest.Event("iam.user.invited", "usr_01h455vb4pex5vsknk084sn02q"))
		conns := make([]*pgx.Conn, producers)
		for i := range conns {
			conns[i] = db.As(b, "role_iam")
		}
		plain := perSecond(b, 1500*time.Millisecond, func(ctx context.Context, i int) error {
			_, err := conns[i].Exec(ctx, "INSERT INTO public.plain (id, body) VALUES ($1, $2)", id.NewEvent(), body)
			return err
		})
		const events = 30_000
		for i := range events / 2000 {
			rows := make([][]any, 2000)
			for j := range rows {
				eid, body := audittest.Encode(b, audittest.Event("iam.user.invited", fmt.Sprintf("usr_%d_%d", i, j)))
				rows[j] = []any{eid, body}
			}
			if _, err := conns[0].CopyFrom(b.Context(), pgx.Identifier{"audit", "inbox"}, []string{"id", "body"}, pgx.CopyFromRows(rows)); err != nil {
				b.Fatal(err)
			}
		}
		s := seal.New(db.DB(b), signer)
		began := time.Now()
		if err := s.Round(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(plain, "plain-inserts/s")
		b.ReportMetric(events/time.Since(began).Seconds(), "sealed/s")
	}
}

// BenchmarkDeeds measures deeds a second with their event in the same transaction, while a sealer seals, beside the same deeds
// without, by 64 producers on a server that syncs. A deed is as services do it: pg.Deed in a workspace, with an idempotency key, one
// row of its own, and an answer to keep.
func BenchmarkDeeds(b *testing.B) {
	pgtest.Synced(b)
	for b.Loop() {
		db, signer := audittest.New(b), audittest.Signer(b)
		db.Exec(b, "UPDATE audit.settings SET max_backlog_rows = 100000000; CREATE TABLE public.deeds (id uuid PRIMARY KEY, workspace_id uuid, name text, at timestamptz DEFAULT now()); GRANT INSERT, SELECT, UPDATE ON public.deeds TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC")
		pool, err := pg.Open(b.Context(), pg.Config{URL: db.URL["role_iam"], Service: "iam", MaxConns: producers, Owner: bindingtest.Somebody(b)})
		if err != nil {
			b.Fatal(err)
		}
		s := seal.New(db.DB(b), signer)
		ctx, stop := context.WithCancel(b.Context())
		var sealing sync.WaitGroup
		sealing.Go(func() { s.Run(ctx) })
		sc := scope.Scope{Plane: "dev", Tenant: id.NewTenant(), Workspace: id.NewWorkspace(), Principal: scope.Principal(id.NewUser().String())}
		deed := func(event bool) func(context.Context, int) error {
			return func(ctx context.Context, _ int) error {
				user := id.NewUser()
				ctx = scopetest.WithKey(scopetest.With(ctx, sc), "/a3os.iam.v1.UserWriteService/InviteUser", user.String())
				res := &iamv1.User{Id: user.String(), Email: "somebody@acme.example", DisplayName: "Some Body"}
				_, err := pg.Deed(ctx, pool.Workspace, &iamv1.InviteUserRequest{Email: "somebody@acme.example"}, func(ctx context.Context, tx pgx.Tx) (*iamv1.User, error) {
					if _, err := tx.Exec(ctx, "INSERT INTO public.deeds (id, workspace_id, name) VALUES ($1, $2, 'x')", user, sc.Workspace); err != nil || !event {
						return res, err
					}
					return res, record.Append(ctx, tx, record.Event{Action: "iam.user.invited", Target: user.String(), After: res})
				})
				return err
			}
		}
		var without, with float64
		const turns, turn = 3, 700 * time.Millisecond
		for range turns { // in turns, for the machine is never equally busy
			without += perSecond(b, turn, deed(false)) / turns
			with += perSecond(b, turn, deed(true)) / turns
		}
		stop()
		sealing.Wait()
		pool.Close()
		b.ReportMetric(without, "deeds/s")
		b.ReportMetric(with, "deeds-with-event/s")
	}
}
