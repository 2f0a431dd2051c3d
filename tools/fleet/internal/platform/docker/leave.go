package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"a3os.app/libs/pgserver"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// Installed implements local.Places.
func (p *Platform) Installed() pgserver.Binaries { return p.Binaries }

// Stores implements local.Places: they lie on this machine.
func (p *Platform) Stores(platform.Set) local.Stores { return nil }

// CertificateLife implements local.Places: what is renewed on this machine is handed over.
func (p *Platform) CertificateLife() time.Duration { return workload.LeafLife }

// Export implements platform.Platform: what local exports, from the set's server.
func (p *Platform) Export(ctx context.Context, s platform.Set, dir string) (changed bool, err error) {
	return p.Machine.Export(ctx, s, dir)
}

// Shred implements platform.Platform: keys and credentials where they rest, and the copies that containers were given.
func (p *Platform) Shred(ctx context.Context, s platform.Set) (changed bool, err error) {
	changed, err = p.Machine.Shred(ctx, s)
	return changed, errors.Join(err, p.forgetSecrets(s))
}

// Delete implements platform.Platform: containers, the database or the whole server of it, networks, and then what local keeps. A process
// that got the platform delegated removes what is in the set's directories; the rest is for who holds the plane's power.
func (p *Platform) Delete(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Tenant.IsZero() {
		return false, errors.New("the plane's own set is removed with the plane")
	}
	if p.door != nil {
		if changed, err = p.Stop(ctx, s); err != nil {
			return changed, err
		}
		did, err := local.Empty(p.Machine.Files(s).Dir(), p.secretsPlace(s))
		return changed || did, err
	}
	if changed, err = p.removeContainers(ctx, s); err != nil {
		return changed, err
	}
	steps := []func() (bool, error){
		func() (bool, error) { return p.removeDatabase(ctx, s) },
		func() (bool, error) { return p.Engine.RemoveNetworks(ctx, s.Name()) },
		func() (bool, error) { return false, p.forgetSecrets(s) },
		func() (bool, error) { return p.forgetNetworks(ctx, s) },
		func() (bool, error) { return p.Machine.Clear(s) },
	}
	for _, step := range steps {
		did, err := step()
		if changed = changed || did; err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// removeContainers removes every container of a set, also of components that its blueprint names no longer.
func (p *Platform) removeContainers(ctx context.Context, s platform.Set) (changed bool, err error) {
	if changed, err = p.Stop(ctx, s); err != nil {
		return changed, err
	}
	all, err := p.Engine.Status(ctx, s.Name())
	if err != nil {
		return changed, err
	}
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	did, err := p.Engine.Remove(ctx, names...)
	return changed || did, err
}

// removeDatabase removes what a set has in the shared server, or the data of a server of its own, which is gone by now.
func (p *Platform) removeDatabase(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Blueprint.Database == nil || !s.Dedicated() {
		return p.Machine.DropDatabase(ctx, s)
	}
	dir, err := p.ownServerDir(s)
	if err != nil {
		return false, err
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return true, fmt.Errorf("remove the data of the database server of %s: %w", s.Name(), err)
	}
	return true, nil
}

func (p *Platform) ownServerDir(s platform.Set) (string, error) {
	return local.ServerPlace(p.Settings.Home, ownServer(s))
}

// forgetNetworks gives the set's networks back to the pool, and takes what led out of them from the packet filter.
func (p *Platform) forgetNetworks(ctx context.Context, s platform.Set) (changed bool, err error) {
	for _, name := range networkNames(s) {
		if _, ok := p.State.Subnets()[name]; !ok {
			continue
		}
		changed = true
		if err := p.State.ForgetNetwork(name); err != nil {
			return changed, err
		}
	}
	_, _, err = p.enforce(ctx)
	return changed, err
}

// Remains implements platform.Platform: it asks the engine, and looks where local looks and where containers' secrets and the data of a
// server of the set's own lie.
func (p *Platform) Remains(ctx context.Context, s platform.Set) ([]string, error) {
	if s.Tenant.IsZero() {
		return nil, errors.New("the plane's own set is removed with the plane")
	}
	out, err := p.Engine.Left(ctx, s.Name())
	if err != nil {
		return nil, err
	}
	dir, err := p.ownServerDir(s)
	if err != nil {
		return nil, err
	}
	for _, path := range []string{p.secretsPlace(s), dir} {
		if _, err := os.Lstat(path); err == nil {
			out = append(out, "file "+path)
		}
	}
	kept, err := p.Machine.Kept(ctx, p.inShared(s))
	return append(out, kept...), err
}

// inShared is a set whose database is looked for in the server that tenants share, where one of its own is gone.
func (p *Platform) inShared(s platform.Set) platform.Set {
	if s.Dedicated() {
		b := *s.Blueprint
		b.Database = nil
		s.Blueprint = &b
	}
	return s
}

// Shared implements platform.Platform.
func (p *Platform) Shared(s platform.Set) []string { return p.Machine.Shared(p.inShared(s)) }
