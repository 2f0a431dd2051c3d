package answer

import (
	"context"
	"encoding/json"
	"fmt"

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
func (q *question) readCompleteness(ctx context.Context) error {
	rows, err := q.q.Freshness(ctx, q.at)
	if err != nil {
		return fmt.Errorf("read the newest runs: %w", err)
	}
	q.names = make(integrations, len(rows))
	// Where nothing was ever read, nothing is known: that is not complete.
	c := &discoveryv1.Completeness{Complete: len(rows) > 0}
	for _, row := range rows {
		q.names[row.IntegrationID] = row.IntegrationName
		f, err := freshness(row)
		if err != nil {
			return err
		}
		c.Sources = append(c.Sources, f)
		c.Complete = c.Complete && f.GetState() == integrationsv1.RunState_RUN_STATE_COMPLETE
		if at := f.GetPublishedAt(); at != nil && (c.OldestPublishedAt == nil || at.AsTime().Before(c.GetOldestPublishedAt().AsTime())) {
			c.OldestPublishedAt = at
		}
	}
	q.completeness = c
	return nil
}

func freshness(row store.FreshnessRow) (*discoveryv1.Freshness, error) {
	f := &discoveryv1.Freshness{IntegrationId: row.IntegrationID.String(), IntegrationName: row.IntegrationName, RunId: row.RunID.String()}
	if row.FinishedAt != nil {
		f.PublishedAt = timestamppb.New(*row.FinishedAt)
	}
	switch row.State {
	case "complete":
		f.State = integrationsv1.RunState_RUN_STATE_COMPLETE
	case "partial":
		f.State = integrationsv1.RunState_RUN_STATE_PARTIAL
	default:
		// No run was published.
	}
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
