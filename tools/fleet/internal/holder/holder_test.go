package holder_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/holder"
)

// envShow has this test be another process: it shows itself in that directory, says its place, and goes on until it is killed.
const envShow = "A3_TEST_SHOW_HOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envShow); dir != "" {
		place, err := holder.Memory(dir).Place()
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(place + "\n")
		<-time.After(time.Minute)
		return
	}
	os.Exit(m.Run())
}

func TestProcessThatIsGoneIsKnownByItsPlace(t *testing.T) {
	m := holder.Memory(filepath.Join(t.TempDir(), "leases"))
	if m.Ended("vm, process 7 (abcdefgh)") {
		t.Error("a place is said to be gone before any was shown")
	}
	own, err := m.Place()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.Place(); err != nil || again != own {
		t.Errorf("this process works at %q and at %q (%v)", own, again, err)
	}
	other := exec.CommandContext(t.Context(), os.Args[0])
	other.Env = append(os.Environ(), envShow+"="+string(m))
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	place := strings.TrimSpace(line)
	if place == own || m.Ended(place) {
		t.Errorf("a process that runs works at %q, and is said to be gone: %v", place, m.Ended(place))
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	if !m.Ended(place) || m.Ended(own) || m.Ended(place+"x") {
		t.Errorf("gone are %v, %v and %v; want the first alone", m.Ended(place), m.Ended(own), m.Ended(place+"x"))
	}
}
