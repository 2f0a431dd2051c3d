package operate

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where a filter finds what it judges by: struct seccomp_data of seccomp(2), on a machine that puts the lower half first.
const (
	callAt = 0
	archAt = 4
	argAt  = 16
	word32 = 4
)

// x32 begins the numbers by which amd64 takes calls of its 32-bit form.
const x32 = 0x40000000

// architectures whose calls a filter knows, by Go's names.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// withoutSockets has the kernel refuse this process, and all that it starts, sockets of files and of names (unix(7)): one that listens at a
// path lets root in whatever Landlock says of paths, and a Docker engine's makes whoever speaks to it root of everything.
func withoutSockets() error {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		slog.Warn("the system calls of this architecture are not filtered: what keeps this process from the machine's sockets is that it is told of none", "architecture", runtime.GOARCH)
		return nil
	}
	filter, err := bpf.Assemble(noSockets(arch))
	if err != nil {
		return fmt.Errorf("make the filter of system calls: %w", err)
	}
	var text []unix.SockFilter
	for _, i := range filter {
		text = append(text, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	// The right to it is given to a thread, and the filter to all of them from that one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(text)), Filter: &text[0]}                                                                                //nolint:gosec // G115: a dozen
	other, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))) //nolint:gosec // G103: how seccomp(2) takes it
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EINVAL):
		slog.Warn("this kernel filters no system calls: what keeps this process from the machine's sockets is that it is told of none", "error", errno)
	case errno != 0:
		return fmt.Errorf("filter this process's system calls: %w", errno)
	case other != 0:
		return fmt.Errorf("filter this process's system calls: thread %d has a filter of its own", other)
	}
	return nil
}

// noSockets is the filter. Calls in the form of another architecture are refused, for their numbers are others, and so is what does calls
// without calling. Of a socket's family the kernel looks at the lower half of the argument alone.
func noSockets(arch uint32) []bpf.Instruction {
	const refused, allowed = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ALLOW
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: archAt, Size: word32},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: arch, SkipTrue: 6},
		bpf.LoadAbsolute{Off: callAt, Size: word32},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_IO_URING_SETUP, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: 3},
		bpf.LoadAbsolute{Off: argAt, Size: word32},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_UNIX, SkipTrue: 1},
		bpf.RetConstant{Val: refused},
		bpf.RetConstant{Val: allowed},
	}
}
