package operate

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"a3os.app/tools/fleet/internal/accounts"
	"a3os.app/tools/fleet/internal/platform"
)

// mixedUp is what a process tries that works on one tenant and takes another one's paths for its own.
type mixedUp struct {
	Delegation        platform.Delegation
	Mine, Theirs      string
	MyPort, TheirPort string
	// Socket is all that is tried where there is one.
	Socket string
	// Leading says that what would lead out of its own directory is all that is tried.
	Leading bool
	// Program is all that is started, as nobody, where there is one.
	Program string
}

const variable = "A3_TEST_MIXED_UP"

func TestMain(m *testing.M) {
	text := os.Getenv(variable)
	if text == "" {
		os.Exit(m.Run())
	}
	var x mixedUp
	err := json.Unmarshal([]byte(text), &x)
	if err == nil {
		err = confine(x.Delegation)
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, "confine:", err)
		os.Exit(1)
	}
	if x.Socket != "" {
		c, err := net.Dial("unix", x.Socket)
		if err == nil {
			err = c.Close()
		}
		// The kernel takes no notice of the upper half of the family, and a filter of all of it would.
		const above = 1 << 32
		fd, _, errno := unix.Syscall(unix.SYS_SOCKET, above|unix.AF_UNIX, unix.SOCK_STREAM, 0)
		var odd error
		if errno != 0 {
			odd = errno
		} else {
			odd = unix.Close(int(fd))
		}
		fmt.Fprintln(os.Stdout, outcome(err), outcome(odd))
		os.Exit(0)
	}
	if x.Program != "" {
		cmd := exec.Command(x.Program) //nolint:gosec,noctx // it is the test's, and ends at once
		cmd.Env, cmd.Dir = []string{}, "/"
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		fmt.Fprintln(os.Stdout, outcome(cmd.Run()))
		os.Exit(0)
	}
	if x.Leading {
		x.lead()
		os.Exit(0)
	}
	for _, f := range []struct {
		what string
		do   func(dir, port string) error
	}{
		{"read", func(dir, _ string) error { _, err := os.ReadFile(filepath.Join(dir, "key")); return err }},
		{"list", func(dir, _ string) error { _, err := os.ReadDir(dir); return err }},
		{"write", func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, "key"), []byte("mine"), 0o600) }},
		{"make", func(dir, _ string) error { return os.Mkdir(filepath.Join(dir, "new"), 0o700) }},
		{"rename", func(dir, _ string) error { return os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "old")) }},
		{"remove", func(dir, _ string) error { return os.RemoveAll(filepath.Join(dir, "key")) }},
		{"connect", func(_, port string) error {
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err == nil {
				err = c.Close()
			}
			return err
		}},
	} {
		for who, err := range map[string]error{"mine": f.do(x.Mine, x.MyPort), "theirs": f.do(x.Theirs, x.TheirPort)} {
			fmt.Fprintf(os.Stdout, "%s %s: %s\n", f.what, who, outcome(err))
		}
	}
	os.Exit(0)
}

