package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"a3os.app/tools/fleet/internal/process"
)

// lookEvery is how often the supervisor and its watcher look whether the other one is there.
const lookEvery = 250 * time.Millisecond

// Programs are how the supervisor and its watcher are started: each starts the other again when that one was killed, so that no one
// process is needed for the plane to heal.
type Programs struct {
	// Supervisor and Watcher are command lines.
	Supervisor, Watcher []string
	// Log takes what they write.
	Log string
}

// Watch is the watcher's life: it starts the supervisor again whenever that is gone and wasn't asked to go. It returns when there is
// nothing to keep any longer, or when ctx ends.
func Watch(ctx context.Context, dir Dir, programs Programs) error {
	release, err := dir.take(dir.watcherLock())
	if err != nil {
		return err
	}
	defer release()
	closeOnExec()
	self, err := process.Self()
	if err != nil {
		return err
	}
	if err := writeJSON(dir.watcherFile(), self); err != nil {
		return err
	}
	return every(ctx, func() (bool, error) {
		if !dir.Wanted() {
			return false, remove(dir.watcherFile())
		}
		if id, err := dir.Daemon(); err == nil && !id.Alive() {
			slog.Warn("the supervisor is gone and is started again")
			if _, err := detach(programs.Log, programs.Supervisor); err != nil {
				slog.Error("the supervisor can't be started", "error", err)
			}
			// A supervisor says who it is within this time; a second one is turned away by the lock.
			wait(ctx, 4*lookEvery)
		}
		return true, nil
	})
}

// watchWatcher starts the watcher, and again whenever it is gone.
func (d *Daemon) watchWatcher(ctx context.Context, programs Programs) {
	_ = every(ctx, func() (bool, error) {
		if id, err := d.dir.Watcher(); err == nil && d.dir.Wanted() && !id.Alive() {
			if _, err := detach(programs.Log, programs.Watcher); err != nil {
				slog.Error("the watcher can't be started", "error", err)
			}
			wait(ctx, 4*lookEvery)
		}
		return true, nil
	})
}

func every(ctx context.Context, do func() (again bool, err error)) error {
	for {
		if again, err := do(); !again || err != nil {
			return err
		}
		if !wait(ctx, lookEvery) {
			return nil
		}
	}
}

// wait says whether ctx lasted that long.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// detach starts a program in a session of its own: a closed terminal, and an interrupt typed at it, are not meant for it. ended tells
// how it ended, if this process sees that.
func detach(log string, command []string) (ended <-chan error, err error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of logs: %w", err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer out.Close()
	closeOnExec()
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it outlives whoever starts it
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	return done, nil
}
