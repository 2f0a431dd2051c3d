// Package process names operating system processes so that a number which was used again is never mistaken for the process that had
// it before.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// ID is a process: its number, and when it started. The zero ID is no process.
type ID struct {
	// PID is its number.
	PID int `json:"pid"`
	// Started is opaque text that no other process with this number has.
	Started string `json:"started"`
}

// Self is this process.
func Self() (ID, error) { return Of(os.Getpid()) }

// Of names a process that runs. It fails with os.ErrProcessDone where there is none, or only a corpse that its parent hasn't buried.
func Of(pid int) (ID, error) {
	if pid <= 1 {
		return ID{}, os.ErrProcessDone
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) && hasProc() {
		return ID{}, os.ErrProcessDone
	}
	if err != nil {
		return ofPS(pid)
	}
	// The command in parentheses can hold anything, so fields are counted from its end (proc(5)): state is the third, start time
	// the twenty-second.
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	fields := strings.Fields(string(rest))
	if len(fields) < 20 {
		return ID{}, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return ID{}, os.ErrProcessDone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ID{}, fmt.Errorf("read which boot this is: %w", err)
	}
	return ID{PID: pid, Started: fields[19] + "@" + strings.TrimSpace(string(boot))}, nil
}

func hasProc() bool {
	_, err := os.Stat("/proc/self/stat")
	return err == nil
}

func ofPS(pid int) (ID, error) {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output() //nolint:noctx // it answers at once
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return ID{}, os.ErrProcessDone
	}
	return ID{PID: pid, Started: string(bytes.TrimSpace(out))}, nil
}

// Alive says whether exactly this process still runs.
func (i ID) Alive() bool {
	now, err := Of(i.PID)
	return err == nil && now == i
}

// Signal signals exactly this process; where it is gone, nothing happens.
func (i ID) Signal(sig syscall.Signal) error {
	if !i.Alive() {
		return nil
	}
	if err := syscall.Kill(i.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", i.PID, err)
	}
	return nil
}

// Memory is how much memory a process takes in bytes, its share of what it shares counted in parts (PSS); 0 where that can't be told.
func Memory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
