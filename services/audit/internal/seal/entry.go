package seal

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/services/audit/internal/store"
)

// entry is a leaf with the columns that it is found by.
type entry struct {
	row   store.DrainRow
	id    id.Event
	leaf  []byte
	event *auditv1.Event
}

// read makes an entry of a row, whatever its body is: a body that can't be read is sealed as it is and found by its id alone, for
// one bad event must neither stop the log nor get lost.
func read(r store.DrainRow) (entry, error) {
	leaf, err := tlog.Leaf(r.Body, r.RecordedAt, r.Producer)
	if err != nil {
		return entry{}, fmt.Errorf("make the leaf of event %s: %w", r.ID, err)
	}
	event := new(auditv1.Event)
	if err := proto.Unmarshal(r.Body, event); err != nil {
		event = new(auditv1.Event)
	}
	return entry{row: r, id: r.ID, leaf: leaf, event: event}, nil
}

// columns adds the entry to the arrays of an insert.
func (e entry) columns(p *store.AppendEntriesParams) {
	id16 := e.id.Bytes()
	p.EventIds = append(p.EventIds, pgtype.UUID{Bytes: id16, Valid: !e.id.IsZero()})
	p.Leaves = append(p.Leaves, e.leaf)
	p.Actions = append(p.Actions, column(e.event.GetAction()))
	p.Actors = append(p.Actors, column(e.event.GetActor()))
	p.Targets = append(p.Targets, column(e.event.GetTarget()))
	p.Outcomes = append(p.Outcomes, outcome(e.event.GetOutcome()))
	p.RecordedAts = append(p.RecordedAts, e.row.RecordedAt)
	// A workspace that isn't one makes an event of the tenant: its readers see it, and no workspace's do.
	var workspace pgtype.UUID
	if text := e.event.GetWorkspaceId(); text != "" {
		if w, err := id.ParseWorkspace(text); err == nil {
			workspace = pgtype.UUID{Bytes: w.Bytes(), Valid: true}
		}
	}
	p.WorkspaceIds = append(p.WorkspaceIds, workspace)
}

// room makes arrays for n entries.
func room(n int) store.AppendEntriesParams {
	return store.AppendEntriesParams{
		Idxs: make([]int64, 0, n), EventIds: make([]pgtype.UUID, 0, n), Leaves: make([][]byte, 0, n), LeafHashes: make([][]byte, 0, n),
		Actions: make([]string, 0, n), Actors: make([]string, 0, n), Targets: make([]string, 0, n),
		WorkspaceIds: make([]pgtype.UUID, 0, n), Outcomes: make([]int16, 0, n), RecordedAts: make([]time.Time, 0, n),
	}
}

// column is text as PostgreSQL and its indexes take it: no NUL, and no longer than any filter.
func column(s string) string {
	const most = 200
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most])
	}
	return strings.ReplaceAll(s, "\x00", "\uFFFD")
}

func outcome(o auditv1.Outcome) int16 {
	if o < 0 || o > math.MaxInt16 {
		return 0
	}
	return int16(o)
}
