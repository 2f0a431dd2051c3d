package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// available says that the kernel can confine a process to files; without it this one, which may read everything, would be bound by
// nothing but its own code.
func available() error {
	if abi, err := landlocksys.LandlockGetABIVersion(); err != nil || abi < 1 {
		return errors.New("this kernel has no Landlock, without which a process that may read every file could not be kept from any")
	}
	return nil
}

// readOnly keeps what waits for who asks from writing anything, from any network, from what lies in the closed directories, and from
// disks and processes themselves, of which it sees the names. It starts the process that reads, which can have no more rights to files than this one. Landlock
// allows and never forbids, so that everything beside the way to a closed directory is allowed.
func readOnly(program string, closed []string) error {
	if err := available(); err != nil {
		return err
	}
	rules := []landlock.Rule{landlock.ROFiles(program, os.DevNull), landlock.PathAccess(landlocksys.AccessFSReadDir, "/dev", "/proc").IgnoreIfMissing()}
	shut := []string{"/dev", "/proc", "/sys"}
	for _, dir := range closed {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		shut = append(shut, filepath.Clean(dir))
	}
	open, err := beside("/", shut)
	if err != nil {
		return fmt.Errorf("find what may be read: %w", err)
	}
	for _, path := range open {
		// A directory's rights are refused for a file, and a file's alone are enough for it.
		if about, err := os.Lstat(path); err == nil && about.IsDir() {
			rules = append(rules, landlock.RODirs(path).IgnoreIfMissing())
		} else if err == nil && about.Mode().IsRegular() {
			rules = append(rules, landlock.ROFiles(path).IgnoreIfMissing())
		}
	}
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("give up writing: %w", err)
	}
	return nil
}

// beside answers what is in a directory and neither in a shut one nor on the way to it: whatever is in that is looked through in turn.
func beside(dir string, shut []string) ([]string, error) {
	if slices.Contains(shut, dir) {
		return nil, nil
	}
	way := strings.TrimSuffix(dir, "/") + "/"
	if !slices.ContainsFunc(shut, func(s string) bool { return strings.HasPrefix(s, way) }) {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var open []string
	for _, e := range entries {
		more, err := beside(filepath.Join(dir, e.Name()), shut)
		if err != nil {
			return nil, err
		}
		open = append(open, more...)
	}
	return open, nil
}

// shutIn gives up every right: no path can be opened, no program run, no address reached, and no capability is left or can be had.
func shutIn() error {
	if err := available(); err != nil {
		return err
	}
	if err := landlock.V5.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("give up all files: %w", err)
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("give up what is handed on: %w", err)
	}
	if err := cap.NewSet().SetProc(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// peer is whom the kernel says the other end of a connection was when it connected.
func peer(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) //nolint:gosec // a descriptor is an int
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, os.NewSyscallError("getsockopt", credErr)
	}
	return cred.Uid, nil
}
