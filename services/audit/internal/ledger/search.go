package ledger

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/services/audit/internal/store"
)

// Filter narrows a search. Zero fields filter nothing.
type Filter struct {
	// Workspace is the one to stay in.
	Workspace id.Workspace
	// Action is an action, or what actions begin with where it ends in `.`.
	Action string
	// Actor and Target are matched whole.
	Actor, Target string
	// Since and Until are when the event was recorded: not before, and before.
	Since, Until time.Time
	// Outcome is how the deed ended.
	Outcome auditv1.Outcome
}

// Search reads entries below an index, newest first, at most most of them.
func (l Ledger) Search(ctx context.Context, f Filter, below int64, most int32) ([]Entry, error) {
	p := store.ListEntriesParams{BeforeIdx: below, Most: most, Actor: given(f.Actor), Target: given(f.Target),
		WorkspaceID: pgtype.UUID{Bytes: f.Workspace.Bytes(), Valid: !f.Workspace.IsZero()}}
	if strings.HasSuffix(f.Action, ".") {
		p.ActionPrefix = &f.Action
	} else {
		p.Action = given(f.Action)
	}
	if !f.Since.IsZero() {
		p.Since = &f.Since
	}
	if !f.Until.IsZero() {
		p.Until = &f.Until
	}
	if f.Outcome != auditv1.Outcome_OUTCOME_UNSPECIFIED {
		o := int16(f.Outcome) //nolint:gosec // a defined value, by the request's validation
		p.Outcome = &o
	}
	var out []Entry
	err := l.read(ctx, func(q *store.Queries) error {
		if err := q.PlanEachTime(ctx); err != nil {
			return fmt.Errorf("set the plan mode: %w", err)
		}
		rows, err := q.ListEntries(ctx, p)
		if err != nil {
			return fmt.Errorf("search the log: %w", err)
		}
		out = make([]Entry, len(rows))
		for i, r := range rows {
			if err := same(f.Workspace, r); err != nil {
				return err
			}
			out[i] = Entry{Index: r.Idx, Leaf: r.Leaf}
		}
		return nil
	})
	return out, err
}

// same refuses, for a reader of one workspace, an entry whose leaf says another than the column it was found by: somebody changed
// the column, and the reader must not see it.
func same(w id.Workspace, r store.ListEntriesRow) error {
	if w.IsZero() {
		return nil
	}
	if _, event, _ := tlog.ParseLeaf(r.Leaf); event.GetWorkspaceId() != w.String() {
		return fmt.Errorf("entry %d is kept under workspace %s, and its leaf says %q: the log was tampered with, run `a3 audit verify`",
			r.Idx, w, event.GetWorkspaceId())
	}
	return nil
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
