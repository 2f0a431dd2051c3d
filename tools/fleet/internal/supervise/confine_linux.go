package supervise

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// mostFiles is how many files a process may have open: room for a gateway's connections, and a bound.
const mostFiles = 1 << 16

// confineProcess is what this process and all that it starts go without: core files, which would hold what the memory held, and more
// open files than the bound.
func confineProcess() error {
	closeOnExec()
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switch core files off: %w", err)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("ask how many files may be open: %w", err)
	}
	files.Max = min(files.Max, mostFiles)
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("bound how many files may be open: %w", err)
	}
	return nil
}

// confineThread is what no child of the calling thread has: a way to more power by what it executes (setuid programs, file
// capabilities). One that became another user has no capability either, and can get none.
func confineThread() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges (no_new_privs): %w", err)
	}
	return nil
}

// closeOnExec keeps what whoever started this process had open from what this process starts.
func closeOnExec() {
	const first = 3
	err := unix.CloseRange(first, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil || !errors.Is(err, syscall.ENOSYS) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EPERM) {
		return
	}
	// Before Linux 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			syscall.CloseOnExec(fd)
		}
	}
}
