package plane

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"a3os.app/tools/fleet/internal/settings"
)

// Whose port is taken by the very plane in that home, which is another user's, is told so, and not to choose another port.
func TestPlaneOfAnotherUserIsSaidToBeTheirs(t *testing.T) {
	home, err := os.MkdirTemp("", "a3-theirs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	const walked, closed = 0o711, 0
	if err := errors.Join(os.WriteFile(filepath.Join(home, "plane.json"), []byte("{}"), closed), os.Chmod(home, walked)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p, err := New(settings.Settings{Home: home, Listen: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan [2]error)
	go func() {
		if os.Geteuid() == 0 {
			// This thread alone opens files as nobody, and ends with the goroutine.
			runtime.LockOSThread()
			const nobody = 65_534
			if err := syscall.Setfsuid(nobody); err != nil {
				t.Error(err)
			}
		}
		said <- [2]error{p.check(t.Context()), p.openExisting()}
	}()
	for _, err := range <-said {
		if err == nil || !strings.Contains(err.Error(), "another user's") {
			t.Errorf("it is told %v", err)
		}
	}
}
