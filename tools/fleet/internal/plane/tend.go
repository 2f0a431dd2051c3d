package plane

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"a3os.app/tools/fleet/internal/platform/local"
)

// tendEvery is how often a running plane's certificates are looked at.
const tendEvery = time.Hour

// Supervise is the life of the plane's supervisor. Beside it, certificates that nobody else renews are renewed,
// walls looked after, backups made, and a database is copied for the next tenant: all by the settings that the plane was last brought up with.
func (p *Plane) Supervise(ctx context.Context, run func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := local.ClearScratch(p.Settings.Home); err != nil {
		slog.Error("what a killed trial of a backup left is still there, copies of keys among it", "error", err)
	}
	go p.tend(ctx)
	go p.guard(ctx)
	go p.backUpAlways(ctx)
	go p.keepSpares(ctx)
	return run(ctx)
}

func (p *Plane) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		q, err := p.asBroughtUp()
		if err == nil {
			_, err = q.Renew(ctx)
		}
		if err != nil && ctx.Err() == nil {
			slog.Error("certificates can't be renewed", "error", err)
		}
	}
}

// Renew makes the certificates anew that end soon, and says whether there were any. Their owners take them up by themselves; tasks at AWS, which
// can't, are started anew with them.
func (p *Plane) Renew(ctx context.Context) (changed bool, err error) {
	if err := p.openExisting(); err != nil {
		return false, err
	}
	unlock, err := p.lockAndLook(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	var errs []error
	did := func(changes bool, err error) {
		changed, errs = changed || changes, append(errs, err)
	}
	did(p.platform.Authorities(p.own))
	own := errs[0]
	for _, t := range p.state.Tenants() {
		if s := p.setOf(t); !t.ID.IsZero() && p.platform.NotRestoring(s) == nil {
			did(p.platform.Authorities(s))
		}
	}
	did(p.web())
	did(false, p.handOverRenewed(ctx))
	if p.aws != nil && own == nil {
		did(p.aws.Renew(ctx, p.own))
	}
	return changed, errors.Join(errs...)
}
