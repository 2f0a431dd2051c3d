package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cgroupMount is where the hierarchies are, on every system that has them.
const cgroupMount = "/sys/fs/cgroup"

// period is the time over which the kernel counts a quota of processors' time, in microseconds.
const period = 100_000

// find tries with a cgroup that nothing runs in.
func (b *bounds) find() error {
	if os.Geteuid() != 0 {
		return errors.New("it was not started as root, whose cgroups are")
	}
	switch cgroups.Mode() {
	case cgroups.Unified:
		mount := unifiedMount(cgroupMount)
		b.make, b.removeAll = mount.make, func() error { return removeTree(filepath.Join(cgroupMount, b.name)) }
	case cgroups.Legacy, cgroups.Hybrid:
		// Looked up once, before anything is started: while a thread of this process starts one, the file that says it says where that one is.
		own := ownLegacy(cgroup1.NestedPath(""))
		b.make, b.removeAll = own.make, func() error { return own.remove(b.name) }
	default:
		return errNoCgroups
	}
	return b.try()
}

// try makes a cgroup and a process in it: where the first can be done and the second can't, as where clone3(2) is older than cgroups or is
// refused, no unit with bounds would start.
func (b *bounds) try() error {
	tried, err := b.make(b.name+"/try", Resources{Memory: 64 << 20, CPU: 1, PIDs: 64})
	if err != nil {
		return fmt.Errorf("no cgroup can be made: %w", err)
	}
	// In version 1 it is the calling thread that goes in and out.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// There is no such program, on any machine: that the process says so is that it was made.
	cmd := &exec.Cmd{Path: filepath.Join(cgroupMount, b.name, "no program"), SysProcAttr: &syscall.SysProcAttr{}}
	if err := tried.start(cmd); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("no process can be started in a cgroup: %w", err), tried.remove())
	}
	return tried.remove()
}

func (r Resources) quota() (quota int64, per uint64) {
	return int64(r.CPU * period), period
}

// legacy is a cgroup in each of the three hierarchies of version 1, below the ones that this process is in.
type legacy struct {
	unit, own cgroup1.Cgroup
	// events is the file that counts those that were ended.
	events string
}

// three are the controllers that are used.
func three() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	if err != nil {
		return nil, err
	}
	wanted := []cgroup1.Name{cgroup1.Memory, cgroup1.Cpu, cgroup1.Pids}
	all = slices.DeleteFunc(all, func(s cgroup1.Subsystem) bool { return !slices.Contains(wanted, s.Name()) })
	if len(all) < len(wanted) {
		return nil, errors.New("this kernel does not count memory, processors' time and processes, all three")
	}
	return all, nil
}

// ownLegacy is where this process is, in each hierarchy of version 1.
type ownLegacy cgroup1.Path

// below is a cgroup below it.
func (o ownLegacy) below(path string) cgroup1.Path {
	return func(subsystem cgroup1.Name) (string, error) {
		root, err := o(subsystem)
		return filepath.Join(root, path), err
	}
}

func (o ownLegacy) make(path string, r Resources) (cgroup, error) {
	quota, per := r.quota()
	// Memory and swap together, so that what is over the bound isn't swapped out in its stead; where swap isn't counted, memory alone.
	limits := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &r.Memory}, Pids: &specs.LinuxPids{Limit: &r.PIDs},
		CPU: &specs.LinuxCPU{Quota: &quota, Period: &per},
	}
	unit, err := cgroup1.New(o.below(path), limits, cgroup1.WithHierarchy(three))
	if err != nil {
		return nil, err
	}
	_ = unit.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: &r.Memory}})
	own, err := cgroup1.Load(cgroup1.Path(o), cgroup1.WithHierarchy(three))
	if err != nil {
		return nil, errors.Join(err, unit.Delete())
	}
	memory, err := o.below(path)(cgroup1.Memory)
	if err != nil {
		return nil, errors.Join(err, unit.Delete())
	}
	return &legacy{unit: unit, own: own, events: filepath.Join(cgroupMount, string(cgroup1.Memory), memory, "memory.oom_control")}, nil
}

