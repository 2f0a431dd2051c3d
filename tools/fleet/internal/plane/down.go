package plane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"a3os.app/libs/failpoint"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/process"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// Down stops every process that the plane started, and only those. It says whether there was any.
func (p *Plane) Down(ctx context.Context) (changed bool, err error) {
	if _, err := os.Stat(p.Settings.Home); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	began := time.Now()
	err = p.supervisor.Stop(ctx)
	switch {
	case err == nil:
		changed = true
	case !errors.Is(err, supervise.ErrNotRunning):
		return false, err
	}
	left, err := p.endWhatIsLeft(ctx)
	if err != nil {
		return changed, err
	}
	gone, err := p.containersDown(ctx)
	if err != nil {
		return changed, err
	}
	if err := failpoint.Here("fleet.plane.processes-ended"); err != nil {
		return changed, err
	}
	ended, err := p.tasksDown(ctx)
	if err != nil {
		return changed, err
	}
	if changed = changed || left || gone || ended; changed {
		p.report.Done("every process of the plane has ended", time.Since(began))
	}
	return changed, nil
}

// endWhatIsLeft ends a supervisor that doesn't answer, and what one left that was killed. A process is known by its number and its
// start, so that nobody else's is ever signalled.
func (p *Plane) endWhatIsLeft(ctx context.Context) (any bool, err error) {
	dir := RunDir(p.Settings.Home)
	daemon, err := dir.Daemon()
	if err != nil {
		return false, err
	}
	processes, err := dir.Processes()
	if err != nil {
		return false, err
	}
	watcher, err := dir.Watcher()
	if err != nil {
		return false, err
	}
	// The watcher first: it would start the supervisor again.
	if watcher.Alive() {
		any = true
		if err := endProcess(ctx, watcher); err != nil {
			return any, fmt.Errorf("end the watcher: %w", err)
		}
	}
	processes["supervisor"] = daemon
	for name, id := range processes {
		if !id.Alive() {
			continue
		}
		any = true
		if err := endProcess(ctx, id); err != nil {
			return any, fmt.Errorf("end %s: %w", name, err)
		}
	}
	return any, dir.Forget()
}

func endProcess(ctx context.Context, id process.ID) error {
	const patience = 30 * time.Second
	if err := id.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	kill := time.NewTimer(patience)
	defer kill.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for id.Alive() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-kill.C:
			if err := id.Signal(syscall.SIGKILL); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
	return nil
}

// Remove takes the plane down and removes all that it keeps, inside and outside of its home.
func (p *Plane) Remove(ctx context.Context) (changed bool, err error) {
	if changed, err = p.Down(ctx); err != nil {
		return changed, err
	}
	if err := failpoint.Here("fleet.plane.is-down"); err != nil {
		return changed, err
	}
	if gone, err := p.forgetTasks(ctx); err != nil {
		return changed || gone, err
	}
	if err := failpoint.Here("fleet.plane.tasks-forgotten"); err != nil {
		return changed, err
	}
	dirs := append(p.forgetContainers(ctx), p.dataDirs()...)
	for _, dir := range dirs {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		changed = true
		if err := os.RemoveAll(dir); err != nil {
			return changed, fmt.Errorf("remove the plane's data: %w", err)
		}
	}
	return changed, nil
}

// dataDirs are the directories that hold the plane's data, the home last: while it is there, the others can be found.
func (p *Plane) dataDirs() []string {
	var out []string
	for _, name := range []string{"postgres", "sample-postgres"} {
		if dir, err := local.ServerPlace(p.Settings.Home, name); err == nil {
			out = append(out, dir)
		}
	}
	if p.platform != nil || state.Exists(p.Settings.Home) && p.openState() == nil {
		out = append(out, p.platform.OwnServerDirs()...)
	}
	if dir := local.ServedDir(p.Settings.Home); dir != p.Settings.Home {
		out = append(out, dir)
	}
	return append(out, p.Settings.Home)
}
