package seal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
)

func events(n int, recorded map[string]bool) []*auditv1.Event {
	out := make([]*auditv1.Event, n)
	for i := range out {
		out[i] = audittest.Event("iam.user.invited", fmt.Sprintf("usr_%d", i))
		recorded[out[i].GetId()] = true
	}
	return out
}

func TestEveryRecordedEventIsSealedOnceUnderACheckpoint(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	s := seal.New(db.DB(t), signer)
	recorded, remembered := make(map[string]bool), ""
	for _, n := range []int{1, 2, 254, 300, 9000} { // within a tile, over its end, and over two batches
		audittest.Put(t, db.As(t, "role_iam"), events(n/2, recorded)...)
		audittest.Put(t, db.As(t, "role_discovery_tenant"), events(n-n/2, recorded)...)
		if err := s.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
		remembered = db.Whole(t, signer.Verifier(), remembered, recorded)
	}
}

func TestEventIsSealedWithItsProducerAndTime(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	event := audittest.Event("integrations.integration.created", "int_1")
	before, err := pgx.CollectExactlyOneRow(query(t, db.As(t, "owner"), "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"), pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	audittest.Put(t, db.As(t, "role_integrations"), event)
	if err := seal.New(db.DB(t), signer).Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e, err := range db.Stored(t).Leaves(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		leaf, got, err := tlog.ParseLeaf(e.Leaf)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, event) {
			t.Errorf("sealed %v, recorded %v", got, event)
		}
		if want := db.RoleName(db.URL["role_integrations"]); leaf.GetProducer() != want {
			t.Errorf("producer is %q, want %q", leaf.GetProducer(), want)
		}
		if leaf.GetRecordedAtUs() < before {
			t.Errorf("recorded at %d, before it was put in at %d", leaf.GetRecordedAtUs(), before)
		}
	}
}

func TestEventThatShowsLateIsSealedLate(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	s := seal.New(db.DB(t), signer)
	recorded := make(map[string]bool)
	conn := db.As(t, "role_iam")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slow := events(1, recorded)[0]
	eid, body := audittest.Encode(t, slow)
	if _, err := tx.Exec(t.Context(), "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", eid, body); err != nil {
		t.Fatal(err)
	}
	audittest.Put(t, db.As(t, "role_iam"), events(3, recorded)...)
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Whole(t, signer.Verifier(), "", recorded)
}

func TestEventOfADeedThatWasRolledBackIsNotSealed(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	recorded := make(map[string]bool)
	tx, err := db.As(t, "role_iam").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eid, body := audittest.Encode(t, audittest.Event("iam.user.invited", "nobody"))
	if _, err := tx.Exec(t.Context(), "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", eid, body); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	audittest.Put(t, db.As(t, "role_iam"), events(2, recorded)...)
	if err := seal.New(db.DB(t), signer).Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Whole(t, signer.Verifier(), "", recorded)
}

func TestNoBodyStopsTheLog(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	s := seal.New(db.DB(t), signer)
	conn := db.As(t, "role_discovery")
	sealed := 0
	odd := rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 1, 200),
		rapid.Custom(func(t *rapid.T) []byte { // an event whose texts are hostile
			text := rapid.OneOf(rapid.String(), rapid.Just("a\x00b"), rapid.Just(strings.Repeat("𝄞", 3000)))
			b, err := proto.Marshal(&auditv1.Event{Id: text.Draw(t, "id"), Action: text.Draw(t, "action"), Actor: text.Draw(t, "actor"),
				Target: text.Draw(t, "target"), WorkspaceId: text.Draw(t, "workspace"), Outcome: auditv1.Outcome(rapid.Int32().Draw(t, "outcome"))})
			if err != nil || len(b) == 0 {
				return []byte{0}
			}
			return b
		}),
	)
	rapid.Check(t, func(rt *rapid.T) {
		bodies := rapid.SliceOfN(odd, 1, 5).Draw(rt, "bodies")
		for _, b := range bodies {
			if _, err := conn.Exec(t.Context(), "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", id.NewEvent(), b); err != nil {
				rt.Fatal(err)
			}
		}
		sealed += len(bodies)
		if err := s.Round(t.Context()); err != nil {
			rt.Fatal(err)
		}
	})
	report, err := tlog.Verify(t.Context(), db.Stored(t), signer.Verifier(), "")
	if err != nil || !report.Whole() || report.Entries != uint64(sealed) {
		t.Errorf("%d bodies were recorded: %+v, %v", sealed, report, err)
	}
}

