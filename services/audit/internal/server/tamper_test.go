package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
)

// rehash gives every entry the hash that its leaf has now.
const rehash = "; UPDATE audit.entries SET leaf_hash = sha256('\\x00'::bytea || leaf)"

// Row A54. Each case is what an owner of the database does to a log of 20 entries with checkpoints at 5, 10, 15 and 20, and what a client that
// remembers the checkpoint of 15 is told.
func TestTamperingOfTheOwnerIsFoundAndNamed(t *testing.T) {
	cases := map[string]struct {
		sql      string
		kind     tlog.Kind
		from, to uint64
		names    bool // the event's id
	}{
		"one byte of one event": {"UPDATE audit.entries SET leaf = set_byte(leaf, 40, get_byte(leaf, 40) # 1) WHERE idx = 7",
			tlog.EntryChanged, 7, 8, true},
		"one byte of the first event":             {"UPDATE audit.entries SET leaf = set_byte(leaf, 40, 0) WHERE idx = 0", tlog.EntryChanged, 0, 1, true},
		"one byte of the last event":              {"UPDATE audit.entries SET leaf = set_byte(leaf, 40, 0) WHERE idx = 19", tlog.EntryChanged, 19, 20, true},
		"what stands beside an event":             {"UPDATE audit.entries SET leaf = set_byte(leaf, length(leaf) - 30, 1) WHERE idx = 3", tlog.EntryChanged, 3, 4, false},
		"a stored hash":                           {"UPDATE audit.entries SET leaf_hash = set_byte(leaf_hash, 0, get_byte(leaf_hash, 0) # 1) WHERE idx = 12", tlog.EntryChanged, 12, 13, true},
		"a leaf that is no leaf any more":         {"UPDATE audit.entries SET leaf = '\\xff' WHERE idx = 4", tlog.EntryChanged, 4, 5, false},
		"an event and its hash":                   {"UPDATE audit.entries SET leaf = set_byte(leaf, 40, 0) WHERE idx = 7" + rehash, tlog.IntervalRewritten, 5, 10, false},
		"an event and its hash, before the first": {"UPDATE audit.entries SET leaf = set_byte(leaf, 40, 0) WHERE idx = 2" + rehash, tlog.IntervalRewritten, 0, 5, false},
		"two events swapped": {"UPDATE audit.entries SET idx = 100 WHERE idx = 11; UPDATE audit.entries SET idx = 11 WHERE idx = 13; UPDATE audit.entries SET idx = 13 WHERE idx = 100",
			tlog.IntervalRewritten, 10, 15, false},
		"two events swapped across a checkpoint": {"UPDATE audit.entries SET idx = 100 WHERE idx = 3; UPDATE audit.entries SET idx = 3 WHERE idx = 13; UPDATE audit.entries SET idx = 13 WHERE idx = 100",
			tlog.IntervalRewritten, 0, 5, false},
		"an event deleted":                     {"DELETE FROM audit.entries WHERE idx = 6", tlog.EntryMissing, 6, 7, false},
		"the first event deleted":              {"DELETE FROM audit.entries WHERE idx = 0", tlog.EntryMissing, 0, 1, false},
		"an event deleted and the gap closed":  {"DELETE FROM audit.entries WHERE idx = 6; UPDATE audit.entries SET idx = idx + 99 WHERE idx > 6; UPDATE audit.entries SET idx = idx - 100 WHERE idx > 6", tlog.IntervalRewritten, 5, 10, false},
		"the last events deleted":              {"DELETE FROM audit.entries WHERE idx >= 18", tlog.EntryMissing, 15, 20, false},
		"all events deleted":                   {"TRUNCATE audit.entries", tlog.EntryMissing, 0, 20, false},
		"an event put in":                      {"UPDATE audit.entries SET idx = idx + 100 WHERE idx >= 8; UPDATE audit.entries SET idx = idx - 99 WHERE idx >= 100; INSERT INTO audit.entries SELECT 8, NULL, leaf, leaf_hash, action, actor, target, workspace_id, outcome, recorded_at FROM audit.entries WHERE idx = 1", tlog.IntervalRewritten, 5, 10, false},
		"cut short, with the checkpoint of it": {"DELETE FROM audit.checkpoints WHERE size > 10; DELETE FROM audit.entries WHERE idx >= 10", tlog.LogTruncated, 10, 15, false},
		"cut short to nothing":                 {"TRUNCATE audit.checkpoints; TRUNCATE audit.entries; TRUNCATE audit.tiles", tlog.LogTruncated, 0, 15, false},
		"a checkpoint in between":              {"UPDATE audit.checkpoints SET note = replace(note, E'\\n10\\n', E'\\n9\\n') WHERE size = 10", tlog.CheckpointForged, 5, 20, false},
		"the newest checkpoint":                {"UPDATE audit.checkpoints SET note = replace(note, E'\\n20\\n', E'\\n21\\n') WHERE size = 20", tlog.CheckpointForged, 0, 0, false},
		"an old checkpoint as the newest":      {"UPDATE audit.checkpoints SET note = (SELECT note FROM audit.checkpoints WHERE size = 10) WHERE size IN (15, 20)", tlog.LogTruncated, 10, 15, false},
	}
	t.Attr("row", fmt.Sprintf("A54 %d", len(cases)))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, events, remembered := logOf20(t)
			r.db.Unlock(t)
			if _, err := r.db.As(t, "owner").PgConn().Exec(t.Context(), c.sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			report, err := tlog.Verify(t.Context(), tlog.Remote(r.log), r.signer.Verifier(), remembered)
			if err != nil {
				t.Fatal(err)
			}
			if report.Whole() {
				t.Fatal("the log passes for whole")
			}
			f := report.Findings[0]
			if f.Kind != c.kind || f.From != c.from || f.To != c.to {
				t.Errorf("found %s of %d to %d (%s), want %s of %d to %d", f.Kind, f.From, f.To, f.Text, c.kind, c.from, c.to)
			}
			if c.names && (f.EventID != events[c.from].GetId() || !strings.Contains(f.Text, fmt.Sprintf("entry %d (event %s)", c.from, f.EventID))) {
				t.Errorf("the finding names %q, the event is %s: %s", f.EventID, events[c.from].GetId(), f.Text)
			}
		})
	}
}

