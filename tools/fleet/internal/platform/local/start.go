package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// Start implements platform.Platform.
func (p *Platform) Start(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	if _, err := p.Program(s.Blueprint, r); err != nil {
		return false, err
	}
	if err := errors.Join(p.choose(ctx, s), p.HandOver(ctx, s)); err != nil {
		return false, err
	}
	if err := p.State.SetRuns(s.Name(), r.String(), s.Blueprint.Digest); err != nil {
		return false, err
	}
	if changed, err = p.keepMachineReader(ctx, s, r); err != nil {
		return changed, err
	}
	did, err := p.startComponents(ctx, s, r)
	if changed = changed || did; err != nil {
		return changed, err
	}
	did, err = p.dropOthers(ctx, s)
	return changed || did, err
}

// dropOthers stops what is kept of a tenant's set and is none of its blueprint: components of the release that it ran before.
func (p *Platform) dropOthers(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Tenant.IsZero() {
		return false, nil
	}
	all, err := p.Census(ctx)
	if err != nil {
		return false, err
	}
	var names []string
	for _, c := range all[s.Name()] {
		if _, is := s.Blueprint.Component(c.Name); !is {
			names = append(names, unitName(s, c.Name))
		}
	}
	return p.Supervisor.Drop(ctx, names...)
}

// startComponents starts each component as soon as those serve that it comes after, and returns when all serve.
func (p *Platform) startComponents(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	together, err := p.together(ctx, s)
	if err != nil {
		return false, err
	}
	serves := map[string]chan struct{}{}
	for _, c := range s.Blueprint.Components {
		serves[c.Name] = make(chan struct{})
	}
	var did atomic.Bool
	all, ctx := errgroup.WithContext(ctx)
	for i, wave := range s.Blueprint.Waves() {
		for _, c := range wave {
			all.Go(func() error {
				for _, before := range c.After {
					if together {
						break
					}
					select {
					case <-serves[before]:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				unit, err := p.unit(ctx, s, r, c, i)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", c.Name, s.Name(), err)
				}
				changed, err := p.Supervisor.Apply(ctx, unit)
				if err != nil {
					return err
				}
				if changed {
					did.Store(true)
				}
				if err := p.Supervisor.Await(ctx, unit.Name); err != nil {
					return err
				}
				close(serves[c.Name])
				return nil
			})
		}
	}
	err = all.Wait()
	return did.Load(), err
}

// together says that a set's components start all at once: nobody is served by it yet, and its blueprint says that they wait for one another.
func (p *Platform) together(ctx context.Context, s platform.Set) (bool, error) {
	if !s.Blueprint.Together {
		return false, nil
	}
	units, err := p.Supervisor.States(ctx)
	return !slices.ContainsFunc(units, func(u supervise.Status) bool {
		_, is := s.Blueprint.Component(strings.TrimPrefix(u.Name, u.Group+"/"))
		return is && u.Group == s.Name()
	}), err
}

// Stop implements platform.Platform: the waves in the other order.
func (p *Platform) Stop(ctx context.Context, s platform.Set) (changed bool, err error) {
	for _, wave := range slices.Backward(s.Blueprint.Waves()) {
		var names []string
		for _, c := range wave {
			names = append(names, unitName(s, c.Name))
		}
		did, err := p.Supervisor.Drop(ctx, names...)
		changed = changed || did
		if err != nil {
			return changed, err
		}
	}
	did, err := p.dropOthers(ctx, s)
	if changed = changed || did; err != nil {
		return changed, err
	}
	last := []string{unitName(s, machineReader)}
	if p.hasOwnServer(s) {
		last = append(last, unitName(s, PostgresUnit))
	}
	did, err = p.Supervisor.Drop(ctx, last...)
	return changed || did, err
}