// lead tries, in the process's own directory, what would lead whoever comes there with more power to another place; and what root could do
// about the kernel's doors. The lines that begin with a plus are controls.
func (x mixedUp) lead() {
	mine := func(name string) string { return filepath.Join(x.Mine, name) }
	const device = 0o600
	null := int(unix.Mkdev(1, 3)) //nolint:gosec // G115: a small number
	for _, f := range []struct {
		what string
		do   func() error
	}{
		{"+a file", func() error { return os.WriteFile(mine("file"), nil, 0o600) }},
		{"+its name", func() error { return os.Rename(mine("file"), mine("renamed")) }},
		{"+another's file", func() error { return os.Chown(mine("renamed"), 12345, 12345) }},
		{"+what is another's", func() error { return os.WriteFile(mine("renamed"), []byte("mine"), 0o600) }},
		{"+the mode of it", func() error { return os.Chmod(mine("renamed"), 0o640) }},
		{"+a directory away", func() error { return os.Remove(mine("state")) }},
		{"a link in its place", func() error { return os.Symlink(x.Theirs, mine("state")) }},
		{"a link that is there, moved", func() error { return os.Rename(mine("data/link"), mine("state")) }},
		{"a link that is there, renamed", func() error { return os.Rename(mine("data/link"), mine("data/key")) }},
		{"a link that is there, with another name", func() error { return os.Link(mine("data/link"), mine("data/other")) }},
		{"two exchanged", func() error {
			return unix.Renameat2(unix.AT_FDCWD, mine("data/link"), unix.AT_FDCWD, mine("renamed"), unix.RENAME_EXCHANGE)
		}},
		{"+a link that is there, away", func() error { return os.Remove(mine("data/link")) }},
		{"a disk", func() error { return unix.Mknod(mine("disk"), unix.S_IFBLK|device, int(unix.Mkdev(7, 0))) }}, //nolint:gosec // G115: a small number
		{"a device", func() error { return unix.Mknod(mine("device"), unix.S_IFCHR|device, null) }},
		{"a pipe", func() error { return unix.Mkfifo(mine("pipe"), device) }},
		{"a mount", func() error { return unix.Mount(x.Theirs, x.Mine, "", unix.MS_BIND, "") }},
		{"another root", func() error { return unix.Chroot(x.Mine) }},
		{"the machine's name", func() error {
			name, err := os.Hostname()
			if err != nil {
				return err
			}
			return unix.Sethostname([]byte(name))
		}},
		{"another user", func() error { return unix.Setuid(12345) }},
		{"who started it", func() error {
			var word [8]byte
			_, err := unix.PtracePeekText(os.Getppid(), 0, word[:])
			if errors.Is(err, unix.ESRCH) {
				err = unix.PtraceAttach(os.Getppid())
			}
			return err
		}},
	} {
		fmt.Fprintf(os.Stdout, "%s: %s\n", f.what, outcome(f.do()))
	}
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, os.ErrPermission), errors.Is(err, os.ErrNotExist), errors.Is(err, unix.EXDEV):
		return "refused"
	}
	return err.Error()
}

// try has a process of its own try it all, and answers what that says.
func (x mixedUp) try(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{variable + "=" + string(text)}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// judge has it all tried, and holds each line of what came of it against whether that is done or refused.
func (x mixedUp) judge(t *testing.T, all int, done func(line string) bool) {
	t.Helper()
	out, tried := x.try(t), 0
	for line := range strings.Lines(out) {
		want := "refused"
		if done(line) {
			want = "done"
		}
		if !strings.HasSuffix(strings.TrimSpace(line), ": "+want) {
			t.Errorf("%s, want %s", strings.TrimSpace(line), want)
		}
		tried++
	}
	if tried != all {
		t.Errorf("%d of %d were tried: %s", tried, all, out)
	}
}

// Whoever speaks to a Docker engine is root, and its socket lets in whoever is root already: the kernel keeps the process from every socket
// of the machine, where its platform needs none. Where one does, as local needs the supervisor's, it gets in: the control.
func TestProcessOfOneTenantReachesNoSocketOfTheMachine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for sockets, want := range map[bool]string{true: "done done", false: "refused refused"} {
		x := mixedUp{Delegation: platform.Delegation{Sockets: sockets}, Socket: socket}
		if got := strings.TrimSpace(x.try(t)); got != want {
			t.Errorf("where it may have sockets is %v, one is %s, want %s", sockets, got, want)
		}
	}
}

