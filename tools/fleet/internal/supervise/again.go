package supervise

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"
)

// declareAgain keeps what was kept before, and says what that is by the order in which it is to be started.
func (d *Daemon) declareAgain() []Unit {
	units, err := d.dir.units()
	if err != nil {
		slog.Error("what was kept before can't be read; plane up declares it again", "error", err)
		return nil
	}
	units = slices.DeleteFunc(units, func(u Unit) bool {
		err := u.validate()
		if err != nil {
			slog.Error("a unit can't be kept", "unit", u.Name, "error", err)
		}
		return err != nil
	})
	slices.SortStableFunc(units, func(a, b Unit) int { return cmp.Compare(a.Order, b.Order) })
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range units {
		d.waiting[u.Name] = u
	}
	return units
}

// startAgain starts what waits, order by order.
func (d *Daemon) startAgain(ctx context.Context, units []Unit) {
	for i := 0; i < len(units) && ctx.Err() == nil; {
		j := i
		for ; j < len(units) && units[j].Order == units[i].Order; j++ {
			d.startWaiting(units[j].Name) //nolint:contextcheck // a unit outlives who asked for it
		}
		d.awaitServing(ctx, units[i:j])
		i = j
	}
}

// startWaiting starts a unit that still waits. One that was dropped meanwhile, or declared anew, is not its to start.
func (d *Daemon) startWaiting(name string) {
	defer d.lanes.enter(name)()
	d.mu.Lock()
	unit, waits := d.waiting[name]
	if waits && !d.stopping {
		d.begin(unit)
	}
	d.mu.Unlock()
	d.turns.next()
}

// awaitServing gives units some time to serve before those that need them start; they start then in any case.
func (d *Daemon) awaitServing(ctx context.Context, units []Unit) {
	const most = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		serving := true
		for _, u := range units {
			d.mu.Lock()
			k := d.keepers[u.Name]
			d.mu.Unlock()
			serving = serving && (k == nil || k.Status().State == Serving)
		}
		if serving {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
