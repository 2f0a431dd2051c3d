package local

import "golang.org/x/sys/unix"

// noLandlock says that the kernel can't confine a process to files, in words; empty where it can (landlock_create_ruleset(2)).
func noLandlock() string {
	const version = 1
	if abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version); errno != 0 || abi < 1 {
		return "this kernel has no Landlock"
	}
	return ""
}