// start puts the calling thread into the cgroup, for what it starts is in it from its first moment, and takes it out again.
func (l *legacy) start(cmd *exec.Cmd) error {
	thread := cgroup1.Process{Pid: unix.Gettid()}
	if err := l.unit.AddTask(thread); err != nil {
		return errors.Join(fmt.Errorf("enter the cgroup: %w", err), l.own.AddTask(thread))
	}
	err := cmd.Start()
	if back := l.own.AddTask(thread); back != nil {
		return errors.Join(err, fmt.Errorf("leave the cgroup: %w", back))
	}
	return err
}

func (l *legacy) killed() uint64 { return killedOf(l.events) }

// killedOf reads how many processes were ended from a cgroup's file of lines of a word and a number; 0 where it does not say.
func killedOf(events string) uint64 {
	text, err := os.ReadFile(events)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(count), 10, 64)
			return n
		}
	}
	return 0
}

func (l *legacy) remove() error {
	err := empty(func() ([]int, error) {
		left, err := l.unit.Processes(cgroup1.Pids, true)
		var pids []int
		for _, p := range left {
			pids = append(pids, p.Pid)
		}
		return pids, err
	})
	return errors.Join(err, l.unit.Delete())
}

// empty ends the processes of a cgroup until there are none: one that is being ended may still have made another.
func empty(left func() ([]int, error)) error {
	const most = 5 * time.Second
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(most); ; <-tick.C {
		pids, err := left()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in it don't end", len(pids))
		}
		for _, pid := range pids {
			// In version 1 our own thread is in it for the moment in which it starts what runs there.
			// Of a process that this one's namespace doesn't have, 0 is all that is told, and kill(2) takes that for ourselves.
			if pid > 0 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

func (o ownLegacy) remove(name string) error {
	subsystems, err := three()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range subsystems {
		path, err := o.below(name)(s.Name())
		if err == nil {
			err = removeTree(filepath.Join(cgroupMount, string(s.Name()), path))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// unified is a cgroup of version 2, below the machine's own: where processes are in the one above, controllers can't be had.
type unified struct {
	manager *cgroup2.Manager
	dir     string
}

// unifiedMount is where version 2 is.
type unifiedMount string

func (m unifiedMount) make(path string, r Resources) (cgroup, error) {
	quota, per := r.quota()
	manager, err := cgroup2.NewManager(string(m), "/"+path, &cgroup2.Resources{
		Memory: &cgroup2.Memory{Max: &r.Memory}, Pids: &cgroup2.Pids{Max: r.PIDs},
		CPU: &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, &per)},
	})
	if err != nil {
		return nil, err
	}
	// Where swap isn't counted, there is nothing to write this to, and memory alone is bounded.
	noSwap := int64(0)
	_ = manager.Update(&cgroup2.Resources{Memory: &cgroup2.Memory{Swap: &noSwap}})
	return &unified{manager: manager, dir: filepath.Join(string(m), path)}, nil
}

// start has the kernel make the process inside (clone3(2), CLONE_INTO_CGROUP).
func (u *unified) start(cmd *exec.Cmd) error {
	dir, err := os.Open(u.dir)
	if err != nil {
		return fmt.Errorf("enter the cgroup: %w", err)
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd()) //nolint:gosec // a descriptor is an int
	return cmd.Start()
}

func (u *unified) killed() uint64 { return killedOf(filepath.Join(u.dir, "memory.events")) }

func (u *unified) remove() error {
	err := empty(func() ([]int, error) {
		left, err := u.manager.Procs(true)
		var pids []int
		for _, pid := range left {
			pids = append(pids, int(pid)) //nolint:gosec // a process's id is an int
		}
		return pids, err
	})
	return errors.Join(err, u.manager.Delete())
}

// removeTree ends what is left in the cgroups from one on and removes them, those below first.
func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	err = errors.Join(err, empty(func() ([]int, error) { return processesIn(dirs) }))
	for _, dir := range slices.Backward(dirs) {
		err = errors.Join(err, unix.Rmdir(dir))
	}
	if err != nil {
		return fmt.Errorf("remove the cgroups of %s: %w", root, err)
	}
	return nil
}

// processesIn are those in some cgroups, those below them aside.
func processesIn(dirs []string) (pids []int, err error) {
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// spare says how readily the kernel ends a process when the whole machine has no memory left: from -1000, never, to 1000, first.
func spare(pid, score int) {
	// Who may not, or whose process has ended, leaves it as it is.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(score)), 0o600)
}
