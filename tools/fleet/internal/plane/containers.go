package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/docker"
	"a3os.app/tools/fleet/internal/standing"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// carrier carries sets out, stops those components of one that use its database, and lets an admin in again with their own program.
type carrier interface {
	platform.Platform
	StopHolders(ctx context.Context, s platform.Set) (changed bool, err error)
	RecoverAdmin(ctx context.Context, s platform.Set, r blueprint.Recovery) error
}

func (p *Plane) carrier() carrier {
	switch {
	case p.docker != nil:
		return p.docker
	case p.aws != nil:
		return p.aws
	}
	return p.platform
}

// choosePlatform takes the platform that the plane was made on, or, for a new one, that the settings name.
func (p *Plane) choosePlatform() error {
	made := p.state.Platform
	if made == "" && state.Exists(p.Settings.Home) {
		made = p.platform.Name()
	}
	wanted := p.Settings.Platform
	switch {
	case made == "" && (wanted == docker.Name || wanted == aws.Name):
		p.state.Platform = wanted
	case wanted != "" && made != "" && wanted != made:
		return fmt.Errorf("the plane in %s is one of platform %s and A3_PLATFORM is %s: a plane stays on the platform that it was made on; choose another place with A3_HOME", p.Settings.Home, made, wanted)
	}
	if p.state.Platform == aws.Name {
		if p.Settings.AWS.Region == "" {
			return fmt.Errorf("the plane in %s is one of platform aws and A3_AWS_REGION is empty: name the Region that its tenants are in", p.Settings.Home)
		}
		if wanted == "" {
			// Without it the settings are another platform's, hosts' ports among them.
			return fmt.Errorf("the plane in %s is one of platform aws and A3_PLATFORM is empty: set A3_PLATFORM=aws, and the variables that it was made with", p.Settings.Home)
		}
		p.aws = &aws.Platform{Note: p.report.Note, Settings: p.Settings, State: p.state, Own: p.own, Tenants: p.blueprint, Machine: p.platform}
		p.platform.Places = p.aws
	}
	if p.state.Platform != docker.Name {
		return nil
	}
	if why := docker.Possible(); why != "" {
		return fmt.Errorf("platform docker works as root alone: %s", why)
	}
	p.docker = &docker.Platform{Note: p.report.Note, Settings: p.Settings, State: p.state, Own: p.own, Tenants: p.blueprint, Machine: p.platform}
	p.platform.Places = p.docker
	return nil
}

// engine connects to the Docker engine, once.
func (p *Plane) engine(ctx context.Context) error {
	if p.docker.Engine != nil {
		return nil
	}
	var err error
	p.docker.Engine, err = container.Open(ctx, p.state.ID)
	return err
}

// useServers says which PostgreSQL servers there are.
func (p *Plane) useServers(ctx context.Context, binaries pgserver.Binaries) (err error) {
	if p.docker != nil {
		p.docker.Binaries = binaries
		return p.engine(ctx)
	}
	if p.platform.Postgres, err = p.platform.NewServer(binaries, "postgres"); err != nil {
		return err
	}
	p.platform.Sample, err = p.platform.NewServer(binaries, "sample-postgres")
	return err
}

// groundIs is what sets stand on, for whoever watches.
func (p *Plane) groundIs() string {
	if p.aws != nil {
		return "the plane's stack at AWS"
	}
	if p.docker != nil {
		return "networks, packet filter and PostgreSQL " + p.docker.Binaries.Version
	}
	return "PostgreSQL " + p.platform.Postgres.Binaries().Version
}

func (p *Plane) ground(ctx context.Context) (changed bool, err error) {
	if p.docker != nil {
		return p.docker.Ground(ctx)
	}
	if p.aws != nil {
		return false, nil // an administrator deployed it, and Identity looked for it
	}
	return p.platform.Serve(ctx, p.platform.Postgres)
}

// hasSample says whether tenants of the plane find an invented company beside them: on AWS this machine is none that their tasks reach.
func (p *Plane) hasSample() bool { return !p.another() && p.aws == nil }

func (p *Plane) serveSample(ctx context.Context) (changed bool, err error) {
	if !p.hasSample() {
		return false, nil
	}
	if p.docker != nil {
		return p.docker.ServeSample(ctx)
	}
	return p.platform.Serve(ctx, p.platform.Sample)
}

func (p *Plane) sampleURL(database string) (string, error) {
	if p.docker != nil {
		return p.docker.SampleURL(database)
	}
	return p.platform.Sample.URL(database)
}

// sampleAddress is where a tenant's discovery reaches the sample server.
func (p *Plane) sampleAddress(t state.Tenant) (host string, port int) {
	if p.docker == nil {
		return "127.0.0.1", p.platform.Sample.Port()
	}
	at, err := p.docker.SampleFor(p.setOf(t))
	if err != nil {
		return "", 0 // the set isn't started yet: whoever connects is told
	}
	return at.Addr().String(), int(at.Port())
}

