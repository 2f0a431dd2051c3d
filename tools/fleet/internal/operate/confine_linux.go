package operate

import (
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"a3os.app/tools/fleet/internal/platform"
)

// machine is what every process reads, of which nothing is a tenant's: its libraries, what the clock shows here, and how names are looked up.
var machine = []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo", "/proc/self", "/proc/sys/net/core/somaxconn", "/sys/kernel/mm/transparent_hugepage"}

// changes are what steps do below the directories that they write. A link is none of it, nor a device or a pipe: who works with the engine's or
// with root's power at such a path would be led elsewhere by one. One that is there can be removed, and neither moved nor renamed.
const changes = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate |
	ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir)

// The ABI of Landlock that knows files, and the first that knows ports of TCP's: Linux 5.13 and 6.7.
const knowsFiles, knowsPorts = 1, 4

// names is the port by which names are looked up.
const names = 53

// confine keeps this process, and all that it starts, to the paths, ports and sockets of the delegation (landlock(7), seccomp(2)), and
// to few of root's rights, for good. A kernel that
// knows less keeps it to what it can; what it knows nothing of, files or ports, is told aloud.
func confine(d platform.Delegation) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		abi = 0
	}
	return confineBy(abi, err, d)
}

// confineBy does so on a kernel whose Landlock has that ABI; where it has none that is 0, and why says more.
func confineBy(abi int, why error, d platform.Delegation) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("keep its memory to itself: %w", err)
	}
	if err := withoutPower(len(d.Runs) > 0); err != nil {
		return err
	}
	switch {
	case abi < knowsFiles:
		slog.Warn("this kernel has no Landlock: what keeps this process to one tenant's files and ports is that it is told of no others", "error", why)
	case abi < knowsPorts:
		slog.Warn("this kernel's Landlock knows no ports, which it does since Linux 6.7: what keeps this process to its own is that it is told of no others", "abi", abi)
	}
	if abi >= knowsFiles {
		if err := toPathsAndPorts(d); err != nil {
			return err
		}
	}
	return sockets{files: d.Sockets, names: slices.Contains(d.Ports, names)}.keep()
}

// toPathsAndPorts keeps this process to those of the delegation, as far as this kernel's Landlock knows them.
func toPathsAndPorts(d platform.Delegation) error {
	var rules []landlock.Rule
	for _, path := range append(append(append([]string{}, machine...), d.Reads...), d.Runs...) {
		switch info, err := os.Stat(path); {
		case err != nil:
		case info.IsDir():
			rules = append(rules, landlock.RODirs(path))
		default:
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	for _, path := range d.Writes {
		info, err := os.Lstat(path)
		switch {
		case os.IsNotExist(err):
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is no directory: the plane makes nothing else there, take it away", path)
		default:
			rules = append(rules, landlock.PathAccess(changes, path))
		}
	}
	rules = append(rules, landlock.RWFiles("/dev/null"))
	for _, port := range d.Ports {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	return landlock.V7.BestEffort().Restrict(rules...)
}
