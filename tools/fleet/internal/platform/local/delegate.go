package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// delegation is what that process opens the platform with.
type delegation struct {
	Settings settings.Settings
	// State holds the plane's own places, and one set's.
	State *state.State
	// RunDir is the supervisor's, Token opens one group of it.
	RunDir, Token string
	Binaries      pgserver.Binaries
	// Digests of the programs that it may run, as far as they are known.
	Digests map[string]Digest
	// Separated says that processes have users of their own, ReadsMachine that one can read the machine.
	Separated, ReadsMachine bool
	// Environ is what every process gets of the environment of who started this one.
	Environ []string
}

// Lent is what of this machine's files the process gets that works on a set, whoever runs the set.
type Lent struct {
	// Alive says that the set has its authority: of one that has none any more nothing is chosen, for it would be what is left of it.
	Alive bool
	// Steps that the process does by itself, and the paths that it may read and change.
	Steps, Reads, Writes []string
}

// Lend has everything chosen that is chosen once for a set, ports and users, and says what of it lies where.
func (p *Platform) Lend(ctx context.Context, s platform.Set) (l Lent, err error) {
	if err := p.NotRestoring(s); err != nil {
		return l, err
	}
	// Copies of the set's keys are in it, out of reach of who destroys those: one that is used is removed by who uses it, and looked for at last.
	if err := ClearScratch(p.Settings.Home); err != nil {
		return l, err
	}
	_, err = os.Stat(p.pki(s, "issuing.pem"))
	if l.Alive = err == nil; l.Alive {
		if err := p.choose(ctx, s); err != nil {
			return l, err
		}
	}
	l.Steps = []string{platform.StepMigrate, platform.StepStart, platform.StepStop, platform.StepShred, platform.StepDelete}
	// The names of users, to whom files are given, and the public halves of the plane's keys, which sets are told.
	l.Reads = []string{"/etc/passwd", "/etc/group", "/etc/nsswitch.conf"}
	for name := range p.Own.Blueprint.Keys {
		l.Reads = append(l.Reads, p.publicFile(p.Own, name))
	}
	l.Writes = []string{p.dir(s), p.home("log", s.Name())}
	return l, nil
}

// Delegate implements platform.Platform.
func (p *Platform) Delegate(ctx context.Context, s platform.Set, r platform.Release, until time.Time) (platform.Delegation, error) {
	var none platform.Delegation
	lent, err := p.Lend(ctx, s)
	if err != nil {
		return none, err
	}
	alive := lent.Alive
	ports, err := p.others(s)
	if err != nil {
		return none, err
	}
	run := filepath.Join(p.Settings.Home, "run")
	var programs []string
	if digest, err := r.DigestOf(s.Blueprint.Artefact); err == nil && alive {
		if program, err := onlyProgram(p.releaseDir(digest)); err == nil {
			programs = append(programs, program)
		}
	}
	allowed, err := p.allowance(ctx, s, r, len(programs) > 0)
	if err != nil {
		return none, err
	}
	token, err := supervise.Dir(run).TokenFor(allowed, until)
	if err != nil {
		return none, err
	}
	config, err := json.Marshal(delegation{Settings: p.Settings, State: p.State.Part(string(blueprint.ScopePlane), s.Name()),
		RunDir: run, Token: token, Binaries: p.Postgres.Binaries(), Digests: digestsOf(programs...), Separated: p.Separated(), ReadsMachine: p.canReadMachine(), Environ: passedOn(os.Environ())})
	if err != nil {
		return none, err
	}
	out := platform.Delegation{Steps: lent.Steps, Config: config, Reads: lent.Reads, Writes: lent.Writes, Ports: ports, Sockets: true}
	if digest, err := r.DigestOf(s.Blueprint.Artefact); err == nil && alive {
		out.Runs = []string{p.releaseDir(digest)}
		if len(programs) > 0 {
			// Known before it runs: the artefacts of what runs are kept.
			return out, p.State.SetRuns(s.Name(), r.String(), s.Blueprint.Digest)
		}
	}
	return out, nil
}

