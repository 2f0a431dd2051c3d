package plane

import (
	"context"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// isAtAWS says whether the plane is, or is to be, one whose sets are tasks of ECS. The plane need not be there.
func (p *Plane) isAtAWS() bool {
	if st, err := state.Open(p.Settings.Home); err == nil && state.Exists(p.Settings.Home) {
		return st.Platform == aws.Name
	}
	return p.Settings.Platform == aws.Name
}

// web makes what is missing of the certificate that people see: for the hosts of all tenants, and of those that are to come. At AWS a certificate
// that changed has the gateway's tasks started anew, and nobody sees it but the load balancer and fleet: it is for all hosts below the domain.
func (p *Plane) web(coming ...string) (changed bool, err error) {
	if p.aws != nil {
		return p.platform.Web(nil)
	}
	return p.platform.Web(append(p.slugs(), coming...))
}

// frontDoor is where this machine reaches the plane's gateway, whatever hosts' names lead to.
func (p *Plane) frontDoor() string {
	if p.aws != nil {
		for _, c := range p.own.Blueprint.Components {
			if at, err := p.aws.Address(p.own, c.Name, "api"); err == nil && c.Needs.FrontDoor {
				return at
			}
		}
	}
	return p.Settings.Dial()
}

// Published says that hosts of the plane are reached as everybody reaches them, by what their names lead to in DNS and with a certificate that the world
// believes: at AWS, where nothing of this machine serves anybody. The plane need not be there.
func (p *Plane) Published() bool { return p.isAtAWS() }

// tasks adds the plane's own at AWS to what the supervisor keeps, told in the same words.
func (p *Plane) tasks(ctx context.Context, out []supervise.Status) ([]supervise.Status, error) {
	all, err := p.aws.Components(ctx, p.own)
	if err != nil {
		return nil, err
	}
	states := map[platform.ComponentState]supervise.State{platform.Starting: supervise.Starting, platform.Serving: supervise.Serving,
		platform.Failing: supervise.BackingOff, platform.Stopping: supervise.Stopping}
	for _, c := range all {
		out = append(out, supervise.Status{Name: p.own.Name() + "/" + c.Name, Group: p.own.Name(), State: states[c.State], Since: c.Since, Restarts: c.Restarts, LastExit: c.Detail,
			Log: "aws logs tail " + p.aws.LogGroup(p.own, c.Name)})
	}
	return out, nil
}

// tasksDown has the plane's own set at AWS run nothing. What tenants have there runs on, and is reached by nobody.
func (p *Plane) tasksDown(ctx context.Context) (changed bool, err error) {
	if !p.isAtAWS() || !state.Exists(p.Settings.Home) {
		return false, nil
	}
	if err := p.openState(); err != nil {
		return false, err
	}
	return p.aws.Stop(ctx, p.own)
}

// forgetTasks deletes what AWS keeps of the plane's own set at a release.
func (p *Plane) forgetTasks(ctx context.Context) (changed bool, err error) {
	if p.aws == nil {
		return false, nil
	}
	return p.aws.Remove(ctx)
}
