package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/services/discoveryworker/internal/connector"
)

// fill makes a small company on a server.
func (o *oracle) fill(t *testing.T) {
	t.Helper()
	o.run(t, o.home,
		"CREATE ROLE staff", "CREATE ROLE ann LOGIN IN ROLE staff", "CREATE ROLE bob LOGIN VALID UNTIL '2001-01-01'",
		"CREATE DATABASE shop TEMPLATE template0", "CREATE DATABASE vault TEMPLATE template0", "REVOKE CONNECT ON DATABASE vault FROM PUBLIC",
		"CREATE DATABASE frozen TEMPLATE template0 ALLOW_CONNECTIONS false")
	shop := o.connect(t, "shop")
	for i := range 8 {
		o.run(t, shop, fmt.Sprintf("CREATE TABLE t%d (a int, b int); GRANT SELECT ON t%d TO staff; GRANT UPDATE (b) ON t%d TO ann", i, i, i))
	}
}

// texts are records as sorted text, to be compared.
func texts(records []*discoveryv1.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil {
			panic(err)
		}
		out[i] = string(b)
	}
	slices.Sort(out)
	return out
}

func TestEverySliceGivesTheSameAgain(t *testing.T) {
	o := newOracle(t, 15)
	o.fill(t)
	c, source := &postgres{page: 3}, testSource(o.settings(), readerPassword)
	whole := &collected{}
	if next, err := c.Read(t.Context(), source, nil, whole); err != nil || next != nil {
		t.Fatalf("read in one slice: next %q, %v", next, err)
	}
	var records []*discoveryv1.Record
	var checkpoint []byte
	slicesRead := 0
	for {
		due := func() bool { return true }
		first, again := &collected{due: due}, &collected{due: due}
		next, err := c.Read(t.Context(), source, checkpoint, first)
		if err != nil {
			t.Fatal(err)
		}
		nextAgain, err := c.Read(t.Context(), source, checkpoint, again)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(texts(first.records), texts(again.records)) || string(next) != string(nextAgain) {
			t.Fatalf("from checkpoint %s: not the same the second time", checkpoint)
		}
		records = append(records, first.records...)
		slicesRead++
		if checkpoint = next; next == nil {
			break
		}
	}
	if !slices.Equal(texts(records), texts(whole.records)) {
		t.Errorf("%d slices together hold %d records, one slice %d, or others", slicesRead, len(records), len(whole.records))
	}
	if slicesRead < 15 {
		t.Errorf("%d slices, want one a page", slicesRead)
	}
}

func TestScopesThatWereReadAreComplete(t *testing.T) {
	o := newOracle(t, 15)
	o.fill(t)
	sink := &collected{}
	if _, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), nil, sink); err != nil {
		t.Fatal(err)
	}
	want := []string{"roles", "database/postgres", "database/shop", "database/template1"}
	if !slices.Equal(sink.complete, want) {
		t.Errorf("complete: %q, want %q", sink.complete, want)
	}
	for scope, words := range map[string]string{"database/vault": "GRANT CONNECT ON DATABASE vault TO " + reader, "database/frozen": "accepts no connections"} {
		if !strings.Contains(sink.gaps[scope], words) {
			t.Errorf("gap of %s: %q, want it to say %q", scope, sink.gaps[scope], words)
		}
	}
	if len(sink.gaps) != 2 {
		t.Errorf("gaps: %v, want two", sink.gaps)
	}
	checkRecords(t, sink.records)
}

func TestCatalogueThatMayNotBeReadIsAGap(t *testing.T) {
	o := newOracle(t, 15)
	o.run(t, o.home, "REVOKE SELECT ON pg_foreign_server FROM PUBLIC")
	sink := &collected{due: func() bool { return true }}
	var checkpoint []byte
	for {
		next, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), checkpoint, sink)
		if err != nil {
			t.Fatal(err)
		}
		if checkpoint = next; next == nil {
			break
		}
	}
	if slices.Contains(sink.complete, "database/postgres") || !strings.Contains(sink.gaps["database/postgres"], "foreign servers") {
		t.Errorf("complete: %q, gaps: %v", sink.complete, sink.gaps)
	}
	if !slices.Contains(sink.complete, "database/template1") {
		t.Errorf("complete: %q, want the other database", sink.complete)
	}
}

func TestServerThatFailsMidwayIsTriedAgain(t *testing.T) {
	o := newOracle(t, 15)
	o.fill(t)
	kill := func(int) error {
		_, err := o.home.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", reader)
		return err
	}
	for _, page := range []int{3, 500} {
		sink := &collected{emit: kill}
		_, err := (&postgres{page: page}).Read(t.Context(), testSource(o.settings(), readerPassword), nil, sink)
		if err == nil {
			t.Fatal("no error although the server ended the connection")
		}
		if _, permanent := errors.AsType[*connector.PermanentError](err); permanent {
			t.Errorf("%v is marked as permanent", err)
		}
		if !strings.Contains(err.Error(), `of database "postgres"`) || strings.Contains(err.Error(), readerPassword) {
			t.Errorf("%q does not say what was being read", err)
		}
		if len(sink.complete) > 0 {
			t.Errorf("complete: %q, want none", sink.complete)
		}
	}
}

func TestSinkThatFailsEndsTheRead(t *testing.T) {
	o := newOracle(t, 15)
	broken := errors.New("the receiver is gone")
	sink := &collected{emit: func(int) error { return broken }}
	if _, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), nil, sink); !errors.Is(err, broken) {
		t.Errorf("Read answers %v, want %v", err, broken)
	}
	if len(sink.complete) > 0 {
		t.Errorf("complete: %q, want none", sink.complete)
	}
}

func TestForeignCheckpointIsRefused(t *testing.T) {
	o := newOracle(t, 15)
	for _, checkpoint := range []string{"", "not json", `{"section":"roles","more":1}`, `{"section":"of another version"}`} {
		_, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), []byte(checkpoint), &collected{})
		if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
			t.Errorf("checkpoint %q: %v, want a permanent error", checkpoint, err)
		}
	}
}

func TestCancelledReadEnds(t *testing.T) {
	o := newOracle(t, 15)
	ctx, cancel := context.WithCancel(t.Context())
	sink := &collected{emit: func(int) error { cancel(); return nil }}
	if _, err := New().Read(ctx, testSource(o.settings(), readerPassword), nil, sink); !errors.Is(err, context.Canceled) {
		t.Errorf("Read answers %v, want context.Canceled", err)
	}
}

// TestLargeDatabaseEmitsInProportion guards against a record for every pair of things.
func TestLargeDatabaseEmitsInProportion(t *testing.T) {
	o := newOracle(t, 15)
	o.run(t, o.home, `DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE ROLE g%s SUPERUSER', i); END LOOP; END $$`)
	count := func() int {
		sink := &collected{}
		if _, err := New().Read(t.Context(), testSource(o.settings(), readerPassword), nil, sink); err != nil {
			t.Fatal(err)
		}
		return len(sink.records)
	}
	before := count()
	o.run(t, o.home, `DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE format('CREATE TABLE big%s (a int)', i); END LOOP; END $$`)
	if each := float64(count()-before) / 1000; each > 40 {
		t.Errorf("%.1f records for each table, want at most 40 however many superusers there are", each)
	}
}
