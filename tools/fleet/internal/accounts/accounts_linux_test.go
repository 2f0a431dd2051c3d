package accounts

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// mainThreadOfAnother has the test program say, from another thread, what it may, while its main thread works as another user.
const mainThreadOfAnother = "main-thread-of-another"

func isMainThreadOfAnother() bool { return len(os.Args) == 2 && os.Args[1] == mainThreadOfAnother }

func init() {
	if isMainThreadOfAnother() {
		runtime.LockOSThread() // the main goroutine to the main thread
	}
}

func TestMain(m *testing.M) {
	if isMainThreadOfAnother() {
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65_000, 0, 0)
		said := make(chan string)
		go func() { said <- Possible() }()
		_, _ = fmt.Fprint(os.Stdout, <-said)
		os.Exit(int(errno))
	}
	os.Exit(m.Run())
}

func TestWhatRootMayIsNotAskedOfAThreadThatIsAnothers(t *testing.T) {
	if why := Possible(); why != "" {
		t.Skip(why)
	}
	out, err := exec.CommandContext(t.Context(), os.Args[0], mainThreadOfAnother).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("while its main thread works as another user, root is told: %s (%v)", out, err)
	}
}
