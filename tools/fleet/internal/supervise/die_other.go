//go:build !linux

package supervise

import "syscall"

// dieWithParent can't be had here: what a killed supervisor leaves is found by its list of processes when the next one starts.
func dieWithParent(*syscall.SysProcAttr) {}
