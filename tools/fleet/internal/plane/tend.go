package plane

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// tendEvery is how often a running plane's certificates are looked at.
const tendEvery = time.Hour

// Supervise is the life of the plane's supervisor. Beside it, certificates that nobody else renews are renewed,
// backups made, and a database is copied for the next tenant.
func (p *Plane) Supervise(ctx context.Context, run func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.tend(ctx)
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
		if err := p.renew(ctx); err != nil && ctx.Err() == nil {
			slog.Error("certificates can't be renewed", "error", err)
		}
	}
}

// renew makes the certificates anew that end soon. Their owners take them up by themselves.
func (p *Plane) renew(ctx context.Context) error {
	unlock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.openState(); err != nil {
		return err
	}
	_, err = p.platform.Authorities(p.own)
	errs := []error{err}
	slugs := p.Settings.Tenants
	for _, t := range p.state.Tenants() {
		if !t.ID.IsZero() {
			_, err := p.platform.Authorities(p.setOf(t))
			errs = append(errs, err)
		}
		slugs = append(slugs, t.Slug)
	}
	_, err = p.platform.Web(p.hosts(slugs))
	errs = append(errs, p.handOverRenewed(ctx))
	return errors.Join(append(errs, err)...)
}