func TestEventThatComesTwiceIsSealedOnce(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	s := seal.New(db.DB(t), signer)
	recorded := make(map[string]bool)
	event := events(1, recorded)[0]
	for range 2 {
		audittest.Put(t, db.As(t, "role_iam"), event)
		if err := s.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	db.Whole(t, signer.Verifier(), "", recorded)

	t.Run("and one that only has its id is not lost", func(t *testing.T) {
		other := proto.CloneOf(event)
		other.Action = "iam.user.deactivated"
		audittest.Put(t, db.As(t, "role_iam"), other)
		audittest.Put(t, db.As(t, "role_discovery"), events(1, recorded)...)
		if err := s.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
		report, err := tlog.Verify(t.Context(), db.Stored(t), signer.Verifier(), "")
		if err != nil || !report.Whole() || report.Entries != 3 {
			t.Errorf("three different events were recorded: %+v, %v", report, err)
		}
	})
}

// Row F8: two sealers at once.
func TestTwoSealersMakeOneLog(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	one, two := seal.New(db.DB(t), signer), seal.New(db.DB(t), signer)
	recorded := make(map[string]bool)
	conn := db.As(t, "role_iam")
	for i := range 12 {
		audittest.Put(t, conn, events(50+i, recorded)...)
		ctx, done := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		go func() { errs <- one.Round(ctx) }()
		go func() { errs <- two.Round(ctx) }()
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		done()
		// Whoever met the other's lock left it the work; take turns at going first.
		if err := []*seal.Sealer{one, two}[i%2].Round(t.Context()); err != nil {
			t.Error(err)
		}
	}
	db.Whole(t, signer.Verifier(), "", recorded)
	t.Attr("row", "F8 12")
}

func TestSealingOpensTheInboxAgain(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	db.Exec(t, "UPDATE audit.settings SET max_backlog_rows = 5")
	s := seal.New(db.DB(t), signer)
	conn := db.As(t, "role_iam")
	put := func() error {
		eid, body := audittest.Encode(t, audittest.Event("iam.user.invited", "x"))
		_, err := conn.Exec(t.Context(), "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", eid, body)
		return err
	}
	for range 3 {
		for range 5 {
			if err := put(); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 { // refusals must not count as backlog when the sealer is back
			if put() == nil {
				t.Fatal("the inbox takes more than its bound")
			}
		}
		if err := s.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInboxClosesWhenTheSealerStops(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	db.Exec(t, "UPDATE audit.settings SET max_backlog_age = '1 second'")
	s := seal.New(db.DB(t), signer)
	conn := db.As(t, "role_iam")
	audittest.Put(t, conn, audittest.Event("a", "b"))
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		eid, body := audittest.Encode(t, audittest.Event("a", "b"))
		_, err := conn.Exec(t.Context(), "INSERT INTO audit.inbox (id, body) VALUES ($1, $2)", eid, body)
		if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Code == pg.RecordClosed {
			break
		}
		if err != nil || time.Since(began) > 20*time.Second {
			t.Fatalf("the inbox is open after %v without a sealer: %v", time.Since(began), err)
		}
	}
	if took := time.Since(began); took < time.Second/2 {
		t.Errorf("the inbox closed after %v, the bound is a second", took)
	}
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	audittest.Put(t, conn, audittest.Event("a", "b"))
}

func query(t *testing.T, conn *pgx.Conn, sql string) pgx.Rows {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
