package docker

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// Ground brings up what sets stand on: the place of secrets, the plane's networks and packet filter, its database server, and the one
// that tenants share, where there are any. Here alone these two are made anew when they run otherwise than they are to, as by files that the
// machine has updated since.
func (p *Platform) Ground(ctx context.Context) (changed bool, err error) {
	if err := p.mountSecrets(); err != nil {
		return false, err
	}
	if changed, err = p.networksOf(ctx, p.Own, p.take); err != nil {
		return changed, err
	}
	own, err := p.serverOf(p.Own)
	if err != nil {
		return changed, err
	}
	did, err := p.serve(ctx, own)
	if changed = changed || did; err != nil {
		return changed, err
	}
	if p.sharing() {
		did, err = p.serveShared(ctx)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	return changed, p.forgetOldServers(ctx)
}

// serveShared has the server that tenants share serve.
func (p *Platform) serveShared(ctx context.Context) (changed bool, err error) {
	shared, err := p.server("databases", databasesUnit, p.Own.Name(), databasesNetwork, databasesNetwork, databasesNetwork)
	if err != nil {
		return changed, err
	}
	return p.serve(ctx, shared)
}

// sharing says whether any tenant's database is in the shared server: it stands in that one's network then. Its own place is chosen anyhow.
func (p *Platform) sharing() bool {
	for host := range p.State.Hosts() {
		if strings.HasSuffix(host, "/"+databasesNetwork) && host != databasesNetwork+"/"+databasesNetwork {
			return true
		}
	}
	return false
}

// backInto puts a container that may have been made anew back into the networks of tenants that it stood in, as a member.
func (p *Platform) backInto(ctx context.Context, unit, member string) (changed bool, err error) {
	for _, t := range p.State.Tenants() {
		for _, net := range []string{t.ID.String(), t.ID.String() + outSuffix} {
			if _, was := p.State.Hosts()[net+"/"+member]; t.ID.IsZero() || !was {
				continue
			}
			did, err := p.network(ctx, net, t.ID.String())
			if changed = changed || did; err != nil {
				return changed, err
			}
			at, err := p.State.Host(net, member)
			if err != nil {
				return changed, err
			}
			did, err = p.Engine.Join(ctx, unit, container.Link{Network: p.Engine.Thing(net), Address: at})
			if changed = changed || did; err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// ServeSample brings the sample company's server up.
func (p *Platform) ServeSample(ctx context.Context) (changed bool, err error) {
	server, err := p.sample()
	if err != nil {
		return false, err
	}
	return p.serve(ctx, server)
}

// SampleURL is a database of the sample company's server, as its superuser.
func (p *Platform) SampleURL(database string) (string, error) {
	server, err := p.sample()
	if err != nil {
		return "", err
	}
	return server.URL(database)
}

// SampleFor is where a tenant's discovery reaches the sample company's server.
func (p *Platform) SampleFor(s platform.Set) (netip.AddrPort, error) {
	at, err := p.State.Host(network(s)+outSuffix, sampleNetwork)
	return netip.AddrPortFrom(at, postgresPort), err
}

// HandOver gives a set's containers what was renewed on the machine since.
func (p *Platform) HandOver(ctx context.Context, s platform.Set) error {
	release, err := platform.ParseRelease(p.State.Runs()[s.Name()])
	if err != nil {
		return nil //nolint:nilerr // it never ran
	}
	if err := p.mountSecrets(); err != nil {
		return err
	}
	var errs []error
	for _, c := range s.Blueprint.Components {
		user, err := p.Machine.User(ctx, s, c.Name)
		if err != nil {
			return err
		}
		secrets := p.secretsAt(s.Name(), c.Name, user)
		if _, err := p.facts(s, release, c, secrets); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, secrets.put())
	}
	return errors.Join(errs...)
}

// Down stops every container of the plane in good order and takes its networks, its rules and its secrets' place away. What is kept in
// its home stays.
func (p *Platform) Down(ctx context.Context) (changed bool, err error) {
	all, err := p.Engine.Status(ctx, "")
	if err != nil {
		return false, err
	}
	// The front door first and the servers last, as when processes are stopped.
	var doors, sets, own, servers []string
	groups := map[string]bool{p.Own.Name(): true}
	for _, c := range all {
		groups[c.Group] = true
		component, known := p.Own.Blueprint.Component(strings.TrimPrefix(c.Name, p.Own.Name()+"/"))
		switch {
		case known && component.Needs.FrontDoor, c.Name == frontUnit:
			doors = append(doors, c.Name)
		case known:
			own = append(own, c.Name)
		case c.Group == p.Own.Name() || strings.HasSuffix(c.Name, "/"+postgresComponent):
			servers = append(servers, c.Name)
		default:
			sets = append(sets, c.Name)
		}
	}
	for _, names := range [][]string{doors, sets, own, servers} {
		did, err := p.Engine.Remove(ctx, names...)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	for _, name := range p.State.NetworkOwners() {
		groups[name] = true
	}
	for group := range groups {
		did, err := p.Engine.RemoveNetworks(ctx, group)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	// First: rules that the plane takes down itself were opened by nobody.
	if err := os.Remove(p.standsFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return changed, err
	}
	ruled, err := p.Rules().Remove(ctx)
	gone, err2 := p.unmountSecrets()
	return changed || ruled || gone, errors.Join(err, err2)
}

// Forget removes the images that the plane gave the engine.
func (p *Platform) Forget(ctx context.Context) error {
	var errs []error
	for _, id := range p.State.Images() {
		errs = append(errs, p.Engine.Forget(ctx, id))
	}
	return errors.Join(errs...)
}

// DataDirs are directories outside of the plane's home that hold its data.
func (p *Platform) DataDirs() []string {
	places := []string{"postgres", "databases", "sample-postgres"}
	for _, t := range p.State.Tenants() {
		places = append(places, ownServer(platform.Set{Tenant: t.ID}))
	}
	var out []string
	for _, place := range places {
		if dir, err := local.ServerPlace(p.Settings.Home, place); err == nil {
			if _, err := os.Stat(dir); err == nil {
				out = append(out, dir)
			}
		}
	}
	return out
}