// What the filter says of calls in each form that a process may make them in: [bpf.VM] reads the words the other way round.
func TestFilterRefusesSocketsInEveryForm(t *testing.T) {
	const i386, i386Socket, i386SocketCall = unix.AUDIT_ARCH_I386, 359, 102
	vm, err := bpf.NewVM(noSockets(unix.AUDIT_ARCH_X86_64))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what             string
		arch, call, arg0 uint32
		allowed          bool
	}{
		{"a socket of a file", unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET, unix.AF_UNIX, false},
		{"a socket of the network", unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET, unix.AF_INET, true},
		{"a file", unix.AUDIT_ARCH_X86_64, unix.SYS_OPENAT, unix.AF_UNIX, true},
		{"calls without calling", unix.AUDIT_ARCH_X86_64, unix.SYS_IO_URING_SETUP, 0, false},
		{"a socket of a file, asked for in x32", unix.AUDIT_ARCH_X86_64, x32 | unix.SYS_SOCKET, unix.AF_UNIX, false},
		{"a socket of a file, asked for in i386", i386, i386Socket, unix.AF_UNIX, false},
		{"a socket of a file, asked for in i386's old form", i386, i386SocketCall, 1, false},
	} {
		data := make([]byte, 64)
		for at, v := range map[int]uint32{callAt: c.call, archAt: c.arch, argAt: c.arg0} {
			binary.BigEndian.PutUint32(data[at:], v)
		}
		got, err := vm.Run(data)
		if err != nil || (uint32(got) == unix.SECCOMP_RET_ALLOW) != c.allowed { //nolint:gosec // G115: a word
			t.Errorf("%s: %#x, %v", c.what, got, err)
		}
	}
}

// The doors of the process that works on one tenant: this one, files, ports and sockets; the others are the supervisor's (supervise, token_test.go), on
// docker the engine's (platform/docker, delegate_test.go), the registry's (services/registry, leases_test.go) and the database's (systemtest, TestRolesOfOneTenantGetIntoNoOtherDatabase).
//
// A process that works on one tenant and takes another one's files or ports for its own, by a bug, fails at the kernel's door: it runs as
// whoever started it, root as a rule, whom nothing else would keep away. What is its own it reaches.
func TestProcessThatMixesTwoTenantsUpIsRefusedByTheKernel(t *testing.T) {
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 4 {
		t.Skip("this kernel has no Landlock that knows ports")
	}
	x := mixedUp{Mine: t.TempDir(), Theirs: t.TempDir()}
	for _, dir := range []string{x.Mine, x.Theirs} {
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, port := range []*string{&x.MyPort, &x.TheirPort} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		_, *port, _ = net.SplitHostPort(l.Addr().String())
	}
	var mine uint16
	if _, err := fmt.Sscan(x.MyPort, &mine); err != nil {
		t.Fatal(err)
	}
	x.Delegation = platform.Delegation{Writes: []string{x.Mine}, Ports: []uint16{mine}}
	const all = 14
	x.judge(t, all, func(line string) bool { return !strings.Contains(line, "theirs:") })
	if text, err := os.ReadFile(filepath.Join(x.Theirs, "key")); err != nil || string(text) != "secret" {
		t.Errorf("the other one's key is now %q, %v", text, err)
	}
}

// A process that works on one tenant, and that somebody took over, puts nothing in its own directory that leads elsewhere: the engine, who
// follows links where it mounts, and who has the plane's power come to paths there. Of root's rights it has those that steps take.
func TestProcessOfOneTenantLeadsNobodyElsewhere(t *testing.T) {
	if why := accounts.Possible(); why != "" {
		t.Skip("not played: a process with root's rights, " + why)
	}
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 1 {
		t.Skip("not played: this kernel has no Landlock")
	}
	x := mixedUp{Mine: t.TempDir(), Theirs: t.TempDir(), Leading: true}
	for _, dir := range []string{"state", "data"} {
		if err := os.Mkdir(filepath.Join(x.Mine, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(x.Theirs, filepath.Join(x.Mine, "data", "link")); err != nil {
		t.Fatal(err)
	}
	x.Delegation = platform.Delegation{Writes: []string{x.Mine}}
	const all = 20
	x.judge(t, all, func(line string) bool { return strings.HasPrefix(line, "+") })
}

// Who works on one tenant starts the programs that it may run as their users, and where it may run none it has no right to become anybody.
func TestProcessOfOneTenantStartsItsProgramsAsTheirUsers(t *testing.T) {
	if why := accounts.Possible(); why != "" {
		t.Skip("not played: a process with root's rights, " + why)
	}
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		t.Fatal(err)
	}
	for want, runs := range map[string][]string{"done": {program}, "refused": nil} {
		x := mixedUp{Delegation: platform.Delegation{Runs: runs}, Program: program}
		if out := strings.TrimSpace(x.try(t)); out != want {
			t.Errorf("a program as its user, of %q that it may run: %s, want %s", runs, out, want)
		}
	}
}
