package seal_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
)

const (
	producers = 64
	turns     = 4
)

// connections are one for each producer.
func connections(b *testing.B, db *audittest.Database) []*pgx.Conn {
	b.Helper()
	conns := make([]*pgx.Conn, producers)
	for i := range conns {
		conns[i] = db.As(b, "role_iam")
	}
	return conns
}

// perSecond lets all connections call fn again and again for a while, and answers calls a second.
func perSecond(b *testing.B, conns []*pgx.Conn, fn func(context.Context, *pgx.Conn) error) float64 {
	b.Helper()
	const whole = 1500 * time.Millisecond
	for _, c := range conns { // what a connection learns on its first call is no part of the measure
		if err := fn(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	var n atomic.Int64
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(b.Context(), whole)
	defer cancel()
	for _, c := range conns {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := fn(b.Context(), c); err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	all.Wait()
	return float64(n.Load()) / whole.Seconds()
}

// BenchmarkSealing prints events sealed a second beside plain one-row INSERTs a second by 64 producers.
func BenchmarkSealing(b *testing.B) {
	for b.Loop() {
		db, signer := audittest.New(b), audittest.Signer(b)
		db.Exec(b, "UPDATE audit.settings SET max_backlog_rows = 100000000; CREATE TABLE public.plain (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid, body bytea); GRANT INSERT ON public.plain TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC")
		_, body := audittest.Encode(b, audittest.Event("iam.user.invited", "usr_01h455vb4pex5vsknk084sn02q"))
		plain := perSecond(b, connections(b, db), func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "INSERT INTO public.plain (id, body) VALUES ($1, $2)", id.NewEvent(), body)
			return err
		})
		const events = 60_000
		conn := db.As(b, "role_iam")
		for i := range events / 2000 {
			rows := make([][]any, 2000)
			for j := range rows {
				e := audittest.Event("iam.user.invited", fmt.Sprintf("usr_%d_%d", i, j))
				eid, body := audittest.Encode(b, e)
				rows[j] = []any{eid, body}
			}
			if _, err := conn.CopyFrom(b.Context(), pgx.Identifier{"audit", "inbox"}, []string{"id", "body"}, pgx.CopyFromRows(rows)); err != nil {
				b.Fatal(err)
			}
		}
		s := seal.New(db.DB(b), signer)
		began := time.Now()
		if err := s.Round(b.Context()); err != nil {
			b.Fatal(err)
		}
		sealed := events / time.Since(began).Seconds()
		b.ReportMetric(plain, "plain-inserts/s")
		b.ReportMetric(sealed, "sealed/s")
		b.ReportMetric(sealed/plain, "ratio")
	}
}

// BenchmarkDeeds prints deeds a second with their event in the same transaction beside the same deeds without, while a sealer runs.
func BenchmarkDeeds(b *testing.B) {
	for b.Loop() {
		db, signer := audittest.New(b), audittest.Signer(b)
		db.Exec(b, "UPDATE audit.settings SET max_backlog_rows = 100000000; CREATE TABLE public.deeds (id uuid PRIMARY KEY, workspace_id uuid, name text, at timestamptz DEFAULT now()); GRANT INSERT, SELECT, UPDATE ON public.deeds TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC")
		s := seal.New(db.DB(b), signer)
		ctx, stop := context.WithCancel(b.Context())
		var sealing sync.WaitGroup
		sealing.Go(func() { s.Run(ctx) })
		_, body := audittest.Encode(b, audittest.Event("iam.user.invited", "usr_01h455vb4pex5vsknk084sn02q"))
		w := id.NewWorkspace()
		// A deed as libs/pg has it: a transaction in a workspace that reads, writes and keeps an idempotency key.
		deed := func(event bool) func(context.Context, *pgx.Conn) error {
			return func(ctx context.Context, c *pgx.Conn) error {
				return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{BeginQuery: "begin; select set_config('a3.workspace_id', '00000000-0000-0000-0000-000000000001', true)"}, func(tx pgx.Tx) error {
					key := id.NewUser()
					if _, err := tx.Exec(ctx, "INSERT INTO a3.idempotency_keys (principal, workspace, method, key, request_digest) VALUES ('p', 'w', 'm', $1::uuid::text, '\\x00') ON CONFLICT DO NOTHING", key); err != nil {
						return err
					}
					if _, err := tx.Exec(ctx, "INSERT INTO public.deeds (id, workspace_id, name) VALUES ($1, $2, 'x')", key, w); err != nil {
						return err
					}
					if event {
						if _, err := tx.Exec(ctx, "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", id.NewEvent(), body); err != nil {
							return err
						}
					}
					_, err := tx.Exec(ctx, "UPDATE a3.idempotency_keys SET response = '\\x00' WHERE principal = 'p' AND workspace = 'w' AND method = 'm' AND key = $1::uuid::text", key)
					return err
				})
			}
		}
		conns := connections(b, db)
		var without, with float64
		for range turns { // in turns, for the machine is never equally busy
			without += perSecond(b, conns, deed(false)) / turns
			with += perSecond(b, conns, deed(true)) / turns
		}
		stop()
		sealing.Wait()
		b.ReportMetric(without, "deeds/s")
		b.ReportMetric(with, "deeds+events/s")
		b.ReportMetric(with/without, "ratio")
	}
}
