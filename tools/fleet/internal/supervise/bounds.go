package supervise

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// keptLongest is how readily the kernel ends the supervisor.
const keptLongest = -500

// Resources bound a unit's process and all that it starts; zero is no bound.
type Resources struct {
	// Memory in bytes; who would hold more is ended by the kernel, it alone, and comes back as after any other end.
	Memory int64 `json:"memory"`
	// CPU is how many processors' time.
	CPU float64 `json:"cpu"`
	// PIDs is how many processes and threads.
	PIDs int64 `json:"pids"`
}

// cgroup is what bounds one unit.
type cgroup interface {
	// start starts a process inside, on the calling thread.
	start(cmd *exec.Cmd) error
	// killed is how many of its processes were ended because there was no memory left, since it was made.
	killed() uint64
	// remove ends what a process that has ended left behind in it, and takes it away.
	remove() error
}

// bounds makes cgroups below one of the supervisor's own.
type bounds struct {
	// name is the supervisor's, so that planes of one machine don't meet.
	name string
	// make makes a unit's; nil where none can be made or nothing started in one, and why says it.
	make func(path string, r Resources) (cgroup, error)
	// removeAll takes away what is left below the supervisor's own, and that, and ends what is in it.
	removeAll func() error
	why       string
}

// newBounds finds out what this machine lets the supervisor bound.
func newBounds(dir Dir) *bounds {
	sum := sha256.Sum256([]byte(dir))
	b := &bounds{name: "a3-" + hex.EncodeToString(sum[:6])}
	if err := b.find(); err != nil {
		b.make, b.why = nil, err.Error()
	}
	return b
}

// of is what bounds a unit; nil for one without bounds, and where none can be had.
func (b *bounds) of(u Unit) cgroup {
	if b.make == nil || u.Resources == (Resources{}) {
		return nil
	}
	c, err := b.make(b.name+"/"+u.Name, u.Resources)
	if err != nil {
		// It runs all the same: a bound is a wall against a fault, and no process is one at once.
		slog.Error("a process is not bounded", "unit", u.Name, "error", err)
		return nil
	}
	return c
}

// close takes away all that was made, by this supervisor or by one that was killed, and ends what processes left behind in it.
func (b *bounds) close() error {
	if b.make == nil {
		return nil
	}
	return b.removeAll()
}

// memoryEnds tells an end for want of memory from another. The kernel counts how many processes of a cgroup it ended, which one it does not
// say: a server that lost a session in March ends in June by something else.
type memoryEnds struct {
	in cgroup
	// looks are what was counted the last two times. The count may be higher a moment before the process is seen to have ended.
	looks [2]uint64
}

// countMemoryEnds begins to look at a cgroup; nil is none.
func countMemoryEnds(in cgroup) *memoryEnds {
	m := &memoryEnds{in: in}
	m.look()
	m.look()
	return m
}

// look is asked every lookAfter, for as long as the process runs.
func (m *memoryEnds) look() {
	if m.in != nil {
		m.looks[0], m.looks[1] = m.looks[1], m.in.killed()
	}
}

// was says whether the process, which ended with err just now, was ended for the memory that it took.
func (m *memoryEnds) was(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || m.in == nil {
		return false
	}
	ws, ok := exit.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL && m.in.killed() > m.looks[0]
}

// collectBefore adds to a bounded process's environment that Go collects garbage harder from nine tenths of the bound on, so that garbage
// alone does not have the kernel end it; the rest is for what Go's runtime does not count. What the operator chose stands.
func collectBefore(env []string, memory int64) []string {
	const name = "GOMEMLIMIT="
	if memory == 0 || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name) }) {
		return env
	}
	return append(slices.Clone(env), fmt.Sprintf("%s%d", name, memory/10*9))
}

var errNoCgroups = errors.New("this system has no cgroups")
