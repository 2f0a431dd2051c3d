// Package netns does things in the network namespace of another process, as in a container: what is reached there is what that container
// reaches. It is for root, on Linux.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// In runs do with the network of a process. What do starts in other goroutines is not there; a net.Dialer that is given an address, and
// no name, starts none.
func In(pid int, do func() error) error {
	ended := make(chan error)
	go func() {
		// The thread is given up rather than used by others where it can't be led back: its goroutine ends with it locked.
		runtime.LockOSThread()
		ended <- in(fmt.Sprintf("/proc/%d/ns/net", pid), do)
	}()
	return <-ended
}

func in(there string, do func() error) error {
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find this thread's network: %w", err)
	}
	defer here.Close()
	if err := enter(there); err != nil {
		return err
	}
	err = do()
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("lead this thread back to its own network: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

func enter(path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("find the network of a process: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network of a process (only root may): %w", err)
	}
	return nil
}
