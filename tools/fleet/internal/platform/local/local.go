// Package local carries sets out as processes of this machine: PostgreSQL, keys, certificates and stores are made here, and a
// supervisor keeps the processes. It promises that every step can be repeated, changes nothing that is as it should be, and is taken
// up where a killed one was; that what it makes for one tenant names that tenant and is told to nobody else. What a set consists of
// it learns from a blueprint.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// Orders in which units start; a set's waves count on from its own.
const (
	orderServers = 0
	orderPlane   = 10
	orderTenants = 20
	// The front door opens last and closes first.
	orderFront = 90
)

// Platform is this machine.
type Platform struct {
	// Settings, State and Supervisor of the plane.
	Settings   settings.Settings
	State      *state.State
	Supervisor *supervise.Client
	// Own is the plane's own set, whose keys sign the marks of every set.
	Own platform.Set
	// Programs are files that artefacts are fetched from, where one has the digest that a release says: what was built here.
	Programs []string
	// Postgres is the plane's server, Sample the one with an invented company to discover; both there after Servers.
	Postgres, Sample *Server
	// Places is where things are that don't stand on this machine's loopback; nil where all do.
	Places Places
	// Now is the clock.
	Now func() time.Time

	// templates is held by who looks for a template, or makes one.
	templates sync.Mutex
	// delegated says that this process reaches one set alone; environ is then what processes get of the environment.
	delegated bool
	environ   []string
	// separated and readsMachine are then what that one found this machine to be able to: a process that is kept to some files reads its own
	// rights in /proc only for as long as the kernel remembers the very directory that it was let into.
	separated, readsMachine bool
}

// Name implements platform.Platform.
func (p *Platform) Name() string { return "local" }

// Where implements platform.Platform: the account is this host, and the plane on it.
func (p *Platform) Where(context.Context) (platform.Where, error) {
	host, err := os.Hostname()
	if err != nil {
		return platform.Where{}, fmt.Errorf("ask for the host's name: %w", err)
	}
	return platform.Where{Account: host + "/" + p.State.ID, Region: "local"}, nil
}

func (p *Platform) home(parts ...string) string {
	return filepath.Join(append([]string{p.Settings.Home}, parts...)...)
}

// served is where what processes read lies: below the home, unless users of their own could not get there.
func (p *Platform) served(parts ...string) string {
	if p.State.Served == "" {
		return p.home(parts...)
	}
	return filepath.Join(append([]string{p.State.Served}, parts...)...)
}

// dir is where a set has its files.
func (p *Platform) dir(s platform.Set, parts ...string) string {
	if s.Tenant.IsZero() {
		return p.served(append([]string{"plane"}, parts...)...)
	}
	return p.served(append([]string{"tenants", s.Name()}, parts...)...)
}

func (p *Platform) domain(s platform.Set) workload.TrustDomain {
	return workload.TrustDomain{Plane: p.State.Plane, Tenant: s.Tenant}
}

// Address is where a component of a set listens.
func (p *Platform) Address(s platform.Set, component, port string) (string, error) {
	if p.Places != nil {
		return p.Places.Address(s, component, port)
	}
	n, err := p.State.Port(portName(s, component, port))
	if err != nil {
		return "", err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n)), nil
}

// portName is what the state remembers a port of a component by.
func portName(s platform.Set, component, port string) string {
	return s.Name() + "/" + component + "/" + port
}

// unitName is what the supervisor knows a component by.
func unitName(s platform.Set, component string) string { return s.Name() + "/" + component }

// Components implements platform.Platform.
func (p *Platform) Components(ctx context.Context, s platform.Set) ([]platform.ComponentStatus, error) {
	all, err := p.Census(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all[s.Name()], func(c platform.ComponentStatus) bool {
		_, known := s.Blueprint.Component(c.Name)
		return !known
	}), nil
}

// ownUnits are what this platform runs for a set besides its components.
var ownUnits = []string{PostgresUnit, machineReader}

// KeptBeside implements platform.Keeper.
func (p *Platform) KeptBeside() []string { return append(slices.Clone(ownUnits), migrator) }

