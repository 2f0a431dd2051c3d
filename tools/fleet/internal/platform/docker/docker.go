// Package docker carries sets out as containers of this machine: each tenant's on a network of its own, which reaches no other one, not
// the machine and not the control plane but by the doors that are there for it. Keys, certificates and stores are kept as platform local
// keeps them, root's alone; what a container may read of them lies on a tmpfs of the plane. It promises what local promises, and that it
// touches nothing on the engine without the plane's label. What a set consists of it learns from a blueprint.
package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

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
	if s.Blueprint.Database != nil && !s.Tenant.IsZero() && !s.Dedicated() {
		names = append(names, databasesNetwork)
	}
	for _, name := range names {
		if _, err := p.State.Subnet(name, p.Settings.Networks, takenSubnets); err != nil {
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
	if changed, err = p.networksOf(ctx, s); err != nil {
		return changed, err
	}
	if s.Tenant.IsZero() {
		server, err := p.serverOf(s)
		if err != nil {
			return changed, err
		}
		did, err := p.serve(ctx, server)
		if changed = changed || did; err != nil {
			return changed, err
		}
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

// Start implements platform.Platform.
func (p *Platform) Start(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	if changed, err = p.networksOf(ctx, s); err != nil {
		return changed, err
	}
	if err := p.Machine.HandOverData(ctx, s); err != nil {
		return changed, err
	}
	if err := p.State.SetRuns(s.Name(), r.String()); err != nil {
		return changed, err
	}
	image, did, err := p.image(ctx, s.Blueprint, r)
	if changed = changed || did; err != nil {
		return changed, err
	}
	for _, wave := range s.Blueprint.Waves() {
		for _, c := range wave {
			if keepsSocket(c) {
				did, err := p.keepSocket(ctx, r, c, image)
				if changed = changed || did; err != nil {
					return changed, err
				}
			}
			unit, err := p.unit(ctx, s, r, c, image)
			if err != nil {
				return changed, fmt.Errorf("%s of %s: %w", c.Name, s.Name(), err)
			}
			did, err := p.Engine.Apply(ctx, unit)
			if changed = changed || did; err != nil {
				return changed, err
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
			names = append(names, unitName(s, c.Name))
		}
		did, err := p.Engine.Remove(ctx, names...)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	var errs []error
	for _, c := range s.Blueprint.Components {
		errs = append(errs, os.RemoveAll(filepath.Join(p.SecretsDir(), s.Name(), c.Name)))
	}
	return changed, errors.Join(errs...)
}

// StopHolders stops the components of a set that use its database, and leaves the others at work.
func (p *Platform) StopHolders(ctx context.Context, s platform.Set) (changed bool, err error) {
	var names []string
	for _, c := range s.Blueprint.Components {
		if len(c.Needs.Database) > 0 {
			names = append(names, unitName(s, c.Name))
		}
	}
	return p.Engine.Remove(ctx, names...)
}

// Placed implements platform.Platform.
func (p *Platform) Placed(ctx context.Context, s platform.Set, r platform.Release) (*registryv1.ServiceSet, error) {
	return p.Machine.Placed(ctx, s, r)
}

// Components implements platform.Platform.
func (p *Platform) Components(ctx context.Context, s platform.Set) ([]platform.ComponentStatus, error) {
	all, err := p.Status(ctx, s.Name())
	if err != nil {
		return nil, err
	}
	var out []platform.ComponentStatus
	for _, c := range all {
		name := strings.TrimPrefix(c.Name, s.Name()+"/")
		if _, known := s.Blueprint.Component(name); !known {
			continue
		}
		out = append(out, statusOf(name, c))
	}
	return out, nil
}

func statusOf(name string, c container.Status) platform.ComponentStatus {
	status := platform.ComponentStatus{Name: name, State: StateOf(c), Release: c.Release, Restarts: c.Restarts}
	if c.PID != 0 {
		status.Since = c.Since
	}
	if status.State == platform.Failing {
		status.Detail = c.LastExit
	}
	return status
}

// Census implements platform.Census. Database servers are the platform's own.
func (p *Platform) Census(ctx context.Context) (map[string][]platform.ComponentStatus, error) {
	all, err := p.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	out := map[string][]platform.ComponentStatus{}
	for _, c := range all {
		name := strings.TrimPrefix(c.Name, c.Group+"/")
		if name == postgresComponent || slices.Contains([]string{databasesUnit, sampleUnit, frontUnit}, c.Name) {
			continue
		}
		out[c.Group] = append(out[c.Group], statusOf(name, c))
	}
	return out, nil
}

// Status of the plane's containers, or of one group's. An engine asks one that was just started only after a while: until then it is
// asked here.
func (p *Platform) Status(ctx context.Context, group string) ([]container.Status, error) {
	all, err := p.Engine.Status(ctx, group)
	for i, c := range all {
		if c.Health == "starting" && p.answers(ctx, c.Name) {
			all[i].Health = "healthy"
		}
	}
	return all, err
}

// StateOf is how a container is, in the words of a component.
func StateOf(c container.Status) platform.ComponentState {
	switch {
	case c.State == "running" && c.Health == "unhealthy", c.State != "running" && c.State != "created":
		return platform.Failing
	case c.State == "created", c.Health == "starting":
		return platform.Starting
	default:
		return platform.Serving
	}
}

// stopWithin is more than the gateway takes to see its clients off.
const stopWithin = 25 * time.Second

func (p *Platform) unit(ctx context.Context, s platform.Set, r platform.Release, c blueprint.Component, image string) (container.Unit, error) {
	user, err := p.Machine.User(ctx, s, c.Name)
	if err != nil {
		return container.Unit{}, err
	}
	secrets, err := p.secretsOf(s, c.Name, user)
	if err != nil {
		return container.Unit{}, err
	}
	facts, err := p.facts(s, r, c, secrets)
	if err != nil {
		return container.Unit{}, err
	}
	if err := secrets.put(); err != nil {
		return container.Unit{}, fmt.Errorf("put its secrets where it reads them: %w", err)
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
		User: user.UID, Groups: user.Groups, Mounts: append(secrets.mounts(), p.dataMounts(s, c)...), Links: links, Limits: limits(c.Resources), StopWithin: stopWithin,
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
		unit.Mounts = append(unit.Mounts, container.Mount{From: p.keeperPlace(), To: keeperDir, ReadOnly: true})
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

// Close ends what the platform holds open.
func (p *Platform) Close() error {
	if p.Engine == nil {
		return nil
	}
	return p.Engine.Close()
}

// Migrate implements platform.Platform: once for each release.
func (p *Platform) Migrate(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil || len(d.Migrate.Command) == 0 || p.State.Migrated[s.Name()] == r.String() {
		return false, nil
	}
	user, err := p.Machine.User(ctx, s, local.Migrator)
	if err != nil {
		return false, err
	}
	secrets, err := p.secretsOf(s, local.Migrator, user)
	if err != nil {
		return false, err
	}
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), Release: r.String(), LogLevel: p.Settings.LogLevel,
		OwnerURL: secrets.file(p.Machine.Files(s).URL(local.OwnerRole), "owner.url"), RoleNames: map[string]string{}}
	for name := range d.Roles {
		facts.RoleNames[name] = local.RealRole(s, name)
	}
	const most = 10 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	said, code, err := p.once(ctx, s, r, secrets, d.Migrate.Command, func() ([]string, error) { return facts.Environ(d.Migrate.Env) })
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with %d: %s", code, said)
	}
	if err != nil {
		return false, fmt.Errorf("migrate database %s: %w", local.DatabaseName(s), err)
	}
	return true, p.State.SetMigrated(s.Name(), r.String())
}

// once runs the artefact to its end in a container of the set's network, with secrets that are taken away after it, and answers the last
// line of what it said.
func (p *Platform) once(ctx context.Context, s platform.Set, r platform.Release, secrets *secrets, args []string, environ func() ([]string, error)) (last string, code int, err error) {
	image, _, err := p.image(ctx, s.Blueprint, r)
	if err != nil {
		return "", 0, err
	}
	env, err := environ()
	if err != nil {
		return "", 0, err
	}
	if err := secrets.put(); err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, secrets.takeAway()) }()
	at, err := p.State.Host(network(s), secrets.component)
	if err != nil {
		return "", 0, err
	}
	said, code, err := p.Engine.Run(ctx, container.Unit{
		Name: unitName(s, secrets.component), Group: s.Name(), Release: r.String(), Image: image, Args: args, Env: env, User: secrets.user.UID, Groups: secrets.user.Groups,
		Mounts: secrets.mounts(), Links: []container.Link{{Network: p.Engine.Thing(network(s)), Address: at}}, Limits: limits(blueprint.DefaultResources),
	})
	lines := strings.Split(said, "\n")
	return lines[len(lines)-1], code, err
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
