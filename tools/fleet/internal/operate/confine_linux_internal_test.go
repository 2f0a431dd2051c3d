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
	// Around says that ways around the doors are all that is tried.
	Around bool
	// Knows is the ABI of Landlock that the kernel is taken to have, -1 for one without, and then nothing is tried; 0 leaves it to the kernel.
	Knows int
}

const variable = "A3_TEST_MIXED_UP"

func TestMain(m *testing.M) {
	text := os.Getenv(variable)
	if text == "" {
		os.Exit(m.Run())
	}
	var x mixedUp
	err := json.Unmarshal([]byte(text), &x)
	switch {
	case err != nil:
	case x.Knows != 0:
		err = confineBy(x.Knows, nil, x.Delegation)
	default:
		err = confine(x.Delegation)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "confine:", err)
		os.Exit(1)
	}
	if x.Knows != 0 {
		os.Exit(0)
	}
	if x.Around {
		x.goAround()
		os.Exit(0)
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
		// Where it gets no such socket it connects by plain TCP.
		{"connect by several paths", func(_, port string) error {
			var d net.Dialer
			d.SetMultipathTCP(true)
			c, err := d.Dial("tcp", "127.0.0.1:"+port)
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

// goAround tries what connects without connect(2) on a socket of TCP's, by which Landlock judges, and each other socket. The lines that begin
// with a plus are controls.
func (x mixedUp) goAround() {
	made := func(family, kind, protocol int) func() error {
		return func() error {
			fd, err := unix.Socket(family, kind, protocol)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		}
	}
	// on has a socket of TCP's for something to be done with.
	on := func(do func(fd int) error) func() error {
		return func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return do(fd)
		}
	}
	theirs := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if _, err := fmt.Sscan(x.TheirPort, &theirs.Port); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// None of so many messages is sent, and that is judged as well.
	several := func(flags uintptr) func(fd int) error {
		return func(fd int) error {
			if _, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), 0, 0, flags, 0, 0); errno != 0 {
				return errno
			}
			return nil
		}
	}
	for _, f := range []struct {
		what string
		do   func() error
	}{
		{"+tcp", made(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP)},
		{"+tcp of version 6 that nobody named", made(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)},
		{"+the machine's addresses", made(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
		{"the machine's sockets", made(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)},
		{"udp", made(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP)},
		{"udp of version 6 that nobody named", made(unix.AF_INET6, unix.SOCK_DGRAM, 0)},
		{"file", made(unix.AF_UNIX, unix.SOCK_STREAM, 0)},
		{"files' pair", func() error {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err == nil {
				err = errors.Join(unix.Close(pair[0]), unix.Close(pair[1]))
			}
			return err
		}},
		{"multipath tcp", made(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)},
		{"multipath tcp of version 6", made(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)},
		{"sctp", made(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)},
		{"sctp that nobody named", made(unix.AF_INET, unix.SOCK_SEQPACKET, 0)},
		{"smc", made(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SMC)},
		{"smc by its family", made(unix.AF_SMC, unix.SOCK_STREAM, 0)},
		{"dccp", made(unix.AF_INET, unix.SOCK_DCCP, unix.IPPROTO_DCCP)},
		{"udp-lite", made(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)},
		{"the host of this machine", made(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
		{"+what is sent", on(func(fd int) error {
			err := unix.Sendto(fd, []byte("mine"), unix.MSG_NOSIGNAL, theirs)
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ENOTCONN) {
				return nil // it is connected to nobody
			}
			return err
		})},
		{"what is sent at once", on(func(fd int) error { return unix.Sendto(fd, []byte("mine"), unix.MSG_FASTOPEN, theirs) })},
		{"a message that is sent at once", on(func(fd int) error { return unix.Sendmsg(fd, []byte("mine"), nil, theirs, unix.MSG_FASTOPEN) })},
		{"+several messages", on(several(0))},
		{"several messages that are sent at once", on(several(unix.MSG_FASTOPEN))},
		{"+an option of tcp's", on(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1) })},
		{"+an option of a socket's", on(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1) })},
		{"an upper layer of tcp's", on(func(fd int) error { return unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_ULP, "") })},
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

// run has a process of its own try it all, and answers what that prints, and what it says besides.
func (x mixedUp) run(t *testing.T) (out, said string) {
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
	var prints, says strings.Builder
	cmd.Stdout, cmd.Stderr = &prints, &says
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s%s", err, prints.String(), says.String())
	}
	return prints.String(), says.String()
}

