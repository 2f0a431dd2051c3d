package letters

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/services/discovery/internal/store"
)

// pruneEvery is how often letters past their bounds are looked for.
const pruneEvery = 10 * time.Minute

// Prune deletes letters past their bounds until ctx ends.
func (l *Letters) Prune(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if err := l.PruneOnce(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "old dead letters can't be deleted now, trying again", "in", pruneEvery, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// PruneOnce deletes the letters that are older than Config.Kept and, of more than Config.Most, those settled and then the oldest. One
// event says of how many that is, and how many of them nobody had settled.
func (l *Letters) PruneOnce(ctx context.Context) error {
	return l.cfg.Wide.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		gone, err := store.New(tx).PruneDeadLetters(ctx, store.PruneDeadLettersParams{Before: time.Now().Add(-l.cfg.Kept), Most: l.cfg.Most})
		if err != nil {
			return fmt.Errorf("delete old dead letters: %w", err)
		}
		if len(gone) == 0 {
			return nil
		}
		pruned := &discoveryv1.DeadLettersPruned{Count: int64(len(gone))}
		for _, row := range gone {
			if row.State == states.word(discoveryv1.DeadLetterState_DEAD_LETTER_STATE_WAITING) {
				pruned.Waiting++
			}
		}
		if pruned.GetWaiting() > 0 {
			slog.WarnContext(ctx, "dead letters were deleted that nobody had settled", "waiting", pruned.GetWaiting(), "kept_for", l.cfg.Kept, "kept_at_most", l.cfg.Most)
		}
		return record.AppendUnknown(ctx, tx, string(scope.Workload("discovery")),
			record.Event{Action: "queue.dead_letters.pruned", Target: "queue", Before: pruned,
				Reason: fmt.Sprintf("letters are kept for %s, and %d of them", l.cfg.Kept, l.cfg.Most)})
	})
}
