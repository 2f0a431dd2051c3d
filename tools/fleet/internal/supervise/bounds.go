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
	// killed is how many of its processes were ended because there was no memory left.
	killed() uint64
	// remove ends what a process that has ended left behind in it, and takes it away.
	remove() error
}

// bounds makes cgroups below one of the supervisor's own.
type bounds struct {
	// name is the supervisor's, so that planes of one machine don't meet.
	name string
	// make makes a unit's; nil where none can be made, and why says it.
	make func(path string, r Resources) (cgroup, error)
	// removeAll takes away what is left below the supervisor's own, and that.
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

// close takes away all that was made.
func (b *bounds) close() error {
	if b.make == nil {
		return nil
	}
	return b.removeAll()
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