// logOf20 is a log of 20 entries with checkpoints at 5, 10, 15 and 20, and the checkpoint of 15.
func logOf20(t *testing.T) (*running, []*auditv1.Event, string) {
	t.Helper()
	r := start(t)
	var events []*auditv1.Event
	var remembered string
	for i := range 4 {
		for j := range 5 {
			events = append(events, audittest.Event("iam.user.invited", fmt.Sprintf("usr_%d", 5*i+j)))
		}
		r.record(t, events[5*i:]...)
		report, err := tlog.Verify(t.Context(), tlog.Remote(r.log), r.signer.Verifier(), remembered)
		if err != nil || !report.Whole() || report.Entries != uint64(len(events)) {
			t.Fatalf("untouched log: %+v, %v", report, err)
		}
		if i == 2 {
			remembered = report.Newest.Note
		}
	}
	return r, events, remembered
}

// Whoever holds the log's key can sign another history, and a client that remembers the first one sees it.
func TestHistorySignedAnewContradictsWhatWasRemembered(t *testing.T) {
	r, _, remembered := logOf20(t)
	other := audittest.New(t)
	for range 4 {
		audittest.Put(t, other.As(t, "role_iam"), slices.Repeat([]*auditv1.Event{audittest.Event("a", "b")}, 1)...)
		for range 4 {
			audittest.Put(t, other.As(t, "role_iam"), audittest.Event("a", "b"))
		}
		if err := seal.New(other.DB(t), r.signer).Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	report, err := tlog.Verify(t.Context(), other.Stored(t), r.signer.Verifier(), remembered)
	if err != nil {
		t.Fatal(err)
	}
	if report.Whole() || report.Findings[0].Kind != tlog.HistoryReplaced || report.Findings[0].To != 15 {
		t.Errorf("%+v", report.Findings)
	}
	if report, err = tlog.Verify(t.Context(), other.Stored(t), r.signer.Verifier(), ""); err != nil || !report.Whole() {
		t.Errorf("without a memory there is nothing to see: %+v, %v", report, err)
	}
}

// The sealer doesn't put a whole roof on a damaged house: a client that never verified would not learn of it otherwise.
func TestSealerRefusesADamagedLog(t *testing.T) {
	for name, sql := range map[string]string{
		"cut short":                        "DELETE FROM audit.entries WHERE idx >= 12",
		"cut short to nothing but":         "DELETE FROM audit.entries",
		"a hash at the edge":               "UPDATE audit.entries SET leaf_hash = set_byte(leaf_hash, 0, get_byte(leaf_hash, 0) # 1) WHERE idx = 19",
		"a hash inside":                    "UPDATE audit.entries SET leaf_hash = set_byte(leaf_hash, 0, get_byte(leaf_hash, 0) # 1) WHERE idx = 3",
		"no checkpoint":                    "DELETE FROM audit.checkpoints",
		"a checkpoint that nobody signed":  "UPDATE audit.checkpoints SET note = replace(note, E'\\n20\\n', E'\\n19\\n') WHERE size = 20",
		"a checkpoint signed by somebody":  "SELECT 1",
		"the checkpoint of another height": "UPDATE audit.checkpoints SET note = (SELECT note FROM audit.checkpoints WHERE size = 5) WHERE size = 20; DELETE FROM audit.entries WHERE idx >= 4",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _, _ := logOf20(t)
			r.db.Unlock(t)
			if _, err := r.db.As(t, "owner").PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			signer := r.signer
			if name == "a checkpoint signed by somebody" {
				signer = audittest.Signer(t)
			}
			audittest.Put(t, r.db.As(t, "role_iam"), audittest.Event("a", "b"))
			err := seal.New(r.db.DB(t), signer).Round(t.Context())
			if err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("the sealer goes on: %v", err)
			}
			var waiting int
			if err := r.db.Pool(t).QueryRow(t.Context(), "SELECT count(*) FROM audit.inbox").Scan(&waiting); err != nil || waiting != 1 {
				t.Errorf("%d events wait, want 1 (%v)", waiting, err)
			}
		})
	}
}
