package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/accounts"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// machineReader is what the supervisor knows a set's machine reader by; no component is called so.
const machineReader = "machine-reader"

// NoMachineReader says why this machine can't keep a machine reader, in words; empty where it can.
func NoMachineReader() string {
	return cmp.Or(accounts.CanHandReading(), noLandlock())
}

// keepsMachineReader says whether a set has a machine reader: its tenant may read this machine, and this machine can confine who does.
func (p *Platform) keepsMachineReader(s platform.Set) bool {
	return s.Blueprint.MachineReader != nil && p.MachineIsFor(s.Slug) && p.canReadMachine()
}

func (p *Platform) canReadMachine() bool {
	if p.delegated {
		return p.readsMachine
	}
	return NoMachineReader() == ""
}

func (p *Platform) machineSocket(s platform.Set) string { return p.dir(s, "machine", "socket") }

// keepMachineReader has the set's machine reader kept, or no longer kept, and says whether that changed anything.
func (p *Platform) keepMachineReader(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	if s.Blueprint.MachineReader == nil {
		return false, nil
	}
	if !p.keepsMachineReader(s) {
		return p.Supervisor.Drop(ctx, unitName(s, machineReader))
	}
	unit, err := p.machineUnit(ctx, s, r)
	if err == nil {
		err = p.makeMachineDir(ctx, s, unit)
	}
	if err != nil {
		return false, fmt.Errorf("%s of %s: %w", machineReader, s.Name(), err)
	}
	if changed, err = p.Supervisor.Apply(ctx, unit); err != nil {
		return changed, err
	}
	return changed, p.Supervisor.Await(ctx, unit.Name)
}

// makeMachineDir makes the directory that the machine reader may make its socket in and the client may walk to.
func (p *Platform) makeMachineDir(ctx context.Context, s platform.Set, reader supervise.Unit) error {
	client, err := p.user(ctx, s, s.Blueprint.MachineReader.Client)
	if err != nil {
		return err
	}
	const clientsWalk = 0o710
	return errors.Join(os.MkdirAll(reader.Dir, clientsWalk), give(reader.Dir, &supervise.User{UID: reader.User.UID, GID: client.GID}), chmod(reader.Dir, clientsWalk))
}

// machineUnit is the process with a user of its own and nothing of the tenant's. Who lends work on a set away says all of it in the token: it
// reads every file, and what it is told says which of them it passes over.
func (p *Platform) machineUnit(ctx context.Context, s platform.Set, release platform.Release) (supervise.Unit, error) {
	r := s.Blueprint.MachineReader
	program, err := p.program(s.Blueprint, release)
	if err != nil {
		return supervise.Unit{}, err
	}
	user, err := p.user(ctx, s, machineReader)
	if err != nil {
		return supervise.Unit{}, err
	}
	client, err := p.user(ctx, s, r.Client)
	if err != nil {
		return supervise.Unit{}, err
	}
	closed := []string{p.Settings.Home, p.served(), pgserver.PlaceForOthers}
	slices.Sort(closed)
	facts := blueprint.Facts{Machine: &blueprint.Machine{
		Socket: p.machineSocket(s), Client: strconv.FormatUint(uint64(client.UID), 10), Closed: strings.Join(slices.Compact(closed), ","),
	}}
	env, err := facts.Environ(r.Env)
	if err != nil {
		return supervise.Unit{}, err
	}
	return supervise.Unit{
		Name: unitName(s, machineReader), Group: s.Name(), Order: orderTenants, Release: release.String(),
		Path: program, Args: r.Command, Env: env, Dir: p.dir(s, "machine"), User: user, ReadsAll: true,
		Log: p.home("log", s.Name(), machineReader+".log"), Ready: "unix://" + p.machineSocket(s), StopWithin: stopWithin,
		Resources: bounded(r.Resources), Expendable: expendable,
	}, nil
}
