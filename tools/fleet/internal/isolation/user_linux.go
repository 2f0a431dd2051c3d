package isolation

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// asUser runs do as a user of the machine, as far as files go: with that user's file-system ids and groups, by which the kernel also
// takes away what root may with files (capabilities(7), "Effect of user ID changes"). It is done on a thread of its own, which ends
// with it.
func asUser(u User, do func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread goes when the goroutine ends, so no other one runs with these ids.
		runtime.LockOSThread()
		result <- func() error {
			groups := []uint32{}
			for _, g := range u.Groups {
				groups = append(groups, uint32(g)) //nolint:gosec // group ids are small and positive
			}
			var first unsafe.Pointer
			if len(groups) > 0 {
				first = unsafe.Pointer(&groups[0]) //nolint:gosec // the kernel reads it during the call, as package syscall has it
			}
			// The system calls themselves act on this thread alone; package syscall's act on all.
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
				return fmt.Errorf("take on the groups of uid %d: %w", u.UID, errno)
			}
			set := func(call uintptr, id int) error {
				_, _, _ = syscall.RawSyscall(call, uintptr(id), 0, 0) // answers the id before, whether it worked or not
				if now, _, _ := syscall.RawSyscall(call, ^uintptr(0), 0, 0); int(now) != id {
					return fmt.Errorf("take on the file-system id %d: the kernel keeps %d", id, int(now))
				}
				return nil
			}
			if err := set(syscall.SYS_SETFSGID, u.GID); err != nil {
				return err
			}
			if err := set(syscall.SYS_SETFSUID, u.UID); err != nil {
				return err
			}
			return do()
		}()
	}()
	return <-result
}
