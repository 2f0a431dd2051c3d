package plane

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// spareAfter is for how long a plane is left alone by whoever changes it before a database is copied for its next tenant: what a new tenant's
// people do first is not to wait for that.
const spareAfter = 2 * time.Second

// keepSpares sees to a database for the next tenant whenever the plane was changed, until ctx ends. Without one a tenant comes later by the
// time that a copy takes, and that is all.
func (p *Plane) keepSpares(ctx context.Context) {
	tick := time.NewTicker(spareAfter / 4)
	defer tick.Stop()
	var seen, done time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := p.changedAt()
		if err != nil || changed.Equal(done) {
			continue
		}
		if !changed.Equal(seen) || time.Since(changed) < spareAfter {
			seen = changed
			continue
		}
		done = changed
		if err := p.keepSpare(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("no database is ready for the next tenant, whose making takes longer for it", "error", err)
		}
	}
}

// changedAt is when what the plane remembers was last changed.
func (p *Plane) changedAt() (time.Time, error) {
	info, err := os.Stat(filepath.Join(p.Settings.Home, "plane.json"))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (p *Plane) keepSpare(ctx context.Context) error {
	q, err := p.asBroughtUp()
	if err != nil {
		return err
	}
	if err := q.openToRead(ctx); err != nil {
		return err
	}
	_, err = q.platform.KeepSpare(ctx, q.blueprint)
	return err
}
