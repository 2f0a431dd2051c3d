package docker

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// stopWithin is more than the gateway takes to see its clients off.
const stopWithin = 25 * time.Second

// reads is what a component is told, and the files that this names.
func (p *Platform) reads(ctx context.Context, s platform.Set, r platform.Release, c blueprint.Component) (*secrets, blueprint.Facts, error) {
	user, err := p.Machine.User(ctx, s, c.Name)
	if err != nil {
		return nil, blueprint.Facts{}, err
	}
	secrets, err := p.secretsOf(s, c.Name, user)
	if err != nil {
		return nil, blueprint.Facts{}, err
	}
	facts, err := p.facts(s, r, c, secrets)
	return secrets, facts, err
}

// give puts the files of a component where its container finds them.
func (p *Platform) give(ctx context.Context, s platform.Set, r platform.Release, c blueprint.Component) error {
	secrets, _, err := p.reads(ctx, s, r, c)
	if err != nil {
		return err
	}
	if err := secrets.put(); err != nil {
		return fmt.Errorf("put its secrets where it reads them: %w", err)
	}
	return nil
}

// unit is the container of a component, whose files were given to it.
func (p *Platform) unit(ctx context.Context, s platform.Set, r platform.Release, c blueprint.Component, image string) (container.Unit, error) {
	secrets, facts, err := p.reads(ctx, s, r, c)
	if err != nil {
		return container.Unit{}, err
	}
	env, err := facts.Environ(s.Blueprint.Env, c.Env)
	if err != nil {
		return container.Unit{}, err
	}
	links, err := p.links(s, c)
	if err != nil {
		return container.Unit{}, err
	}
	unit := container.Unit{
		Name: unitName(s, c.Name), Group: s.Name(), Release: r.String(), Image: image, Args: c.Command, Env: append(env, local.PassedOn(os.Environ())...),
		User: secrets.user.UID, Groups: secrets.user.Groups, Mounts: append(secrets.mounts(), p.dataMounts(s, c)...), Links: links, Limits: limits(c.Resources), StopWithin: stopWithin,
		Resolves: c.Needs.Outside,
	}
	if len(c.Health.Check) > 0 {
		url, err := p.healthURL(s, c)
		if err != nil {
			return container.Unit{}, err
		}
		unit.Healthy = slices.Concat([]string{"/" + s.Blueprint.Artefact}, c.Health.Check, []string{url})
	}
	if keepsSocket(c) {
		unit.Mounts = append(unit.Mounts, container.Mount{From: p.keeperPlace(), To: keeperDir, ReadOnly: true, Own: true})
	} else if c.Needs.FrontDoor {
		if unit.Publish, err = front(p.Settings); err != nil {
			return container.Unit{}, err
		}
		unit.Port = portOf(c, "api")
	}
	return unit, nil
}

func limits(r blueprint.Resources) container.Limits {
	if r.Memory == 0 {
		r.Memory = blueprint.DefaultResources.Memory
	}
	if r.CPU == 0 {
		r.CPU = blueprint.DefaultResources.CPU
	}
	if r.PIDs == 0 {
		r.PIDs = blueprint.DefaultResources.PIDs
	}
	const billion = 1e9
	// An engine refuses more processors than the machine has.
	return container.Limits{Memory: int64(r.Memory), NanoCPUs: int64(min(r.CPU, float64(runtime.NumCPU())) * billion), PIDs: int64(r.PIDs)}
}

// dataMounts are a component's own directory, and the stores that it writes or reads.
func (p *Platform) dataMounts(s platform.Set, c blueprint.Component) []container.Mount {
	files := p.Machine.Files(s)
	out := []container.Mount{{From: files.State(c.Name), To: stateDir}}
	for _, store := range c.Needs.Stores {
		out = append(out, container.Mount{From: files.Store(store), To: storeDir + store})
	}
	for _, store := range c.Needs.ReadsStores {
		out = append(out, container.Mount{From: files.Store(store), To: storeDir + store, ReadOnly: true})
	}
	return out
}

// Zone implements local.Places: containers are at addresses.
func (p *Platform) Zone() string { return "" }

func portOf(c blueprint.Component, port string) uint16 {
	const first = 7443
	return first + uint16(max(0, slices.Index(c.Ports, port))) //nolint:gosec // a component has a handful
}

func (p *Platform) healthURL(s platform.Set, c blueprint.Component) (string, error) {
	addr, err := p.Address(s, c.Name, c.Health.Port)
	return "http://" + addr + c.Health.Path, err
}

// Address implements local.Places: a component's in its own set's network.
func (p *Platform) Address(s platform.Set, component, port string) (string, error) {
	if s.Tenant.IsZero() {
		s = p.Own
	}
	c, ok := s.Blueprint.Component(component)
	if !ok {
		return "", fmt.Errorf("%s has no component %q", s.Blueprint.Name, component)
	}
	host, err := p.State.Host(network(s), component)
	return host.String() + ":" + strconv.Itoa(int(portOf(c, port))), err
}
