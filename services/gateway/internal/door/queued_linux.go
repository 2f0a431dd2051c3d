package door

import (
	"net"
	"os"
	"syscall"
)

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
