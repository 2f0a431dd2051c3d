package operate

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// kept are root's rights that steps take (capabilities(7)): to give files to users and groups, and to change what is theirs by then. Which
// files, Landlock says.
const kept = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// asUsers are those that it takes to start a program as another user, as a migration is.
const asUsers = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID

// withoutPower has this process, which may be root's, give up every other right of root's, for good: with one to make devices, to load a
// module or to look into processes, nothing that is said of paths would hold it. starts says that it starts programs.
func withoutPower(starts bool) error {
	rights := uint32(kept)
	if starts {
		rights |= asUsers
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("look what rights this process has: %w", err)
	}
	left := [2]unix.CapUserData{{Effective: have[0].Effective & rights, Permitted: have[0].Permitted & rights}}
	// Of each thread: the kernel keeps them by thread, and a program that is started would get them back without the first call.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("give up new privileges: %w", errno)
	}
	if _, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&left[0])), 0); errno != 0 { //nolint:gosec // G103: how capset(2) takes them
		return fmt.Errorf("give up rights of root's: %w", errno)
	}
	return nil
}
