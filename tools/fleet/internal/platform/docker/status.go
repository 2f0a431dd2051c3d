package docker

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// Components implements platform.Platform.
func (p *Platform) Components(ctx context.Context, s platform.Set) ([]platform.ComponentStatus, error) {
	all, err := p.Status(ctx, s.Name())
	if err != nil {
		return nil, err
	}
	var out []platform.ComponentStatus
	for _, c := range all {
		name := strings.TrimPrefix(c.Name, s.Name()+"/")
		if _, known := s.Blueprint.Component(name); !known {
			continue
		}
		out = append(out, p.told(name, c))
	}
	return out, nil
}

// told is a container as a component. Whether one that runs and isn't well answers nothing, or that it can't serve, an engine doesn't tell.
func (p *Platform) told(name string, c container.Status) platform.ComponentStatus {
	status := platform.ComponentStatus{Name: name, State: StateOf(c), Release: c.Release, Restarts: c.Restarts}
	if c.PID != 0 {
		status.Since = c.Since
	}
	switch {
	case status.State != platform.Failing:
	case c.PID != 0:
		status.State, status.Anew = platform.NotAnswering, p.Anew(c.Name)
	default:
		status.Detail = c.LastExit
	}
	return status
}

// Anew is what to type to have a container of a unit started anew: what is ended through the engine otherwise stays so.
func (p *Platform) Anew(unit string) string { return "docker restart " + p.Engine.Thing(unit) }

// LogOf is what to type to see what a unit's container said.
func (p *Platform) LogOf(unit string) string { return "docker logs " + p.Engine.Thing(unit) }

// Disks implements platform.Disks, with the memory that containers read their secrets from and renew their certificates in. What the engine
// writes is its own.
func (p *Platform) Disks() ([]platform.Disk, error) {
	out, err := local.DisksOf(p.Settings)
	if err != nil {
		return nil, err
	}
	places, err := filepath.Glob(filepath.Join(p.SecretsDir(), "*", "*", ownName))
	if err != nil {
		return nil, err
	}
	for _, dir := range append([]string{p.SecretsDir(), p.keeperPlace()}, places...) {
		if !mounted(dir) {
			continue // nothing runs there
		}
		disk, err := local.DiskOf(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went this moment
		}
		if err != nil {
			return nil, err
		}
		disk.Full = "the certificate of the container that fills it is not renewed there"
		if dir == p.SecretsDir() {
			disk.Full = "no container is started, and none of the plane's is given a new certificate"
		}
		out = append(out, disk)
	}
	return out, nil
}

// Census implements platform.Census. Database servers are the platform's own.
func (p *Platform) Census(ctx context.Context) (map[string][]platform.ComponentStatus, error) {
	all, err := p.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	out := map[string][]platform.ComponentStatus{}
	for _, c := range all {
		name := strings.TrimPrefix(c.Name, c.Group+"/")
		if name == postgresComponent || slices.Contains([]string{databasesUnit, sampleUnit, frontUnit}, c.Name) {
			continue
		}
		out[c.Group] = append(out[c.Group], p.told(name, c))
	}
	return out, nil
}

// Status of the plane's containers, or of one group's. An engine asks one that was just started only after a while: until then it is
// asked here.
func (p *Platform) Status(ctx context.Context, group string) ([]container.Status, error) {
	all, err := p.Engine.Status(ctx, group)
	for i, c := range all {
		if c.Health == "starting" && p.answers(ctx, c.Name) {
			all[i].Health = "healthy"
		}
	}
	return all, err
}

// StateOf is how a container is, in the words of a component.
func StateOf(c container.Status) platform.ComponentState {
	switch {
	case c.State == "running" && c.Health == "unhealthy", c.State != "running" && c.State != "created":
		return platform.Failing
	case c.State == "created", c.Health == "starting":
		return platform.Starting
	default:
		return platform.Serving
	}
}
