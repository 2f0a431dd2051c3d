package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"a3os.app/tools/fleet/internal/process"
)

const (
	// firstBackOff is the pause before a second start in a row; each further one is twice as long, up to mostBackOff.
	firstBackOff = 100 * time.Millisecond
	mostBackOff  = 30 * time.Second
	// settled is how long a process has to run for its next end to count as the first one.
	settled = 10 * time.Second
	// probeEvery is how often a process that starts is asked whether it serves.
	probeEvery = 10 * time.Millisecond
	// lookAfter is how often, at most, one that serves is asked whether it still does, lookAgain how soon after an answer that it didn't, and
	// missesMany how many such answers in a row are told: with twice probeTime for each, within half a minute.
	lookAfter  = 8 * time.Second
	lookAgain  = 2 * time.Second
	missesMany = 3
)

// keeper keeps one unit.
type keeper struct {
	unit    Unit
	spawn   *spawner
	bounds  *bounds
	doors   *doors
	changed func()
	// turned is told when the status is another.
	turned func()
	stop   context.CancelFunc
	wake   chan struct{}
	done   chan struct{}

	mu       sync.Mutex
	status   Status
	identity process.ID
}

func keep(ctx context.Context, unit Unit, spawn *spawner, bounds *bounds, doors *doors, changed, turned func()) *keeper {
	ctx, stop := context.WithCancel(ctx)
	k := &keeper{unit: unit, spawn: spawn, bounds: bounds, doors: doors, changed: changed, turned: turned, stop: stop, wake: make(chan struct{}), done: make(chan struct{}),
		status: begins(unit)}
	go func() {
		defer close(k.done)
		k.run(ctx)
	}()
	return k
}

// begins is how a unit is before its first process.
func begins(u Unit) Status {
	return Status{Name: u.Name, Group: u.Group, State: Starting, Log: u.Log, Release: u.Release}
}

// Status is how the unit is now, but for its memory.
func (k *keeper) Status() Status {
	k.mu.Lock()
	s := k.status
	k.mu.Unlock()
	s.Listens = k.doors.at(s.Name)
	return s
}

func (k *keeper) id() process.ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.identity
}

func (k *keeper) set(change func(*Status)) {
	k.mu.Lock()
	change(&k.status)
	k.mu.Unlock()
	k.turned()
}

func (k *keeper) run(ctx context.Context) {
	failures := 0
	for {
		began := time.Now()
		exit := k.once(ctx)
		if ctx.Err() != nil {
			k.set(func(s *Status) { s.State, s.PID, s.LastExit = Stopped, 0, exit })
			return
		}
		if time.Since(began) >= settled {
			failures = 0
		}
		pause := backOff(failures)
		failures++
		slog.Warn("a process ended by itself", "unit", k.unit.Name, "exit", exit, "pause", pause)
		k.set(func(s *Status) {
			s.PID, s.LastExit, s.Well = 0, exit, time.Time{}
			s.Restarts++
			s.Failures = failures
			if pause > 0 {
				s.State, s.NextStart = BackingOff, time.Now().Add(pause)
			}
		})
		select {
		case <-ctx.Done():
			k.set(func(s *Status) { s.State = Stopped })
			return
		case <-k.wake:
			failures = 0
			k.set(func(s *Status) { s.State, s.Failures, s.NextStart = Starting, 0, time.Time{} })
		case <-time.After(pause):
		}
	}
}

// retry starts a unit that backs off now, and forgets how often it ended: whoever asks has mended something.
func (k *keeper) retry() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// backOff is the pause after so many ends in a row: none after the first.
func backOff(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	pause := firstBackOff
	for range failures - 1 {
		if pause *= 2; pause >= mostBackOff {
			return mostBackOff
		}
	}
	return pause
}

// once runs the process until it ends, by itself or because ctx does, and says how it ended.
func (k *keeper) once(ctx context.Context) string {
	log, err := openLog(k.unit.Log, mostLog)
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	cmd := command(k.unit)
	cmd.Stdout, cmd.Stderr = log, log
	if k.unit.Listens != "" {
		socket, err := k.doors.of(ctx, k.unit)
		if err != nil {
			return err.Error()
		}
		cmd.ExtraFiles = []*os.File{socket} // the first of them is ListensFD
	}
	in := k.bounds.of(k.unit)
	if in != nil {
		defer k.leave(in)
		cmd.Env = collectBefore(cmd.Env, k.unit.Resources.Memory)
	}
	memory := countMemoryEnds(in)
	if err := k.spawn.start(cmd, in); err != nil {
		return fmt.Sprintf("it can't be started: %v", err)
	}
	spare(cmd.Process.Pid, k.unit.Expendable)
	identity, err := process.Of(cmd.Process.Pid)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		slog.Warn("a process can't be named", "unit", k.unit.Name, "error", err)
	}
	k.mu.Lock()
	k.identity = identity
	k.status.State, k.status.PID, k.status.Since, k.status.Well, k.status.NextStart = Starting, cmd.Process.Pid, time.Now(), time.Time{}, time.Time{}
	k.mu.Unlock()
	k.changed()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pctx, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	go k.probe(pctx)
	asked, err := k.await(ctx, cmd, ended, memory)
	k.mu.Lock()
	k.identity = process.ID{}
	k.mu.Unlock()
	k.changed()
	if !asked && memory.was(err) {
		return fmt.Sprintf("it took more memory than its bound of %d MiB, and the kernel ended it", k.unit.Resources.Memory>>20)
	}
	return howEnded(err)
}

