//go:build linux

package supervise

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// version2 is where version 2 is on this machine, by itself or beside version 1.
func version2(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups are root's")
	}
	for _, mount := range []string{cgroupMount, filepath.Join(cgroupMount, "unified")} {
		var fs unix.Statfs_t
		if err := unix.Statfs(mount, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return mount
		}
	}
	t.Skip("this machine has no cgroups of version 2")
	return ""
}

// withoutControllers is a maker of cgroups of version 2 that bound nothing: where version 1 has the controllers, it can start a process in one
// all the same.
func withoutControllers(t *testing.T, mount string) *bounds {
	t.Helper()
	b := &bounds{name: "a3-" + filepath.Base(filepath.Dir(t.TempDir()))}
	b.make = func(path string, _ Resources) (cgroup, error) {
		dir := filepath.Join(mount, path)
		return bare{&unified{dir: dir}}, os.MkdirAll(dir, 0o700)
	}
	t.Cleanup(func() {
		if err := removeTree(filepath.Join(mount, b.name)); err != nil {
			t.Error(err)
		}
	})
	return b
}

type bare struct{ *unified }

func (b bare) remove() error { return removeTree(b.dir) }

func TestProcessIsTriedInACgroupBeforeAnyUnit(t *testing.T) {
	b := withoutControllers(t, version2(t))
	if err := b.try(); err != nil {
		t.Errorf("this kernel starts processes in cgroups: %v", err)
	}
	// A kernel of before 5.7 can't be had here. One that refuses clone3(2) can, for one thread, as it is in a container.
	refused := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with what it can't do
		if err := refuseClone3(); err != nil {
			refused <- err
			return
		}
		refused <- b.try()
	}()
	if err := <-refused; !errors.Is(err, syscall.ENOSYS) || !strings.Contains(err.Error(), "no process can be started in a cgroup") {
		t.Errorf("where clone3 is refused, a unit with bounds would not start, and that was not found: %v", err)
	}
	if _, err := os.Stat(filepath.Join(version2(t), b.name, "try")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was tried with stays: %v", err)
	}
}

// refuseClone3 has the kernel say to the calling thread that it has no clone3 (seccomp(2)).
func refuseClone3() error {
	const load, equal, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load}, // the call's number is the first of what is told of it
		{Code: equal, Jf: 1, K: unix.SYS_CLONE3},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(syscall.ENOSYS)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// A kernel that counts no swap can't be had here, so that the files of a cgroup are made by hand.
func TestMemoryAloneIsBoundedWhereSwapIsNotCounted(t *testing.T) {
	mount := t.TempDir()
	dir := filepath.Join(mount, "a3-x", "set")
	// Nothing can be written where a directory is, as nothing can to a file that a cgroup does not have.
	if err := os.MkdirAll(filepath.Join(dir, "memory.swap.max"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, above := range []string{mount, filepath.Dir(dir)} {
		if err := os.WriteFile(filepath.Join(above, "cgroup.subtree_control"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unifiedMount(mount).make("a3-x/set", Resources{Memory: 64 << 20, CPU: 1, PIDs: 64}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"memory.max": "67108864", "pids.max": "64", "cpu.max": "100000 100000"} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s is %q and not %q: %v", file, got, want, err)
		}
	}
}

// counted is a cgroup of which the kernel ended as many as the test says: when it does so is the kernel's to choose.
type counted struct {
	cgroup
	n uint64
}

func (c *counted) killed() uint64 { return c.n }

func TestMemoryIsBlamedForTheEndThatItWas(t *testing.T) {
	byKill, byItself := exec.CommandContext(t.Context(), "sh", "-c", "kill -9 $$").Run(), exec.CommandContext(t.Context(), "sh", "-c", "exit 3").Run()
	in := &counted{n: 1} // one of before it began
	m := countMemoryEnds(in)
	if m.was(byKill) {
		t.Error("who was killed is said to have taken too much, for another that was there before")
	}
	in.n++
	if !m.was(byKill) || m.was(byItself) || m.was(nil) {
		t.Errorf("one more was ended: by a kill it was %v, by itself %v", m.was(byKill), m.was(byItself))
	}
	m.look() // the kernel has counted it, and the process is not yet seen to have ended
	if !m.was(byKill) {
		t.Error("who was ended for its memory is said not to have been, since it was looked at in that moment")
	}
	m.look()
	if m.was(byKill) {
		t.Error("the server lived on after it lost a session, and its own end is said to be that one")
	}
	if countMemoryEnds(nil).was(byKill) {
		t.Error("one without bounds took too much")
	}
}
