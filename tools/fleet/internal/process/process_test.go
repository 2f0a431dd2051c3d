package process_test

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"a3os.app/tools/fleet/internal/process"
)

func TestNumberOfAnotherProcessIsNotTheProcess(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := process.Of(cmd.Process.Pid)
	if err != nil || !id.Alive() {
		t.Fatal(id, err)
	}
	earlier := process.ID{PID: id.PID, Started: "before"}
	if earlier.Alive() {
		t.Error("a process that had this number before is said to run")
	}
	if err := earlier.Signal(syscall.SIGKILL); err != nil || !id.Alive() {
		t.Errorf("the signal for another process reached this one (%v)", err)
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as asked
	if id.Alive() {
		t.Error("a process that ended is said to run")
	}
	if _, err := process.Of(id.PID); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("naming it gives %v", err)
	}
}

func TestMemoryOfThisProcessIsKnown(t *testing.T) {
	if _, err := os.Stat("/proc/self/smaps_rollup"); err != nil {
		t.Skip("what a process holds of memory is not tested: this system doesn't tell")
	}
	if got := process.Memory(os.Getpid()); got < 1<<20 {
		t.Errorf("it is said to be %d bytes", got)
	}
}