// Census implements platform.Census.
func (p *Platform) Census(ctx context.Context) (map[string][]platform.ComponentStatus, error) {
	units, err := p.Supervisor.States(ctx)
	if err != nil {
		return nil, err
	}
	states := map[supervise.State]platform.ComponentState{supervise.Starting: platform.Starting, supervise.Serving: platform.Serving,
		supervise.NotReady: platform.NotReady, supervise.NotAnswering: platform.NotAnswering,
		supervise.BackingOff: platform.Failing, supervise.Stopping: platform.Stopping, supervise.Stopped: platform.Stopping}
	out := map[string][]platform.ComponentStatus{}
	for _, u := range units {
		component := strings.TrimPrefix(u.Name, u.Group+"/")
		if slices.Contains(ownUnits, component) {
			continue
		}
		c := platform.ComponentStatus{Name: component, State: states[u.State], Release: u.Release, Restarts: u.Restarts, Well: u.Well, Anew: u.Anew()}
		if u.PID != 0 {
			c.Since = u.Since
		}
		if c.State == platform.Failing {
			c.Detail = u.LastExit
		}
		out[u.Group] = append(out[u.Group], c)
	}
	return out, nil
}

// expendable is how readily the kernel ends a service rather than a database, when the machine has no memory left: what it was doing is
// done again.
const expendable = 500

// bounded is what a component may take, as the supervisor is told.
func bounded(r blueprint.Resources) supervise.Resources {
	return supervise.Resources{Memory: int64(r.Memory), CPU: r.CPU, PIDs: int64(r.PIDs)}
}

// stopWithin is more than the gateway takes to see its clients off.
const stopWithin = 25 * time.Second

func (p *Platform) unit(ctx context.Context, s platform.Set, r platform.Release, c blueprint.Component, wave int) (supervise.Unit, error) {
	facts, err := p.facts(s, r, c)
	if err != nil {
		return supervise.Unit{}, err
	}
	env, err := facts.Environ(s.Blueprint.Env, c.Env)
	if err != nil {
		return supervise.Unit{}, err
	}
	user, err := p.user(ctx, s, c.Name)
	if err != nil {
		return supervise.Unit{}, err
	}
	program, err := p.program(s.Blueprint, r)
	if err != nil {
		return supervise.Unit{}, err
	}
	unit, err := p.unitOf(s, r, c, wave)
	if err != nil {
		return supervise.Unit{}, err
	}
	unit.Path, unit.Args, unit.Env, unit.Dir, unit.User = program, c.Command, append(env, p.passedOn()...), facts.StateDir, user
	return unit, nil
}

// unitOf is what a component's unit is to the supervisor, without what its process is given. Who lends work on a set away says it in the token,
// for every unit of the set: it takes nothing that comes into being with the work.
func (p *Platform) unitOf(s platform.Set, r platform.Release, c blueprint.Component, wave int) (supervise.Unit, error) {
	order := orderTenants
	switch {
	case c.Needs.FrontDoor:
		order = orderFront
	case s.Tenant.IsZero():
		order = orderPlane
	}
	unit := supervise.Unit{
		Name: unitName(s, c.Name), Group: s.Name(), Order: order + wave, Release: r.String(),
		Log: p.home("log", s.Name(), c.Name+".log"), StopWithin: stopWithin, Resources: bounded(c.Resources), Expendable: expendable,
	}
	if c.Needs.FrontDoor {
		unit.Listens = p.Settings.Address()
	}
	if c.Health.Port != "" {
		if !slices.Contains(c.Ports, c.Health.Port) {
			return supervise.Unit{}, fmt.Errorf("%s has no port %q to ask for its health", c.Name, c.Health.Port)
		}
		addr, err := p.listensAt(s, c, c.Health.Port)
		if err != nil {
			return supervise.Unit{}, err
		}
		unit.Ready = "http://" + addr + c.Health.Path
	}
	return unit, nil
}

// listensAt is where a component listens on one of its ports.
func (p *Platform) listensAt(s platform.Set, c blueprint.Component, port string) (string, error) {
	if c.Needs.FrontDoor && port == "api" {
		return p.Settings.Address(), nil
	}
	return p.Address(s, c.Name, port)
}

func (p *Platform) passedOn() []string {
	if p.delegated {
		return p.environ
	}
	return passedOn(os.Environ())
}

// passedOn is what every process gets of the caller's environment: what belongs to any Go process, and to telemetry. One token is no tenant's to
// hold, and whoever may look at a process or ask a container engine sees what they are told: what is withheld is for a collector to add.
func passedOn(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, telemetry) && !credential(name, value) || slices.Contains([]string{"GOMEMLIMIT", "GOGC", "TZ"}, name) {
			out = append(out, kv)
		}
	}
	slices.Sort(out)
	return out
}

// telemetry begins the names of OpenTelemetry's own variables.
const telemetry = "OTEL_"

