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

// Where a filter finds what it judges by: struct seccomp_data of seccomp(2), on a machine that puts the lower half first. Of numbers that
// are an int the kernel looks at the lower half of the argument alone, and so does the filter.
const (
	callAt = 0
	archAt = 4
	argsAt = 16
	word32 = 4
	word64 = 8
)

// x32 begins the numbers by which amd64 takes calls of its 32-bit form.
const x32 = 0x40000000

// kindOf is the part of a socket's type that says what it is; the rest are flags (socket(2)).
const kindOf = 0xf

// architectures whose calls a filter knows, by Go's names.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// sockets are those that a process may have besides TCP's, which Landlock keeps to ports.
type sockets struct {
	// files are sockets of files and of names (unix(7)): one that listens at a path lets root in whatever Landlock says of paths, and a
	// Docker engine's makes whoever speaks to it root of everything.
	files bool
	// names are looked up by UDP, which then is free: Landlock knows no ports of it (before its ABI 10).
	names bool
}

// keep has the kernel refuse this process, and all that it starts, every other socket, and every other way into a connection.
func (s sockets) keep() error {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		slog.Warn("the system calls of this architecture are not filtered: what keeps this process from the machine's sockets, and from other ports by ways that Landlock doesn't know, is that it is told of none", "architecture", runtime.GOARCH)
		return nil
	}
	filter, err := bpf.Assemble(s.filter(arch))
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
	program := unix.SockFprog{Len: uint16(len(text)), Filter: &text[0]}                                                                                //nolint:gosec // G115: some dozens
	other, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))) //nolint:gosec // G103: how seccomp(2) takes it
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EINVAL):
		slog.Warn("this kernel filters no system calls: what keeps this process from the machine's sockets, and from other ports by ways that Landlock doesn't know, is that it is told of none", "error", errno)
	case errno != 0:
		return fmt.Errorf("filter this process's system calls: %w", errno)
	case other != 0:
		return fmt.Errorf("filter this process's system calls: thread %d has a filter of its own", other)
	}
	return nil
}

// filter is what the kernel goes by. Calls in the form of another architecture are refused, for their numbers are others, and so is what does
// calls without calling. Landlock asks about connect(2) on a socket that is TCP's by its protocol, so what connects in another way or
// by another protocol is refused as well: multipath TCP, SCTP and SMC, which speak to who listens by TCP, the machine's host (vsock(7)), a
// connection that sending makes (TCP Fast Open), and a TCP socket that an upper layer turns into something else.
func (s sockets) filter(arch uint32) []bpf.Instruction {
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: archAt, Size: word32},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1}, refused,
		bpf.LoadAbsolute{Off: callAt, Size: word32},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1}, refused,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_IO_URING_SETUP, SkipTrue: 1}, refused,
	}
	out = append(out, at(unix.SYS_SOCKET, s.made())...)
	if !s.files {
		// One of a pair that takes datagrams can send to any other's name.
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKETPAIR, SkipTrue: 1}, refused)
	}
	for _, sends := range []struct{ call, flags uint32 }{{unix.SYS_SENDTO, 3}, {unix.SYS_SENDMSG, 2}, {unix.SYS_SENDMMSG, 3}} {
		out = append(out, at(sends.call, []bpf.Instruction{
			arg(sends.flags), bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.MSG_FASTOPEN, SkipTrue: 1}, refused, allowed,
		})...)
	}
	out = append(out, at(unix.SYS_SETSOCKOPT, []bpf.Instruction{
		arg(1), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOL_TCP, SkipTrue: 1}, allowed,
		arg(2), bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.TCP_ULP, SkipTrue: 1}, refused, allowed,
	})...)
	return append(out, allowed)
}

// made judges socket(2): its arguments are the family, the type and the protocol. Who looks at the machine's addresses, as the C library does
// before it looks up a name, asks the kernel (rtnetlink(7)).
func (s sockets) made() []bpf.Instruction {
	kinds, protocols := []uint32{unix.SOCK_STREAM}, []uint32{unix.IPPROTO_IP, unix.IPPROTO_TCP}
	if s.names {
		kinds, protocols = append(kinds, unix.SOCK_DGRAM), append(protocols, unix.IPPROTO_UDP)
	}
	out := []bpf.Instruction{arg(0)}
	if s.files {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_UNIX, SkipTrue: 1}, allowed)
	}
	out = append(out,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_NETLINK, SkipTrue: 4},
		arg(2), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 1}, refused, allowed)
	out = append(out, none(unix.AF_INET, unix.AF_INET6)...)
	out = append(out, arg(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: kindOf})
	out = append(out, none(kinds...)...)
	out = append(out, arg(2))
	out = append(out, none(protocols...)...)
	return append(out, allowed)
}

// What the kernel does with a call.
var (
	refused = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	allowed = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
)

// arg loads the lower half of an argument of the call.
func arg(n uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: argsAt + n*word64, Size: word32}
}

// at has a call, whose number is loaded, judged by the instructions, which come to an end in each case.
func at(call uint32, judged []bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: uint8(len(judged))}}, judged...) //nolint:gosec // G115: some two dozen
}

// none refuses the call where what is loaded is none of these.
func none(of ...uint32) (out []bpf.Instruction) {
	for i, v := range of {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(of) - i)}) //nolint:gosec // G115: a few
	}
	return append(out, refused)
}
