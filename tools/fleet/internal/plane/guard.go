package plane

import (
	"context"
	"log/slog"
	"time"

	"a3os.app/tools/fleet/internal/state"
)

// guardEvery is how long walls that somebody took down may lie open.
const guardEvery = time.Minute

// guard has what keeps tenants' networks apart be in force, where others of the machine can take it out of force, until ctx ends.
func (p *Plane) guard(ctx context.Context) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		if err := p.guardOnce(ctx); err != nil && ctx.Err() == nil {
			slog.Error("walls between tenants were open", "alarm", "walls_opened", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Plane) guardOnce(ctx context.Context) error {
	if !state.Exists(p.Settings.Home) {
		return nil
	}
	// Its lock is not waited for, which may be held for long.
	q, err := p.asBroughtUp()
	if err != nil {
		return err
	}
	if err := q.openState(); err != nil || q.docker == nil {
		return err
	}
	return q.docker.Guard(ctx)
}