// await waits until the process has ended, and says whether it was asked to, and how it ended.
func (k *keeper) await(ctx context.Context, cmd *exec.Cmd, ended chan error, memory *memoryEnds) (asked bool, err error) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return false, err
		case <-tick.C:
			memory.look()
		case <-ctx.Done():
			k.set(func(s *Status) { s.State, s.Well = Stopping, time.Time{} })
			return true, k.end(cmd, ended)
		}
	}
}

// leave takes away what bounded a process that has ended, and all that it left behind.
func (k *keeper) leave(in cgroup) {
	if err := in.remove(); err != nil {
		slog.Warn("the cgroup of a process that ended stays", "unit", k.unit.Name, "error", err)
	}
}

func command(u Unit) *exec.Cmd {
	cmd := exec.Command(u.Path, u.Args...) //nolint:noctx // it is asked to end before it is killed, see end
	cmd.Env, cmd.Dir = u.Env, u.Dir
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	// A group of its own: an interrupt that is typed at a terminal is not meant for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	cmd.SysProcAttr.Credential = u.User.Credential()
	if u.ReadsAll {
		readAll(cmd.SysProcAttr)
	}
	// What a process leaves behind may hold its output open; it is not waited for.
	cmd.WaitDelay = time.Second
	return cmd
}

// Credential is the user as a process takes it on; nil for nil, which leaves the process its parent's.
func (u *User) Credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// end asks the process to end and kills it when it doesn't.
func (k *keeper) end(cmd *exec.Cmd, ended chan error) error {
	ask := syscall.SIGTERM
	if k.unit.Interrupt {
		ask = syscall.SIGINT
	}
	_ = cmd.Process.Signal(ask)
	select {
	case err := <-ended:
		return err
	case <-time.After(k.unit.StopWithin):
		slog.Warn("a process did not end in time and is killed", "unit", k.unit.Name, "within", k.unit.StopWithin)
		_ = cmd.Process.Kill()
		return <-ended
	}
}

func howEnded(err error) string {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return "it ended with code 0"
	case !ok:
		return err.Error()
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("it was ended by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("it ended with code %d", exit.ExitCode())
}

// probe asks until the unit serves, and goes on asking then, for as long as its process runs.
func (k *keeper) probe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		if ask(ctx, k.unit.Ready) == serves && ctx.Err() == nil {
			k.set(func(s *Status) {
				if s.State == Starting {
					s.State = Serving
				}
			})
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	if k.unit.Ready != "" {
		k.look(ctx)
	}
}

// look asks a unit that served whether it still does. One answer that did not come says nothing, on a machine that has much to do: it takes
// missesMany in a row until another state is told than Serving, and a single good answer until Serving is.
func (k *keeper) look(ctx context.Context) {
	l := looked{well: time.Now()}
	for wait(ctx, l.pause()) {
		got := ask(ctx, k.unit.Ready)
		if got == silent && alive(ctx, k.unit.Ready) {
			got = refuses
		}
		if ctx.Err() != nil {
			return
		}
		state, told := l.learn(got, time.Now())
		if !told {
			continue
		}
		if state != Serving {
			slog.Warn("a process that served does not", "unit", k.unit.Name, "state", state, "since", l.well)
		}
		k.set(func(s *Status) {
			switch s.State {
			case Serving, NotReady, NotAnswering:
				if s.State, s.Well = state, l.well; state == Serving {
					s.Well = time.Time{}
				}
			case Starting, BackingOff, Stopping, Stopped: // it is not this process's to say any more
			}
		})
	}
}

// looked is what is known of a unit that served.
type looked struct {
	// well is when it was last seen to serve, misses how often in a row it was not since.
	well   time.Time
	misses int
	// said is the state that was told.
	said State
}

// learn takes what a unit did when it was asked, and says how it is, and whether that is to be told.
func (l *looked) learn(got word, now time.Time) (State, bool) {
	state := Serving
	if got == serves {
		l.well, l.misses = now, 0
	} else {
		l.misses++
		if l.misses < missesMany {
			return "", false
		}
		if state = NotAnswering; got == refuses {
			state = NotReady
		}
	}
	before := cmp.Or(l.said, Serving)
	l.said = state
	return state, state != before
}

// pause is how long to wait before it is asked again. Units that started together are asked at different moments.
func (l *looked) pause() time.Duration {
	if l.misses > 0 {
		return lookAgain
	}
	return lookAfter/2 + rand.N(lookAfter/2) //nolint:gosec // G404: a moment, and no secret
}
