// Package docker carries sets out as containers of this machine: each tenant's on a network of its own, which reaches no other one, not
// the machine and not the control plane but by the doors that are there for it. Keys, certificates and stores are kept as platform local
// keeps them, root's alone; what a container may read of them lies on a tmpfs of the plane. It promises what local promises, and that it
// touches nothing on the engine without the plane's label. What a set consists of it learns from a blueprint.
package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/accounts"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// Name of the platform.
const Name = "docker"

// Platform is this machine's Docker engine.
type Platform struct {
	// Settings and State of the plane.
	Settings settings.Settings
	State    *state.State
	// Own is the plane's own set.
	Own platform.Set
	// Tenants is the blueprint of tenants' sets.
	Tenants *blueprint.Blueprint
	// Machine keeps the plane's files; its Places are this platform.
	Machine *local.Platform
	// Engine keeps the containers.
	Engine *container.Engine
	// Binaries of PostgreSQL, that its image is made from and clusters are made with.
	Binaries pgserver.Binaries

	// Note is told what somebody who waits for a command should know; nil where nobody is.
	Note func(text string)

	// serverFiles are those of the image of Binaries, found once: ldd takes a third of a second to name them.
	serverFiles atomic.Pointer[serverFiles]

	// door is how a process that got the platform delegated has the engine asked; nil where this one speaks to the engine itself.
	door platform.Door
}

// Possible says why this process can't carry sets out as containers, in words; empty where it can.
func Possible() string {
	if why := accounts.Possible(); why != "" {
		return "it gives each container a user of its own and closes networks, and " + why
	}
	return ""
}

// Name implements platform.Platform.
func (p *Platform) Name() string { return Name }

// KeptBeside implements platform.Keeper. Components of the plane's own set stand in a tenant's network under their names.
func (p *Platform) KeptBeside() []string {
	out := []string{postgresComponent, databasesNetwork, sampleNetwork, local.Migrator, recoverer}
	for _, c := range p.Own.Blueprint.Components {
		out = append(out, c.Name)
	}
	return out
}

// Where implements platform.Platform.
func (p *Platform) Where(ctx context.Context) (platform.Where, error) { return p.Machine.Where(ctx) }

// Fetch implements platform.Platform: the artefact as local has it, and an image of it on the engine.
func (p *Platform) Fetch(ctx context.Context, r platform.Release) (changed bool, err error) {
	if changed, err = p.Machine.Fetch(ctx, r); err != nil {
		return changed, err
	}
	b := p.Own.Blueprint
	if _, err := r.DigestOf(b.Artefact); err != nil {
		b = p.Tenants
	}
	_, did, err := p.image(ctx, b, r)
	return changed || did, err
}

// Identity implements platform.Platform.
func (p *Platform) Identity(ctx context.Context, s platform.Set) (changed bool, err error) {
	// Where a set will be is decided with who it is: it is on record before anything of it runs.
	names := networkNames(s)
	switch {
	case s.Tenant.IsZero():
		// The registry is told from its start where these servers will be, which no set may name as its own.
		names = append(names, databasesNetwork, sampleNetwork)
	case s.Blueprint.Database != nil && !s.Dedicated():
		names = append(names, databasesNetwork)
	}
	for _, name := range names {
		_, err := p.State.Subnet(name, p.Settings.Networks, takenSubnets)
		if err != nil && s.Tenant.IsZero() && (name == databasesNetwork || name == sampleNetwork) {
			continue // a plane may never need one, and of its own networks each is taken: whoever does need it is told
		}
		if err != nil {
			return false, err
		}
	}
	return p.Machine.Identity(ctx, s)
}

// Database implements platform.Platform. Where the tier is `dedicated`, the server comes first.
func (p *Platform) Database(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Blueprint.Database == nil {
		return false, nil
	}
	if changed, err = p.Serve(ctx, s); err != nil {
		return changed, err
	}
	did, err := p.Machine.Database(ctx, s)
	return changed || did, err
}

// Mark implements platform.Platform.
func (p *Platform) Mark(ctx context.Context, s platform.Set) (changed bool, err error) {
	return p.Machine.Mark(ctx, s)
}

// unitName is what the engine's container of a component is called, below the plane.
func unitName(s platform.Set, component string) string { return s.Name() + "/" + component }

