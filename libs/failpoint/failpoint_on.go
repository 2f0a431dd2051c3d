//go:build failpoint && linux

package failpoint

import (
	"fmt"
	"log/slog"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	file     = "failpoint"
	variable = "A3_FAILPOINT"
)

var (
	mu sync.Mutex
	// passed is how often the point of a line was passed since the line is there.
	passed = map[string]int{}
	// given is the line of the environment. A role's configuration must not find it there, for it refuses what it doesn't know.
	given = func() string {
		line := os.Getenv(variable)
		_ = os.Unsetenv(variable)
		return line
	}()
)

// Given is the line of the environment, for a process that starts another with none.
func Given() string {
	mu.Lock()
	defer mu.Unlock()
	return given
}

// Give is that line in the process that was started.
func Give(line string) {
	mu.Lock()
	defer mu.Unlock()
	given = line
}

// Here does what is said of point.
func Here(point string) error {
	mu.Lock()
	action := take(point)
	mu.Unlock()
	if action == "" {
		return nil
	}
	slog.Warn("failpoint", "point", point, "action", action)
	switch action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "stop":
		// To this very thread, which then goes no further; to the process, another one would take it, and this one go on until that has
		// run. Somebody else sends SIGCONT.
		runtime.LockOSThread()
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
		runtime.UnlockOSThread()
		return nil
	case "error":
		return fmt.Errorf("failpoint %s", point)
	}
	d, err := time.ParseDuration(action)
	if err != nil {
		return fmt.Errorf("failpoint %s: there is no action %q", point, action)
	}
	time.Sleep(d)
	return nil
}

// Panic panics with value, printed, where it is said of point.
func Panic(point string, value any) {
	if slices.Contains(lines(), point+" panic") {
		panic(fmt.Sprintf("%v", value))
	}
}

// Duration is d, or what is said of point.
func Duration(point string, d time.Duration) time.Duration {
	for _, line := range lines() {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == point {
			if said, err := time.ParseDuration(f[1]); err == nil {
				return said
			}
		}
	}
	return d
}

func lines() []string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return []string{given}
	}
	return append(strings.Split(string(raw), "\n"), given)
}

// take counts a passing of point, and answers the action whose turn it is. Its line is taken away.
func take(point string) string {
	all := lines()
	for i, line := range all {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if is, _ := path.Match(f[0], point); !is {
			continue
		}
		if len(f) > 2 && f[2] == "each" {
			return f[1]
		}
		at := 1
		if len(f) > 2 {
			at, _ = strconv.Atoi(f[2])
		}
		if passed[line]++; passed[line] < at {
			continue
		}
		delete(passed, line)
		if line == given {
			given = ""
			return f[1]
		}
		rest := append(append([]string{}, all[:i]...), all[i+1:len(all)-1]...)
		// Renamed into place, so that whoever is killed leaves the old file or the new one.
		if os.WriteFile(file+".new", []byte(strings.Join(rest, "\n")), 0o600) == nil {
			_ = os.Rename(file+".new", file)
		}
		return f[1]
	}
	return ""
}
