package docker

import (
	"errors"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
)

// facts are what the platform knows about a component: what it needs and no more, by where its container finds it.
func (p *Platform) facts(s platform.Set, r platform.Release, c blueprint.Component, secrets *secrets) (blueprint.Facts, error) {
	files := p.Machine.Files(s)
	secrets.certificate = files.Certificate(c.Name)
	f := blueprint.Facts{
		Plane: p.State.Plane, Release: r.String(), LogLevel: p.Settings.LogLevel,
		Certificates: certificateDir, StateDir: stateDir, PlaneRoots: secrets.file(files.PlaneRoots(), "plane-roots.pem"),
		Domain: p.Settings.Domain, ApexSlug: p.Settings.Apex(), SetNetworks: p.Settings.Networks.String(),
		TenantRate: strconv.FormatFloat(p.Settings.TenantRate, 'f', -1, 64), CORSOrigins: strings.Join(p.Settings.CORSOrigins, ","),
		Addresses: map[string]string{}, PeerAddresses: map[string]map[string]string{}, PlaneAddresses: map[string]string{},
		DatabaseURLs: map[string]string{}, KeyFiles: map[string]string{}, PublicKeys: map[string]string{}, StoreDirs: map[string]string{},
	}
	if !s.Tenant.IsZero() {
		f.Tenant, f.Slug, f.URL = s.Tenant.String(), s.Slug, p.Settings.URL(s.Slug)
		f.TenantRoots = secrets.file(files.Roots(), "tenant-roots.pem")
		// A container sees nothing of the machine that there would be to discover.
		f.MachineAllowed = false
		if r := s.Blueprint.MachineReader; r != nil && r.Client == c.Name {
			f.Machine = &blueprint.Machine{}
		}
		if c.Needs.Outside && p.Machine.SampleIsFor(s.Slug) {
			at, err := p.State.Host(network(s)+outSuffix, sampleNetwork)
			if err != nil {
				return f, err
			}
			f.AllowedAddresses = netip.AddrPortFrom(at, postgresPort).String()
		}
	}
	var err error
	if f.MarkKeys, err = p.Machine.MarkKeys(); err != nil {
		return f, err
	}
	if f.ReleaseKeys, err = p.Machine.ReleaseKeys(); err != nil {
		return f, err
	}
	if f.LicenceKeys, err = p.Machine.LicenceKeys(); err != nil {
		return f, err
	}
	if err := errors.Join(p.addresses(&f, s, c), p.Machine.Credentials(&f, s, c)); err != nil {
		return f, err
	}
	for role, file := range f.DatabaseURLs {
		f.DatabaseURLs[role] = secrets.file(file, "database/"+role+".url")
	}
	for key, file := range f.KeyFiles {
		f.KeyFiles[key] = secrets.file(file, "keys/"+key)
	}
	for store := range f.StoreDirs {
		f.StoreDirs[store] = path.Join(storeDir, store)
	}
	if f.Authority != "" {
		f.Authority = secrets.file(f.Authority, "authority.pem")
	}
	if _, err := os.Stat(f.LicencePath); err == nil {
		f.LicencePath = secrets.file(f.LicencePath, "licence")
	} else {
		f.LicencePath = ""
	}
	if f.Front != nil {
		f.Front = &blueprint.Front{Certificate: secrets.file(f.Front.Certificate, "front/certificate.pem"), Key: secrets.file(f.Front.Key, "front/key.pem")}
		if keepsSocket(c) {
			f.Front.Keeper = keeperSocket
		}
	}
	return f, nil
}

func (p *Platform) addresses(f *blueprint.Facts, s platform.Set, c blueprint.Component) error {
	for _, peer := range s.Blueprint.Components {
		f.PeerAddresses[peer.Name] = map[string]string{}
		for _, port := range peer.Ports {
			addr, err := p.Address(s, peer.Name, port)
			if err != nil {
				return err
			}
			f.PeerAddresses[peer.Name][port] = addr
		}
	}
	for port, addr := range f.PeerAddresses[c.Name] {
		if port == "api" && s.Tenant.IsZero() {
			// Called from several networks, at an address of each.
			addr = netip.AddrPortFrom(netip.IPv4Unspecified(), portOf(c, port)).String()
		}
		f.Addresses[port] = addr
	}
	for _, name := range c.Needs.Plane {
		peer, ok := p.Own.Blueprint.Component(name)
		if !ok {
			continue
		}
		at, err := p.State.Host(network(s), name)
		if err != nil {
			return err
		}
		f.PlaneAddresses[name] = netip.AddrPortFrom(at, portOf(peer, "api")).String()
	}
	reserved, err := p.reserved()
	f.ReservedAddresses = strings.Join(reserved, ",")
	return err
}

// reserved are the addresses of the plane's own services and servers, which no set may name as its own.
func (p *Platform) reserved() ([]string, error) {
	var out []string
	for _, c := range p.Own.Blueprint.Components {
		for _, port := range c.Ports {
			addr, err := p.Address(p.Own, c.Name, port)
			if err != nil {
				return nil, err
			}
			out = append(out, addr)
		}
	}
	server, err := p.serverOf(p.Own)
	if err != nil {
		return nil, err
	}
	at, err := p.State.Host(server.network, server.member)
	out = append(out, netip.AddrPortFrom(at, postgresPort).String())
	for _, shared := range []string{databasesNetwork, sampleNetwork} {
		if _, ok := p.State.Subnets()[shared]; !ok || err != nil {
			continue // it is of no concern to whom it was not delegated
		}
		at, err = p.State.Host(shared, shared)
		out = append(out, netip.AddrPortFrom(at, postgresPort).String())
	}
	return out, err
}
