//go:build linux

package machine

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	connector "a3os.app/services/discoveryworker/internal/connector/unix"

	"golang.org/x/sys/unix"
)

var (
	as     = flag.String("machine.as", "", "what this process is, when a test has started it: reader, snapshot, ask, waits or left")
	shut   = flag.String("machine.closed", "", "a directory that stays closed")
	socket = flag.String("machine.socket", "", "the reader's socket")
)

// Users that are nobody's, as long as nobody else takes them: the reader, who may ask, and who may not.
const (
	readerUser = 61190 + iota
	clientUser
	otherUser
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *as == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch *as {
	case "reader":
		err = Reader{Socket: *socket, UID: clientUser, Closed: []string{filepath.Join(filepath.Dir(*socket), "closed")}, Snapshot: []string{os.Args[0], "-machine.as=snapshot"}}.Run(ctx)
	case "snapshot":
		err = Snapshot(ctx, os.Stdout)
	case "ask":
		var seen *connector.Snapshot
		if seen, err = Ask(*socket)(ctx); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(seen)
		}
	case "left":
		err = left(ctx)
	case "waits":
		err = waits(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

// command runs this test as a user, with the right to read everything where it reads.
func command(t *testing.T, user uint32, reads bool, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no process can be given the right to read everything")
	}
	if err := available(); err != nil {
		t.Skipf("the reader of this machine is not tested: %v", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program(t), args...) // it is ended by its test
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, Pdeathsig: syscall.SIGKILL}
	if reads {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_DAC_READ_SEARCH}
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	cmd.Dir = "/"
	return cmd
}

// program is this test where every user can run it.
func program(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "a3-machine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "test"), text, 0o755)) //nolint:gosec // others run it
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "test")
}

func TestReaderAnswersItsClientAlone(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "a3-machine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, readerUser, 0)); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "socket")
	reader := command(t, readerUser, true, "-machine.as=reader", "-machine.socket="+at)
	var log strings.Builder
	reader.Stderr = &log
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = reader.Process.Signal(syscall.SIGTERM)
		if err := reader.Wait(); err != nil {
			t.Errorf("the reader did not end well: %v: %s", err, log.String())
		}
	})
	await(t, at)
	out, err := command(t, clientUser, false, "-machine.as=ask", "-machine.socket="+at).CombinedOutput()
	if err != nil {
		t.Fatalf("its client was not answered: %v: %s; %s", err, out, log.String())
	}
	var seen connector.Snapshot
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatal(err)
	}
	if got := seen.Read["/etc/shadow"]; got.Fault != nil || !strings.Contains(string(got.Bytes), "root:") {
		t.Errorf("the shadow file was not read: %v", got.Fault)
	}
	for _, user := range []uint32{otherUser, readerUser} {
		out, err := command(t, user, false, "-machine.as=ask", "-machine.socket="+at).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "closed without an answer") {
			t.Errorf("user %d was answered: %v: %.200s", user, err, out)
		}
	}
}

func await(t *testing.T, at string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		if conn, err := net.Dial("unix", at); err == nil { //nolint:noctx // it answers at once or not at all
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the reader does not listen")
		}
	}
}

// waits tries what somebody would try who had taken over the process that waits for who asks.
func waits(ctx context.Context) error {
	for _, path := range []string{"/etc/shadow", filepath.Join(filepath.Dir(*shut), "beside"), filepath.Join(*shut, "key")} {
		if _, err := os.ReadFile(path); err != nil {
			return fmt.Errorf("nothing to give up: %w", err)
		}
	}
	if err := readOnly(os.Args[0], []string{*shut}); err != nil {
		return err
	}
	tried := map[string]error{}
	_, tried["read what is closed"] = os.ReadFile(filepath.Join(*shut, "key"))
	_, tried["list what is closed"] = os.ReadDir(*shut)
	_, tried["read a process's environment"] = os.ReadFile("/proc/self/environ")
	_, tried["open a device"] = os.Open("/dev/zero")
	tried["write a file"] = os.WriteFile(filepath.Join(os.TempDir(), "a3-machine-waits"), nil, 0o600)
	var d net.Dialer
	_, tried["reach this machine"] = d.DialContext(ctx, "tcp", "127.0.0.1:22")
	for what, err := range tried {
		if err == nil {
			fmt.Fprintln(os.Stdout, "could", what)
		}
	}
	for _, path := range []string{"/etc/shadow", filepath.Join(filepath.Dir(*shut), "beside")} {
		if _, err := os.ReadFile(path); err != nil {
			return fmt.Errorf("what it is there to read is closed to it: %w", err)
		}
	}
	fmt.Fprintln(os.Stdout, "reads what is open")
	return nil
}

func TestWhatWaitsSeesNothingOfThePlane(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "a3-machine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	closed := filepath.Join(dir, "plane")
	if err := errors.Join(os.Mkdir(closed, 0o700), os.WriteFile(filepath.Join(closed, "key"), []byte("x"), 0o600), os.WriteFile(filepath.Join(dir, "beside"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, readerUser, true, "-machine.as=waits", "-machine.closed="+closed).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "reads what is open" {
		t.Errorf("left to the process that waits: %s", got)
	}
}

// left tries, after everything was given up, what somebody would try who had taken the process over while it reads what users wrote.
func left(ctx context.Context) error {
	if _, err := os.ReadFile("/etc/shadow"); err != nil {
		return fmt.Errorf("nothing to give up: %w", err)
	}
	g, err := connector.Gather(ctx, "/")
	if err != nil {
		return err
	}
	if err := shutIn(); err != nil {
		return err
	}
	tried := map[string]error{}
	for _, path := range []string{"/etc/shadow", "/etc/passwd", "/proc/self/status", "/root"} {
		_, err := os.Open(path)
		tried["open "+path] = err
	}
	tried["write a file"] = os.WriteFile("/tmp/a3-machine-left", nil, 0o600)
	tried["run a program"] = exec.CommandContext(ctx, "/bin/true").Run()
	fd, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/etc/shadow", 0)
	if err == nil {
		var h int
		if h, err = unix.OpenByHandleAt(unix.AT_FDCWD, fd, unix.O_RDONLY); err == nil {
			_ = unix.Close(h)
		}
	}
	tried["open by handle"] = err
	var d net.Dialer
	_, tried["reach this machine"] = d.DialContext(ctx, "tcp", "127.0.0.1:22")
	_, tried["reach another machine"] = d.DialContext(ctx, "tcp", "192.0.2.1:80")
	tried["become root"] = syscall.Setuid(0)
	tried["trace its parent"] = unix.PtraceAttach(os.Getppid())
	for what, err := range tried {
		if err == nil {
			fmt.Fprintln(os.Stdout, "could", what)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil || data != [2]unix.CapUserData{} {
		fmt.Fprintln(os.Stdout, "has capabilities left:", data, err)
	}
	seen, err := g.Read()
	if err != nil {
		return err
	}
	if c := seen.Read["/etc/shadow"]; c.Fault != nil {
		return c.Fault
	}
	fmt.Fprintln(os.Stdout, "read what was open")
	return nil
}

func TestNothingIsLeftWhenWhatUsersWroteIsRead(t *testing.T) {
	out, err := command(t, readerUser, true, "-machine.as=left").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "read what was open" {
		t.Errorf("left to a process that reads what users wrote: %s", got)
	}
}
