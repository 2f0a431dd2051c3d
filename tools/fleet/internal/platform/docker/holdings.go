package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"a3os.app/libs/config"
	"a3os.app/tools/fleet/internal/isolation"
	"a3os.app/tools/fleet/internal/netns"
	"a3os.app/tools/fleet/internal/platform"
)

// World is what every set holds, for who proves that they are isolated: what local says of the files, and networks of their own besides.
func (p *Platform) World(ctx context.Context, sets []platform.Set, pids map[string]int) (*isolation.World, error) {
	w, err := p.Machine.World(sets, pids)
	if err != nil {
		return nil, err
	}
	for i, s := range sets {
		if err := p.inContainers(ctx, w.Sets[i], s, pids); err != nil {
			return nil, err
		}
	}
	// Tenants share a server that the registry's database is not in: that one is closed to them by its network.
	w.Databases = nil
	if i := slices.IndexFunc(sets, func(s platform.Set) bool { return !s.Dedicated() }); i >= 0 {
		shared, err := p.serverOf(sets[i])
		if err != nil {
			return nil, err
		}
		w.Databases = []string{"postgres", "template1"}
		w.AdminURL = func(database string) (config.Secret, error) {
			url, err := shared.URL(database)
			return config.NewSecret(url), err
		}
	}
	server, err := p.serverOf(p.Own)
	if err != nil {
		return nil, err
	}
	at, err := p.State.Host(server.network, server.member)
	if err != nil {
		return nil, err
	}
	w.Closed = []isolation.Closed{{What: "the registry's database", Address: netip.AddrPortFrom(at, postgresPort).String()}}
	here := machineAddresses()
	for _, name := range slices.Sorted(maps.Keys(p.State.Subnets())) {
		// A network that was chosen and isn't made yet has no address of the machine's.
		if at := p.State.Subnets()[name].Addr().Next(); slices.Contains(here, at) {
			w.Machine = append(w.Machine, at.String())
		}
	}
	own, err := takenSubnets()
	for _, n := range own {
		if !p.Settings.Networks.Overlaps(n) && !n.Addr().IsLoopback() {
			w.Machine = append(w.Machine, machineAddress(n))
		}
	}
	w.Machine = slices.DeleteFunc(w.Machine, func(a string) bool { return a == "" })
	return w, err
}

func (p *Platform) inContainers(ctx context.Context, set *isolation.Set, s platform.Set, pids map[string]int) error {
	// A container is given a copy of what it may read. What lies on the machine is root's, or already the user's whom it is for.
	for i, f := range set.Files {
		if info, err := os.Lstat(f.Path); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 {
				set.Files[i].Holders = nil
			}
		}
	}
	release, err := platform.ParseRelease(p.State.Runs()[s.Name()])
	if err != nil {
		return err
	}
	var errs []error
	for i, c := range s.Blueprint.Components {
		user, err := p.Machine.User(ctx, s, c.Name)
		if err != nil {
			return err
		}
		secrets := p.secretsAt(s.Name(), c.Name, user)
		if _, err := p.facts(s, release, c, secrets); err != nil {
			return err
		}
		for _, name := range append(slices.Sorted(maps.Keys(secrets.from)), "certificate/workload.pem") {
			path := filepath.Join(secrets.dir, name)
			if _, err := os.Stat(path); err == nil {
				set.Files = append(set.Files, isolation.File{Path: path, What: "given to " + c.Name + ": " + name, Holders: []string{c.Name}})
			}
		}
		pid := pids[unitName(s, c.Name)]
		if pid == 0 {
			errs = append(errs, fmt.Errorf("%s of %s does not run", c.Name, s.Slug))
			continue
		}
		set.Components[i].Dial = func(ctx context.Context, address string) error {
			return netns.In(pid, func() error { return isolation.FromHere(ctx, address) })
		}
		for _, port := range c.Ports {
			addr, err := p.Address(s, c.Name, port)
			errs = append(errs, err)
			set.Addresses = append(set.Addresses, addr)
		}
	}
	if server, err := p.serverOf(s); err == nil && s.Blueprint.Database != nil {
		at, err := p.State.Host(server.callers, server.member)
		errs = append(errs, err)
		set.Addresses = append(set.Addresses, netip.AddrPortFrom(at, postgresPort).String())
	}
	return errors.Join(errs...)
}

// machineAddress is the machine's own in a network that it is in.
func machineAddress(n netip.Prefix) string {
	for _, a := range machineAddresses() {
		if n.Contains(a) && !strings.HasPrefix(a.String(), "127.") {
			return a.String()
		}
	}
	return ""
}
