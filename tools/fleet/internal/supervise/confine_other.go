//go:build !linux

package supervise

import "syscall"

// confineProcess switches core files off, which would hold what the memory held.
func confineProcess() error { return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) }

// confineThread can do nothing here: other systems have no such thing as no_new_privs.
func confineThread() error { return nil }

// closeOnExec can't be had here for descriptors whose numbers aren't known.
func closeOnExec() {}
