package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/firewall"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/settings"
)

// Networks of a plane. Each set has one of its own, which is internal; who is called from several sets stands in each of their networks,
// at an address of that network, and passes nothing on.
//
//	plane        the control plane's own set, and its database server
//	front        who keeps the gateway's socket alone, whose port is published; nothing in it calls out
//	databases    the server that tenants of tier `database` share; it stands in their networks too
//	tnt_…        a tenant's set
//	tnt_…/out    the way out of those components that need one
//	sample       the sample company's server, which also stands in the first tenant's way out
const (
	frontNetwork     = "front"
	databasesNetwork = "databases"
	sampleNetwork    = "sample"
	outSuffix        = "/out"
)

// network is the name of a set's own.
func network(s platform.Set) string { return s.Name() }

// idLetters of the plane's id are in the names of its bridges, which have 15 characters at most: `a3`, these, `-`, a letter and a number.
const idLetters = 6

func (p *Platform) bridges() string { return "a3" + p.State.ID[:idLetters] + "-" }

// leadsOut says whether a network is not internal.
func leadsOut(name string) bool { return name == frontNetwork || strings.HasSuffix(name, outSuffix) }

// Rules of the plane's packet filter, from the networks that there are.
func (p *Platform) Rules() firewall.Rules {
	r := firewall.Rules{Plane: p.State.ID, Bridges: p.bridges()}
	for _, name := range slices.Sorted(maps.Keys(p.State.Subnets())) {
		if !leadsOut(name) {
			r.Inner = append(r.Inner, p.bridge(name))
			continue
		}
		r.Out = append(r.Out, firewall.Out{Bridge: p.bridge(name), Closed: name == frontNetwork, Allowed: p.Settings.Outside})
	}
	return r
}

// bridge is the machine's interface of a network: its place in the pool is its number.
func (p *Platform) bridge(name string) string {
	letter := "n"
	if leadsOut(name) {
		letter = "e"
	}
	at := p.State.Subnets()[name].Addr().As4()
	return fmt.Sprintf("%s%s%x", p.bridges(), letter, uint32(at[1])<<11|uint32(at[2])<<3|uint32(at[3])>>5)
}

// network makes a network, the packet filter before it. Where its subnet was chosen before, and another plane of this machine was quicker to make a
// network of it, another is chosen, and addresses in it: nobody stands in a network that there isn't.
func (p *Platform) network(ctx context.Context, name, group string) (changed bool, err error) {
	const most = 10
	for range most {
		did, err := p.networkOf(ctx, name, group)
		changed = changed || did
		if !errors.Is(err, container.ErrSubnetTaken) {
			return changed, err
		}
		if err := p.State.ForgetNetwork(name); err != nil {
			return changed, err
		}
	}
	return changed, fmt.Errorf("each of the %d subnets chosen for the network %s was another network's by then: try again", most, name)
}

func (p *Platform) networkOf(ctx context.Context, name, group string) (changed bool, err error) {
	subnet, err := p.State.Subnet(name, p.Settings.Networks, takenSubnets)
	if err != nil {
		return false, err
	}
	if changed, _, err = p.enforce(ctx); err != nil {
		return changed, err
	}
	did, err := p.Engine.Network(ctx, container.Network{Name: name, Group: group, Subnet: subnet, Bridge: p.bridge(name), Internal: !leadsOut(name)})
	return changed || did, err
}

// takenSubnets are those that the machine is in already.
func takenSubnets() ([]netip.Prefix, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("ask for the machine's own networks: %w", err)
	}
	var out []netip.Prefix
	for _, a := range all {
		if n, err := netip.ParsePrefix(a.String()); err == nil && n.Addr().Is4() {
			out = append(out, n.Masked())
		}
	}
	return out, nil
}

// networkNames are a set's networks.
func networkNames(s platform.Set) []string {
	names := []string{network(s)}
	if s.Tenant.IsZero() {
		return append(names, frontNetwork)
	}
	if outward(s.Blueprint) {
		names = append(names, network(s)+outSuffix)
	}
	return names
}

// networksOf makes a set's networks, has the database server of a tenant's serve, as serve or take do, and puts into a tenant's who is called
// from there.
func (p *Platform) networksOf(ctx context.Context, s platform.Set, serve func(context.Context, *server) (bool, error)) (changed bool, err error) {
	for _, name := range networkNames(s) {
		did, err := p.network(ctx, name, s.Name())
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	if s.Tenant.IsZero() {
		return changed, nil
	}
	if s.Blueprint.Database != nil {
		server, err := p.serverOf(s)
		if err != nil {
			return changed, err
		}
		if s.Dedicated() {
			if err := p.takeOutside(ctx, s, server); err != nil {
				return changed, err
			}
		}
		did, err := serve(ctx, server)
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	did, err := p.joinTenant(ctx, s, p.Own.Blueprint.Components)
	return changed || did, err
}

func outward(b *blueprint.Blueprint) bool {
	return slices.ContainsFunc(b.Components, func(c blueprint.Component) bool { return c.Needs.Outside })
}

// called says whether components of a tenant's set call one of the plane's, or are called by it: the front door calls all of them.
func (p *Platform) called(tenants *blueprint.Blueprint, c blueprint.Component) bool {
	return c.Needs.FrontDoor || slices.ContainsFunc(tenants.Components, func(t blueprint.Component) bool { return slices.Contains(t.Needs.Plane, c.Name) })
}

// joinTenant puts those components of the plane into a tenant's network who have to do with it, the server that the tenant shares, and
// the sample server where the tenant discovers it.
func (p *Platform) joinTenant(ctx context.Context, s platform.Set, components []blueprint.Component) (changed bool, err error) {
	join := func(unit, net, member string) error {
		at, err := p.State.Host(net, member)
		if err != nil {
			return err
		}
		did, err := p.Engine.Join(ctx, unit, container.Link{Network: p.Engine.Thing(net), Address: at})
		changed = changed || did
		return err
	}
	for _, c := range components {
		if p.called(s.Blueprint, c) {
			if err := join(unitName(p.Own, c.Name), network(s), c.Name); err != nil {
				return changed, err
			}
		}
	}
	if s.Blueprint.Database != nil && !s.Dedicated() {
		if err := join(databasesUnit, network(s), databasesNetwork); err != nil {
			return changed, err
		}
	}
	if p.Machine.SampleIsFor(s.Slug) && outward(s.Blueprint) {
		if err := join(sampleUnit, network(s)+outSuffix, sampleNetwork); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// links are the networks that a component stands in from the beginning.
func (p *Platform) links(s platform.Set, c blueprint.Component) ([]container.Link, error) {
	names := []string{network(s)}
	if c.Needs.Outside {
		names = append(names, network(s)+outSuffix)
	}
	if c.Needs.FrontDoor && !keepsSocket(c) {
		names = append(names, frontNetwork)
	}
	var out []container.Link
	for _, name := range names {
		at, err := p.State.Host(name, c.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, container.Link{Network: p.Engine.Thing(name), Address: at})
	}
	return out, nil
}

// front is where the front door is published.
func front(s settings.Settings) (netip.AddrPort, error) { return netip.ParseAddrPort(s.Address()) }

// machineAddresses are the machine's own.
func machineAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range all {
		if n, err := netip.ParsePrefix(a.String()); err == nil && n.Addr().Is4() {
			out = append(out, n.Addr())
		}
	}
	return out
}