// allowance is what the process that works on a set may have the supervisor start: the units of the set's release, as its blueprint bounds them,
// each with users, programs and directories of the set's own. Of a set that has no authority any more, or whose release isn't here, that is nothing.
func (p *Platform) allowance(ctx context.Context, s platform.Set, r platform.Release, starts bool) (supervise.Allowance, error) {
	a := supervise.Allowance{Group: s.Name()}
	if !starts {
		return a, nil
	}
	digest, err := r.DigestOf(s.Blueprint.Artefact)
	if err != nil {
		return a, err
	}
	a.Programs, a.Dirs = []string{p.releaseDir(digest)}, []string{p.dir(s)}
	for i, wave := range s.Blueprint.Waves() {
		for _, c := range wave {
			unit, err := p.unitOf(s, r, c, i)
			if err != nil {
				return a, fmt.Errorf("%s of %s: %w", c.Name, s.Name(), err)
			}
			a.Units = append(a.Units, unit)
		}
	}
	// Not the set's own server's user, whose data are out of reach of who works on the set, nor that of who reads every file.
	var others []uint32
	if p.keepsMachineReader(s) && p.Separated() {
		reader, err := p.machineUnit(ctx, s, r)
		if err != nil {
			return a, fmt.Errorf("%s of %s: %w", machineReader, s.Name(), err)
		}
		a.Units, others = append(a.Units, reader), append(others, reader.User.UID)
	}
	if p.Separated() {
		others = append(others, p.ownServerUser(s))
		a.Users = slices.DeleteFunc(p.State.AccountsOf(s.Name()), func(id uint32) bool { return slices.Contains(others, id) })
	}
	return a, nil
}

// choose has everything chosen that is chosen once for a set: by who keeps it, for the process that works on the set can't.
func (p *Platform) choose(ctx context.Context, s platform.Set) error {
	if p.Places == nil {
		var ports []string
		for _, c := range s.Blueprint.Components {
			for _, port := range c.Ports {
				ports = append(ports, portName(s, c.Name, port))
			}
		}
		if err := p.State.ChoosePorts(ports); err != nil {
			return err
		}
	}
	return p.settleUsers(ctx, s)
}

// others are the ports of others that work on a set takes: the registry's, the database's, the gateway's.
func (p *Platform) others(s platform.Set) (ports []uint16, err error) {
	registry, err := p.Address(p.Own, registryService, "api")
	if err != nil {
		return nil, err
	}
	server, err := p.databases(s)
	if err != nil {
		return nil, err
	}
	for _, addr := range []string{registry, server.Address(), p.Settings.Dial()} {
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, err
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// Delegated implements platform.Platform.
func (p *Platform) Delegated(s platform.Set, r platform.Release, step string) error {
	if step == platform.StepMigrate {
		return p.State.SetMigrated(s.Name(), r.String())
	}
	return nil
}

// Open opens the platform in a process that got it delegated: it reaches one set, and what it chooses nobody keeps.
func Open(config json.RawMessage) (*Platform, error) {
	var d delegation
	if err := json.Unmarshal(config, &d); err != nil {
		return nil, fmt.Errorf("read what was delegated: %w", err)
	}
	takeDigests(d.Digests)
	control, err := blueprint.Plane()
	if err != nil {
		return nil, err
	}
	p := &Platform{Settings: d.Settings, State: d.State, Supervisor: supervise.Bound(supervise.Dir(d.RunDir), d.Token),
		Own: platform.Set{Blueprint: control}, Now: time.Now, delegated: true, environ: d.Environ, separated: d.Separated, readsMachine: d.ReadsMachine}
	if p.Postgres, err = p.NewServer(d.Binaries, "postgres"); err != nil {
		return nil, err
	}
	p.Sample, err = p.NewServer(d.Binaries, "sample-postgres")
	return p, err
}

// OpenLent opens this machine's files in a process that got them lent, for a platform that runs sets elsewhere, with a user for each process.
func OpenLent(settings settings.Settings, part *state.State) (*Platform, error) {
	control, err := blueprint.Plane()
	if err != nil {
		return nil, err
	}
	return &Platform{Settings: settings, State: part, Own: platform.Set{Blueprint: control}, Now: time.Now, delegated: true, separated: true}, nil
}

// Provisioner makes the keypair of who carries out steps on a set, PEM; empty where the set has no authority any more.
func (p *Platform) Provisioner(s platform.Set) (string, error) {
	issuing, err := workload.LoadAuthority(p.pki(s, "issuing.pem"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	pair, err := issuing.IssueKeypair(workload.Identity{Plane: p.State.Plane, Tenant: s.Tenant, Service: workload.Provisioner}, p.Now())
	if err != nil {
		return "", err
	}
	text, err := pair.Encode()
	return string(text), err
}
