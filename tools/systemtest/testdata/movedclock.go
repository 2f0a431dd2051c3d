// This file is laid into package time of a program under test (go build -overlay), so that everything in it, the standard library and
// all that it uses, tells a time that a test moves.

package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// movedFile is written over in the program that was built: seconds to add stand in the file that it names, which ends with a zero octet.
var movedFile = "A3-MOVED-CLOCK                                                                                                                                                                                                \x00"

var movedBy, movedRead atomic.Int64

// moved is how many seconds the clock is ahead of the machine's. What is measured by the monotonic clock passes as always.
func moved() int64 {
	const fresh = 10 * int64(Millisecond)
	now, read := runtimeNano(), movedRead.Load()
	if now-read > fresh && movedRead.CompareAndSwap(read, now) {
		if n, ok := readMoved(); ok {
			movedBy.Store(n)
		}
	}
	return movedBy.Load()
}

// readMoved neither allocates nor tells the scheduler of its system calls: the runtime asks for the time on its own stacks too.
func readMoved() (seconds int64, ok bool) {
	const here = -100 // AT_FDCWD
	dir := here
	fd, _, failed := syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(unsafe.StringData(movedFile))), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if failed != 0 {
		return 0, false
	}
	var text [20]byte
	n, _, failed := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&text)), uintptr(len(text)))
	syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
	if failed != 0 {
		return 0, false
	}
	for _, c := range text[:n] {
		if c >= '0' && c <= '9' {
			seconds, ok = seconds*10+int64(c-'0'), true
		}
	}
	return seconds, ok
}