// credential says of a variable for telemetry that it is for whoever holds one: headers, where tokens are, a key, an address with a password.
func credential(name, value string) bool {
	at, err := url.Parse(value)
	return strings.HasSuffix(name, "_HEADERS") || strings.HasSuffix(name, "_KEY") || err == nil && at.User != nil
}

// Withheld names what no process gets of the caller's environment though it is for telemetry.
func Withheld(environ []string) []string {
	var out []string
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, telemetry) && credential(name, value) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// facts are what the platform knows about a component: what the component needs, and no more.
func (p *Platform) facts(s platform.Set, r platform.Release, c blueprint.Component) (blueprint.Facts, error) {
	f := blueprint.Facts{
		Plane: p.State.Plane, Release: r.String(), LogLevel: p.Settings.LogLevel,
		Certificates: p.dir(s, "components", c.Name, "certificate"), StateDir: p.stateDir(s, c.Name),
		PlaneRoots: p.served("pki", "roots.pem"), Domain: p.Settings.Domain, ApexSlug: p.Settings.Apex(),
		TenantRate:  strconv.FormatFloat(p.Settings.TenantRate, 'f', -1, 64),
		CORSOrigins: strings.Join(p.Settings.CORSOrigins, ","),
		SetNetworks: "127.0.0.0/8",
		Addresses:   map[string]string{}, PeerAddresses: map[string]map[string]string{}, PlaneAddresses: map[string]string{},
		DatabaseURLs: map[string]string{}, KeyFiles: map[string]string{}, PublicKeys: map[string]string{}, StoreDirs: map[string]string{},
	}
	if !s.Tenant.IsZero() {
		f.Tenant, f.Slug, f.URL = s.Tenant.String(), s.Slug, p.Settings.URL(s.Slug)
		f.TenantRoots = p.dir(s, "pki", "roots.pem")
		f.MachineAllowed = p.MachineIsFor(s.Slug)
		if r := s.Blueprint.MachineReader; r != nil && r.Client == c.Name {
			f.Machine = &blueprint.Machine{}
			if p.keepsMachineReader(s) {
				f.Machine.Socket = p.machineSocket(s)
			}
		}
		if p.Sample != nil && p.SampleIsFor(s.Slug) {
			f.AllowedAddresses = p.Sample.Address()
		}
	}
	if p.Places != nil {
		f.SetZone = p.Places.Zone()
	}
	var err error
	if f.MarkKeys, err = p.markKeys(); err != nil {
		return f, err
	}
	if f.ReleaseKeys, err = p.ReleaseKeys(); err != nil {
		return f, err
	}
	if f.LicenceKeys, err = p.LicenceKeys(); err != nil {
		return f, err
	}
	err = errors.Join(p.addresses(&f, s, c), p.credentials(&f, s, c))
	return f, err
}

// SampleIsFor says whether a tenant discovers the sample server: the first one of a plane for development does.
func (p *Platform) SampleIsFor(slug string) bool {
	return p.State.Plane != "prod" && p.Settings.Tenants[0] == slug
}

// MachineIsFor says whether a tenant may read this machine.
func (p *Platform) MachineIsFor(slug string) bool {
	return slices.Contains(p.Settings.MachineTenants, slug)
}

func (p *Platform) addresses(f *blueprint.Facts, s platform.Set, c blueprint.Component) error {
	for _, peer := range s.Blueprint.Components {
		f.PeerAddresses[peer.Name] = map[string]string{}
		for _, port := range peer.Ports {
			addr, err := p.listensAt(s, peer, port)
			if err != nil {
				return err
			}
			f.PeerAddresses[peer.Name][port] = addr
		}
	}
	f.Addresses = f.PeerAddresses[c.Name]
	for _, name := range c.Needs.Plane {
		addr, err := p.Address(platform.Set{}, name, "api")
		if err != nil {
			return err
		}
		f.PlaneAddresses[name] = addr
	}
	reserved, err := p.reserved(s)
	f.ReservedAddresses = strings.Join(reserved, ",")
	return err
}

// reserved are the addresses of the platform's own servers, and of the set's own.
func (p *Platform) reserved(s platform.Set) ([]string, error) {
	out := []string{p.Settings.Dial()}
	if p.hasOwnServer(s) {
		own, err := p.ownServer(s)
		if err != nil {
			return nil, err
		}
		out = append(out, own.Address())
	}
	for _, server := range []*Server{p.Postgres, p.Sample} {
		if server != nil {
			out = append(out, server.Address())
		}
	}
	for name, port := range p.State.Ports() {
		if strings.HasPrefix(name, string(blueprint.ScopePlane)+"/") {
			if addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)); !slices.Contains(out, addr) {
				out = append(out, addr)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}
