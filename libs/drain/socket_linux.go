package drain

import (
	"math"
	"net"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// noMoreSYN makes the kernel pass over requests for new connections on a listening socket, as if they were lost on the way, while
// those that are half-way are completed and wait to be accepted. A client sends again after a second, and finds nobody or the next
// process; closing the socket instead would reset whoever had its connection, and perhaps its request, on the way just then.
func noMoreSYN(l *net.TCPListener) {
	raw, err := l.SyscallConn()
	if err != nil {
		return
	}
	const flags, syn, ack = 13, 0x02, 0x10 // RFC 9293 §3.1; a filter of a TCP socket begins at the TCP header
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: flags, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: syn | ack},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: syn, SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: math.MaxUint32},
	})
	if err != nil {
		return
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	_ = raw.Control(func(fd uintptr) {
		// Where it can't be had, a few clients may be reset.
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}) //nolint:gosec // five instructions
	})
}

// queued accepts what waits in a socket's queue, without waiting for more.
func queued(l *net.TCPListener) (conns []net.Conn) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			// Go's sockets don't block, so this ends with EAGAIN when the queue is empty.
			nfd, _, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err == syscall.EINTR || err == syscall.ECONNABORTED { //nolint:errorlint // a system call answers the number itself
				continue
			}
			if err != nil {
				return
			}
			file := os.NewFile(uintptr(nfd), "accepted")
			conn, err := net.FileConn(file) // which duplicates the descriptor
			_ = file.Close()
			if err == nil {
				conns = append(conns, conn)
			}
		}
	})
	return conns
}
