// Package proctest looks at processes that tests stop and kill.
package proctest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stopped is the id of a process, or of one that it started, that is stopped by a signal; 0 for none.
func Stopped(parent int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state ppid …, and a name may hold anything (proc_pid_stat(5)).
		text := string(raw)
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		pid, _ := strconv.Atoi(text[:strings.IndexByte(text, ' ')])
		ppid, _ := strconv.Atoi(f[1])
		if f[0] == "T" && (pid == parent || ppid == parent) {
			return pid
		}
	}
	return 0
}
