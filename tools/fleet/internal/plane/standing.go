package plane

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/deploy/observability"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/standing"
	"a3os.app/tools/fleet/internal/supervise"
)

// Standing is how all tenants of a plane that is up stand: what the registry, their sets and the platform say of them. It fails as
// standing.Ask does, with a page where that has one. inspect has a
// platform that can look at more than what runs do so, which takes its time.
func (p *Plane) Standing(ctx context.Context, inspect bool) (standing.Fleet, error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return standing.Fleet{}, p.whyNot(err)
	}
	// Whoever asks need not have the settings by which backups are made.
	if made, err := p.BroughtUp(); err == nil {
		p.Settings.BackupDir, p.Settings.BackupEvery, p.Settings.BackupKeep = made.BackupDir, made.BackupEvery, made.BackupKeep
	}
	if err := p.openState(); err != nil {
		return standing.Fleet{}, err
	}
	if p.docker != nil {
		if err := p.engine(ctx); err != nil {
			return standing.Fleet{}, err
		}
	}
	conn, err := p.registry()
	if err != nil {
		return standing.Fleet{}, err
	}
	defer conn.Close()
	releases, err := p.believedReleases(conn)
	if err != nil {
		return standing.Fleet{}, err
	}
	kept := p.platform.Backups()
	var door func(context.Context) error
	if at := p.state.Front; at != "" && p.aws == nil { // a load balancer's is seen by its own alarms
		door = func(ctx context.Context) error { return doorAnswers(ctx, at) }
	}
	var known []standing.Known
	for _, t := range p.state.Tenants() {
		known = append(known, standing.Known{ID: t.ID.String(), Slug: t.Slug})
	}
	return standing.Ask(ctx, standing.Source{Known: known, Door: door, Plane: p.state.Plane, Registry: conn, Platform: p.carrier(), Own: p.own.Name(), BackupEvery: p.Settings.BackupEvery, Machinery: p.machinery,
		Here: p.here, Kept: func(set, name string) error {
			_, err := backup.Claimed(kept.Path(set, name))
			return err
		}, Inspect: inspect, MadeBy: func(ctx context.Context, release string) (*blueprint.Blueprint, error) {
			return p.madeByName(ctx, releases, release)
		}})
}

// here is what this machine knows of a set.
func (p *Plane) here(name string) standing.Here {
	s := p.own
	if name != p.own.Name() {
		var err error
		if s, err = p.set(name); err != nil {
			return standing.Here{}
		}
	}
	out := standing.Here{KeysGone: p.platform.KeysGone(s)}
	if err := p.platform.NotRestoring(s); err != nil {
		out.Restoring = err.Error()
	}
	if name != p.own.Name() {
		out.NamesTaken = namesTaken(p.carrier(), s.Blueprint)
	}
	return out
}

// namesTaken are the components of a tenant's blueprint that are called as something that the platform keeps beside them, with what that is. A new
// blueprint has none; one that a release was made by before that was refused may.
func namesTaken(on platform.Platform, b *blueprint.Blueprint) map[string]string {
	keeper, is := on.(platform.Keeper)
	if !is {
		return nil
	}
	out, taken := map[string]string{}, blueprint.Taken(blueprint.ScopeTenant)
	for _, name := range keeper.KeptBeside() {
		if _, is := b.Component(name); is {
			out[name] = taken[name]
		}
	}
	return out
}

// machinery is what is wrong with the plane's own processes, and with the database servers of sets: of these no set says anything, and the registry
// may be what is gone.
func (p *Plane) machinery(ctx context.Context) ([]standing.Finding, error) {
	processes, err := p.processes(ctx)
	if err != nil {
		return nil, err
	}
	slugs := map[string]string{}
	for _, t := range p.state.Tenants() {
		slugs[t.ID.String()] = t.Slug
	}
	var out []standing.Finding
	for _, s := range processes {
		component := strings.TrimPrefix(s.Name, s.Group+"/")
		if s.Group != p.own.Name() && component != local.PostgresUnit {
			continue
		}
		next := "docs/operations.md#a-component-does-not-serve"
		switch {
		case s.Group == p.own.Name() && component == "registry":
			next = standing.RegistryAway
		case s.Group == p.own.Name() && component == "gateway":
			next = standing.GatewayAway
		}
		what, how := component+" of "+cmp.Or(slugs[s.Group], "the plane"), ""
		if !s.Well.IsZero() {
			how = " for " + time.Since(s.Well).Truncate(time.Second).String()
		}
		switch s.State {
		case supervise.Serving, supervise.Starting, supervise.Stopping:
			continue
		case supervise.NotAnswering:
			what, next = what+" runs, and has not answered"+how, standing.StartAnew(p.anewOf(s), next)
		case supervise.NotReady:
			what += " runs, and has not been able to serve" + how
		case supervise.BackingOff:
			what += " keeps ending: " + s.LastExit
		case supervise.Stopped:
			what += " does not run"
		}
		out = append(out, standing.Finding{Kind: "plane_process", Severity: standing.Critical, Component: component, Reason: what, Next: next})
	}
	found, err := p.serversBehind(ctx, slugs)
	if err != nil {
		err = fmt.Errorf("whether database servers are behind the machine's updates: %w", err)
	}
	return append(out, found...), err
}

// Targets are the processes of the control plane that tell figures, and where: at MetricsAddress whoever works here has to.
func (p *Plane) Targets() ([]observability.Target, error) {
	if err := p.openExisting(); err != nil {
		return nil, err
	}
	if p.aws != nil {
		// Those of its tasks are told within them; the registry's come by fleet metrics.
		return []observability.Target{{Job: "registry", Address: MetricsAddress}}, nil
	}
	var out []observability.Target
	for _, c := range p.own.Blueprint.Components {
		if !slices.Contains(c.Ports, "ops") {
			continue
		}
		addr, err := p.platform.Address(p.own, c.Name, "ops")
		if err != nil {
			return nil, err
		}
		out = append(out, observability.Target{Job: c.Name, Address: addr})
	}
	return out, nil
}