// try is run where only what it prints is looked at.
func (x mixedUp) try(t *testing.T) string {
	t.Helper()
	out, _ := x.run(t)
	return out
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
	const amd64, socket = unix.AUDIT_ARCH_X86_64, unix.SYS_SOCKET
	vm, err := bpf.NewVM(sockets{names: true}.filter(amd64))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what       string
		arch, call uint32
		args       []uint32
		allowed    bool
	}{
		{"a socket of a file", amd64, socket, []uint32{unix.AF_UNIX, unix.SOCK_STREAM}, false},
		{"a socket of the network", amd64, socket, []uint32{unix.AF_INET, unix.SOCK_STREAM}, true},
		{"a socket by which names are looked up", amd64, socket, []uint32{unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, unix.IPPROTO_UDP}, true},
		{"a raw one", amd64, socket, []uint32{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP}, false},
		{"a raw one of what nobody named", amd64, socket, []uint32{unix.AF_INET6, unix.SOCK_RAW | unix.SOCK_CLOEXEC}, false},
		{"one of all that goes by", amd64, socket, []uint32{unix.AF_PACKET, unix.SOCK_DGRAM}, false},
		{"one of sctp's", amd64, socket, []uint32{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, false},
		{"one of several paths", amd64, socket, []uint32{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, false},
		{"one of the kernel's algorithms", amd64, socket, []uint32{unix.AF_ALG, unix.SOCK_SEQPACKET}, false},
		{"a file", amd64, unix.SYS_OPENAT, []uint32{unix.AF_UNIX}, true},
		{"calls without calling", amd64, unix.SYS_IO_URING_SETUP, nil, false},
		{"a socket of a file, asked for in x32", amd64, x32 | socket, []uint32{unix.AF_UNIX}, false},
		{"a socket of the network, asked for in x32", amd64, x32 | socket, []uint32{unix.AF_INET, unix.SOCK_STREAM}, false},
		{"a socket of a file, asked for in i386", i386, i386Socket, []uint32{unix.AF_UNIX}, false},
		{"one of several paths, asked for in i386", i386, i386Socket, []uint32{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, false},
		{"a socket of a file, asked for in i386's old form", i386, i386SocketCall, []uint32{1}, false},
	} {
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[callAt:], c.call)
		binary.BigEndian.PutUint32(data[archAt:], c.arch)
		for i, v := range c.args {
			binary.BigEndian.PutUint32(data[argsAt+i*word64:], v)
		}
		got, err := vm.Run(data)
		if err != nil || (uint32(got) == unix.SECCOMP_RET_ALLOW) != c.allowed { //nolint:gosec // G115: a word
			t.Errorf("%s: %#x, %v", c.what, got, err)
		}
	}
}

// Landlock judges connect(2) on sockets that are TCP's by their protocol. What connects otherwise is refused on every platform, that it
// doesn't lead around the ports; besides, there is UDP where names are looked up, and files' sockets where the platform needs the supervisor's.
func TestProcessOfOneTenantGoesAroundNoDoor(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for name, lent := range map[string]platform.Delegation{
		"local": {Ports: []uint16{443}, Sockets: true}, "docker": {}, "aws": {Ports: []uint16{443, names}},
	} {
		t.Run(name, func(t *testing.T) {
			x := mixedUp{Delegation: lent, TheirPort: port, Around: true}
			const all = 25
			x.judge(t, all, func(line string) bool {
				return strings.HasPrefix(line, "+") || name == "local" && strings.HasPrefix(line, "file") ||
					name == "aws" && (strings.HasPrefix(line, "udp:") || strings.HasPrefix(line, "udp of"))
			})
		})
	}
}

// What a kernel can't keep this process from it is told aloud, by a line that whoever started it passes on.
func TestKernelThatKnowsTooLittleIsToldOfAloud(t *testing.T) {
	for knows, want := range map[int]string{-1: "has no Landlock", 1: "knows no ports", 3: "knows no ports", 4: "", 7: ""} {
		_, said := mixedUp{Knows: knows}.run(t)
		if want == "" && said != "" || !strings.Contains(said, want) || want != "" && !strings.Contains(said, "WARN") {
			t.Errorf("a kernel with Landlock's ABI %d: it said %q, want %q", knows, said, want)
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
	const all = 16
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
