package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
)

// The front door's socket is kept by a container of its own, whose port the engine publishes, and is handed to the component that serves
// on it: who connects while that is replaced, or comes back, waits in the socket's queue. The keeper does nothing else. It stays when the
// component's release changes, and goes with the plane.
const (
	frontKeeper = "front"
	frontUnit   = "plane/" + frontKeeper
	// keeperDir is where both find the path at which the socket is handed over.
	keeperDir    = "/run/a3-front"
	keeperSocket = keeperDir + "/socket"
)

// keepsSocket says whether a component's socket is kept for it.
func keepsSocket(c blueprint.Component) bool { return c.Needs.FrontDoor && len(c.KeepSocket) > 0 }

// KeepsFront says whether a container keeps the front door's socket.
func KeepsFront(c container.Status) bool { return c.Name == frontUnit }

// keeperPlace is that directory on this machine. What is in it is no secret, and is gone with the machine's power like the keeper.
func (p *Platform) keeperPlace() string { return filepath.Join(p.SecretsDir(), frontKeeper) }

// keepSocket has the front door's socket kept, before the component is there that serves on it.
func (p *Platform) keepSocket(ctx context.Context, r platform.Release, c blueprint.Component, image string) (changed bool, err error) {
	unit, err := p.keeper(ctx, r, c, image)
	if err != nil {
		return false, err
	}
	is, err := p.is(ctx, frontUnit)
	if err != nil {
		return false, err
	}
	if is == nil {
		// An earlier release published the component's own port.
		if _, err := p.Engine.Remove(ctx, unitName(p.Own, c.Name)); err != nil {
			return false, err
		}
	} else {
		unit.Image, unit.Release = is.Image, is.Release
	}
	if changed, err = p.Engine.Apply(ctx, unit); err != nil {
		return changed, err
	}
	return changed, p.awaitKeeper(ctx)
}

// is how a container of the plane's own is; nil where there is none.
func (p *Platform) is(ctx context.Context, unit string) (*container.Status, error) {
	all, err := p.Engine.Status(ctx, p.Own.Name())
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(c container.Status) bool { return c.Name == unit }); i >= 0 {
		return &all[i], nil
	}
	return nil, nil //nolint:nilnil // none is an answer
}

func (p *Platform) keeper(ctx context.Context, r platform.Release, c blueprint.Component, image string) (container.Unit, error) {
	var unit container.Unit
	user, err := p.Machine.User(ctx, p.Own, c.Name)
	if err != nil {
		return unit, err
	}
	account, err := p.Machine.Account(ctx, frontUnit)
	if err != nil {
		return unit, err
	}
	// The keeper makes the socket there, and the component walks to it.
	const walkable = 0o711
	dir := p.keeperPlace()
	if err := mountOwn(dir, account, account, walkable); err != nil {
		return unit, err
	}
	at, err := p.State.Host(frontNetwork, frontKeeper)
	if err != nil {
		return unit, err
	}
	publish, err := front(p.Settings)
	if err != nil {
		return unit, err
	}
	listens := netip.AddrPortFrom(netip.IPv4Unspecified(), portOf(c, "api")).String()
	return container.Unit{
		Name: frontUnit, Group: p.Own.Name(), Release: r.String(), Image: image, User: account,
		Args:   slices.Concat(c.KeepSocket, []string{listens, keeperSocket, strconv.FormatUint(uint64(user.UID), 10)}),
		Mounts: []container.Mount{{From: dir, To: keeperDir, Own: true}}, Links: []container.Link{{Network: p.Engine.Thing(frontNetwork), Address: at}},
		Publish: publish, Port: portOf(c, "api"), Limits: limits(blueprint.Resources{}), StopWithin: time.Second,
	}, nil
}

// awaitKeeper returns when the socket can be taken.
func (p *Platform) awaitKeeper(ctx context.Context) error {
	const most, every = 30 * time.Second, 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", filepath.Join(p.keeperPlace(), filepath.Base(keeperSocket)))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return p.why(ctx, frontUnit, fmt.Sprintf("hands no socket over after %s", most))
		case <-tick.C:
		}
	}
}