// prepare makes what a set's containers stand in, and remembers what they are to run.
func (p *Platform) prepare(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	if p.door != nil {
		return p.ask(ctx, askPrepare)
	}
	server := p.take
	if s.Dedicated() {
		// Nobody else's is in it, and its components are about to be started.
		server = p.serve
	}
	if changed, err = p.networksOf(ctx, s, server); err != nil {
		return changed, err
	}
	did, err := p.dropOthers(ctx, s)
	if changed = changed || did; err != nil {
		return changed, err
	}
	if err := p.mountPlaces(ctx, s); err != nil {
		return changed, err
	}
	return changed, p.State.SetRuns(s.Name(), r.String(), s.Blueprint.Digest)
}

// dropOthers stops and removes what there is of a tenant's set and is none of its blueprint: components of the release that it ran before. It
// is for who has the plane's power.
func (p *Platform) dropOthers(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Tenant.IsZero() {
		return false, nil
	}
	all, err := p.Engine.Status(ctx, s.Name())
	if err != nil {
		return false, err
	}
	var names []string
	for _, c := range all {
		name := strings.TrimPrefix(c.Name, s.Name()+"/")
		if _, is := s.Blueprint.Component(name); is || name == postgresComponent {
			continue
		}
		names = append(names, name)
	}
	if changed, err = p.drop(ctx, s, names...); err != nil {
		return changed, err
	}
	return changed, p.takeAway(s, names...)
}

// keep has the container of a component run a release.
func (p *Platform) keep(ctx context.Context, s platform.Set, r platform.Release, c blueprint.Component) (changed bool, err error) {
	if p.door != nil {
		return p.ask(ctx, askKeep, c.Name)
	}
	image, changed, err := p.image(ctx, s.Blueprint, r)
	if err != nil {
		return changed, err
	}
	if keepsSocket(c) {
		did, err := p.keepSocket(ctx, r, c, image)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	unit, err := p.unit(ctx, s, r, c, image)
	if err != nil {
		return changed, err
	}
	did, err := p.Engine.Apply(ctx, unit)
	return changed || did, err
}

// drop stops and removes the containers of components.
func (p *Platform) drop(ctx context.Context, s platform.Set, components ...string) (changed bool, err error) {
	if p.door != nil {
		return p.ask(ctx, askDrop, components...)
	}
	var names []string
	for _, c := range components {
		names = append(names, unitName(s, c))
	}
	return p.Engine.Remove(ctx, names...)
}

// Start implements platform.Platform.
func (p *Platform) Start(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	if changed, err = p.prepare(ctx, s, r); err != nil {
		return changed, err
	}
	if err := p.Machine.HandOverData(ctx, s); err != nil {
		return changed, err
	}
	for _, wave := range s.Blueprint.Waves() {
		for _, c := range wave {
			if err := p.give(ctx, s, r, c); err != nil {
				return changed, fmt.Errorf("%s of %s: %w", c.Name, s.Name(), err)
			}
			did, err := p.keep(ctx, s, r, c)
			if changed = changed || did; err != nil {
				return changed, fmt.Errorf("%s of %s: %w", c.Name, s.Name(), err)
			}
		}
		if s.Tenant.IsZero() {
			for _, c := range wave {
				did, err := p.backInto(ctx, unitName(s, c.Name), c.Name)
				if changed = changed || did; err != nil {
					return changed, err
				}
			}
		}
		for _, c := range wave {
			if err := p.await(ctx, s, c); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// Stop implements platform.Platform: the waves in the other order. A database server of the set's own stays: what is kept of the set is
// read there, for a backup or to be taken along.
func (p *Platform) Stop(ctx context.Context, s platform.Set) (changed bool, err error) {
	waves := s.Blueprint.Waves()
	for _, wave := range slices.Backward(waves) {
		var names []string
		for _, c := range wave {
			names = append(names, c.Name)
		}
		did, err := p.drop(ctx, s, names...)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	if p.door == nil {
		did, err := p.dropOthers(ctx, s)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	var all []string
	for _, c := range s.Blueprint.Components {
		all = append(all, c.Name)
	}
	return changed, p.takeAway(s, all...)
}

// StopHolders stops the components of a set that use its database, and leaves the others at work.
func (p *Platform) StopHolders(ctx context.Context, s platform.Set) (changed bool, err error) {
	var names []string
	for _, c := range s.Blueprint.Components {
		if len(c.Needs.Database) > 0 {
			names = append(names, c.Name)
		}
	}
	return p.drop(ctx, s, names...)
}

// Placed implements platform.Platform.
func (p *Platform) Placed(ctx context.Context, s platform.Set, r platform.Release) (*registryv1.ServiceSet, error) {
	return p.Machine.Placed(ctx, s, r)
}

// Close ends what the platform holds open.
func (p *Platform) Close() error {
	if p.Engine == nil {
		return nil
	}
	return p.Engine.Close()
}