// processes are those of the supervisor, or the plane's containers told in the same words.
func (p *Plane) processes(ctx context.Context) ([]supervise.Status, error) {
	out, err := p.supervisor.Status(ctx)
	if err == nil && p.aws != nil {
		return p.tasks(ctx, out)
	}
	if err != nil || p.docker == nil {
		return out, err
	}
	if err := p.engine(ctx); err != nil {
		return nil, err
	}
	all, err := p.docker.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	states := map[platform.ComponentState]supervise.State{platform.Starting: supervise.Starting, platform.Serving: supervise.Serving,
		platform.Failing: supervise.BackingOff, platform.Stopping: supervise.Stopping}
	for _, c := range all {
		st := states[docker.StateOf(c)]
		switch {
		case c.PID != 0 && st == supervise.BackingOff:
			st = supervise.NotAnswering
		case c.State == "exited": // the engine starts again what ended by itself, and leaves what somebody ended through it
			st = supervise.Stopped
		}
		out = append(out, supervise.Status{Name: c.Name, Group: c.Group, State: st, PID: c.PID, Since: c.Since, Restarts: c.Restarts,
			LastExit: c.LastExit, Log: p.docker.LogOf(c.Name)})
	}
	return out, nil
}

// serversBehind is about database servers that run from files which the machine has updated since.
func (p *Plane) serversBehind(ctx context.Context, slugs map[string]string) ([]standing.Finding, error) {
	if p.docker == nil || p.state.Postgres == nil {
		return nil, nil
	}
	// As the plane found it when it was started: who looks fetches none.
	p.docker.Binaries = p.state.Postgres.Binaries
	units, err := p.docker.Behind(ctx)
	if err != nil || len(units) == 0 {
		return nil, err
	}
	var names []string
	for _, unit := range units {
		group, component, _ := strings.Cut(unit, "/")
		names = append(names, component+" of "+cmp.Or(slugs[group], "the plane"))
	}
	return []standing.Finding{{Kind: "postgres_behind", Severity: standing.Warning, Next: "fleet plane up: docs/operations.md#a-database-server-is-behind",
		Reason: "database servers run as PostgreSQL, its libraries and the time zones were before this machine updated them: " + strings.Join(names, ", ")}}, nil
}

// world is what the sets hold, for a proof of isolation.
func (p *Plane) world(ctx context.Context, sets []platform.Set, processes []supervise.Status) (*isolation.World, error) {
	if p.docker != nil {
		return p.docker.World(ctx, sets, pidsOf(processes))
	}
	if p.aws != nil {
		return p.aws.World(ctx, sets, pidsOf(processes))
	}
	return p.platform.World(sets, pidsOf(processes))
}

// handOverRenewed gives containers what was renewed on the machine.
func (p *Plane) handOverRenewed(ctx context.Context) error {
	if p.docker == nil {
		return nil
	}
	errs := []error{p.docker.HandOver(ctx, p.own)}
	for _, t := range p.state.Tenants() {
		if !t.ID.IsZero() {
			errs = append(errs, p.docker.HandOver(ctx, p.setOf(t)))
		}
	}
	return errors.Join(errs...)
}

// containersFrontIsOurs says whether the plane's own gateway is published at the address of the settings.
func (p *Plane) containersFrontIsOurs(ctx context.Context, st *state.State) bool {
	engine, err := container.Open(ctx, st.ID)
	if err != nil || st.Front != p.Settings.Address() {
		return false
	}
	defer engine.Close()
	all, err := engine.Status(ctx, p.own.Name())
	return err == nil && slices.ContainsFunc(all, func(c container.Status) bool {
		component, known := p.own.Blueprint.Component(strings.TrimPrefix(c.Name, p.own.Name()+"/"))
		return (known && component.Needs.FrontDoor || docker.KeepsFront(c)) && c.PID != 0
	})
}

// containersDown stops the plane's containers and takes away what belongs to them.
func (p *Plane) containersDown(ctx context.Context) (changed bool, err error) {
	if !state.Exists(p.Settings.Home) {
		return false, nil
	}
	// What the tenants have is of no interest any more, and its blueprint may be gone.
	if p.state, err = state.Open(p.Settings.Home); err != nil {
		return false, err
	}
	if err := p.usePlatform(); err != nil || p.docker == nil {
		return false, err
	}
	if err := p.engine(ctx); err != nil {
		return false, err
	}
	return p.docker.Down(ctx)
}

// forgetContainers removes the images of a plane whose containers are gone, and answers where else its data lie.
func (p *Plane) forgetContainers(ctx context.Context) []string {
	if p.docker == nil || p.docker.Engine == nil {
		return nil
	}
	if err := p.docker.Forget(ctx); err != nil {
		p.report.Note("images of the plane stay with the engine: " + err.Error())
	}
	return p.docker.DataDirs()
}

// containerWalls says how containers are kept apart, and what isn't.
func (p *Plane) containerWalls(ctx context.Context) []string {
	if err := p.engine(ctx); err != nil {
		return []string{err.Error()}
	}
	return p.docker.Walls(ctx)
}
