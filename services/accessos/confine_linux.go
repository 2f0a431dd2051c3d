package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// confine keeps what this process holds in memory from files and from its neighbours, whoever started it and however: no core file is
// written, and no other process of the same user may look into it (ptrace(2), /proc/PID/mem, /proc/PID/environ).
func confine() error {
	return errors.Join(
		syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
	)
}
