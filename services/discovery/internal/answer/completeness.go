package answer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

// mostGaps bounds the gaps that an answer carries for one integration; the run has them all.
const mostGaps = 50

// integrations are the names of those that ever ran.
type integrations map[id.Integration]string

// readCompleteness reads how far answers about the question's time can be trusted.
func (q *question) readCompleteness(ctx context.Context, known known) error {
	rows, err := q.q.Freshness(ctx, store.FreshnessParams{At: q.at, Asked: q.asked})
	if err != nil {
		return fmt.Errorf("read the newest runs: %w", err)
	}
	q.names = make(integrations, len(rows))
	c := &discoveryv1.Completeness{Problem: known.unknown}
	if q.at != nil {
		c.AsOf = timestamppb.New(*q.at)
	}
	ran := make(map[string]*discoveryv1.Freshness, len(rows))
	for _, row := range rows {
		q.names[row.IntegrationID] = row.IntegrationName
		f, err := freshness(row)
		if err != nil {
			return err
		}
		ran[f.GetIntegrationId()] = f
		c.Sources = append(c.Sources, f)
		if at := f.GetPublishedAt(); at != nil && (c.OldestPublishedAt == nil || at.AsTime().Before(c.GetOldestPublishedAt().AsTime())) {
			c.OldestPublishedAt = at
		}
	}
	for _, s := range known.sources {
		if f, did := ran[s.GetIntegrationId()]; did {
			f.IntegrationName = s.GetName()
			continue
		}
		if q.asked == nil || !s.GetCreatedAt().AsTime().After(*q.asked) {
			c.Sources = append(c.Sources, &discoveryv1.Freshness{IntegrationId: s.GetIntegrationId(), IntegrationName: s.GetName(), Problem: neverDiscovered})
		}
	}
	slices.SortStableFunc(c.Sources, func(a, b *discoveryv1.Freshness) int {
		return strings.Compare(a.GetIntegrationName(), b.GetIntegrationName())
	})
	// Where nothing was ever read, nothing is known: that is not complete.
	c.Complete = len(c.GetSources()) > 0 && c.GetProblem() == "" &&
		!slices.ContainsFunc(c.GetSources(), func(f *discoveryv1.Freshness) bool { return f.GetProblem() != "" })
	q.completeness = c
	return nil
}

const neverDiscovered = "it was never discovered"

var runStates = map[string]integrationsv1.RunState{
	"queued":     integrationsv1.RunState_RUN_STATE_QUEUED,
	"running":    integrationsv1.RunState_RUN_STATE_RUNNING,
	"publishing": integrationsv1.RunState_RUN_STATE_RUNNING,
	"complete":   integrationsv1.RunState_RUN_STATE_COMPLETE,
	"partial":    integrationsv1.RunState_RUN_STATE_PARTIAL,
	"failed":     integrationsv1.RunState_RUN_STATE_FAILED,
}

func freshness(row store.FreshnessRow) (*discoveryv1.Freshness, error) {
	f := &discoveryv1.Freshness{IntegrationId: row.IntegrationID.String(), IntegrationName: row.IntegrationName,
		State: runStates[row.State], NewestState: runStates[row.TriedState]}
	if !row.RunID.IsZero() {
		f.RunId = row.RunID.String()
	}
	if !row.TriedID.IsZero() {
		f.NewestRunId = row.TriedID.String()
	}
	if row.FinishedAt != nil {
		f.PublishedAt = timestamppb.New(*row.FinishedAt)
	}
	f.Problem = problem(row)
	var gaps []struct{ Scope, Reason string }
	if err := json.Unmarshal(row.Gaps, &gaps); err != nil {
		return nil, fmt.Errorf("read the gaps of %s: %w", row.RunID, err)
	}
	for i, g := range gaps {
		if i == mostGaps {
			f.Gaps = append(f.Gaps, &discoveryv1.Gap{Scope: "…", Reason: fmt.Sprintf("and %d more: the run %s has them all", len(gaps)-i, row.RunID)})
			break
		}
		f.Gaps = append(f.Gaps, &discoveryv1.Gap{Scope: g.Scope, Reason: g.Reason})
	}
	return f, nil
}

// problem is what an answer misses of an integration, in a sentence; empty where that is nothing.
func problem(row store.FreshnessRow) string {
	failed := row.TriedState == "failed"
	switch {
	case row.RunID.IsZero() && failed:
		return neverDiscovered + ": its newest run failed, " + cmp.Or(row.TriedError, "for no reason that is known")
	case row.RunID.IsZero() && row.TriedID.IsZero():
		return neverDiscovered
	case row.RunID.IsZero():
		return "it was not discovered yet: its first run is under way"
	case failed:
		return "its newest run failed, what is known of it is of the run before: " + cmp.Or(row.TriedError, "for no reason that is known")
	case row.State == "partial":
		return "its newest run could not read everything"
	}
	return ""
}
