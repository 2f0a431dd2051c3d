//go:build !linux

package supervise

import "syscall"

// readAll can't be had here: who asks for it has less than it asked for.
func readAll(*syscall.SysProcAttr) {}
