package container_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/firewall"
	"a3os.app/tools/fleet/internal/image"
	"a3os.app/tools/fleet/internal/netns"
	"a3os.app/tools/internal/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const (
	plane   = "test"
	someone = 61234
	port    = 7000
)

// engine with an image of a program that listens.
func engine(t *testing.T) (*container.Engine, string) {
	t.Helper()
	enginetest.Need(t)
	e, err := container.Open(t.Context(), plane)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	program := filepath.Join(t.TempDir(), "pause")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	spec, err := image.Program(program)
	if err != nil {
		t.Fatal(err)
	}
	made, err := image.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	id, err := made.ID()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Load(t.Context(), id, made.Write); err != nil {
		t.Fatal(err)
	}
	return e, id
}

func unit(e *container.Engine, name, image, network, address string) container.Unit {
	return container.Unit{
		Name: name, Group: "g", Image: image, Args: []string{fmt.Sprint(port)}, User: someone, Links: []container.Link{{Network: e.Thing(network), Address: netip.MustParseAddr(address)}},
		Limits: container.Limits{Memory: 32 << 20, NanoCPUs: 5e8, PIDs: 32}, StopWithin: 5 * time.Second,
	}
}

func apply(t *testing.T, e *container.Engine, u container.Unit) int {
	t.Helper()
	if _, err := e.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if again, err := e.Apply(t.Context(), u); err != nil || again {
		t.Fatalf("a second time changed %v: %v", again, err)
	}
	all, err := e.Status(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == u.Name && s.PID != 0 {
			return s.PID
		}
	}
	t.Fatalf("%s does not run: %+v", u.Name, all)
	return 0
}

func network(t *testing.T, e *container.Engine, n container.Network) {
	t.Helper()
	n.Group = "g"
	if changed, err := e.Network(t.Context(), n); err != nil || !changed {
		t.Fatalf("the network was made %v: %v", changed, err)
	}
	if changed, err := e.Network(t.Context(), n); err != nil || changed {
		t.Fatalf("the network was made again %v: %v", changed, err)
	}
}

// patience is how long an answer may take that comes from this machine.
const patience = time.Second

// reaches says what happens to who calls an address from a process's network.
func reaches(t *testing.T, pid int, address string) bool {
	t.Helper()
	var answered bool
	err := netns.In(pid, func() error {
		d := net.Dialer{Timeout: patience}
		conn, err := d.DialContext(t.Context(), "tcp4", address)
		if err != nil {
			return nil
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		answered = err == nil && line == "here\n"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return answered
}

// awaitReach returns when an address answers from this process's own network.
func awaitReach(t *testing.T, address string) {
	t.Helper()
	for ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second); ; {
		if reaches(t, os.Getpid(), address) {
			cancel()
			return
		}
		if ctx.Err() != nil {
			cancel()
			t.Fatalf("%s never answered", address)
		}
	}
}

// listen answers at an address of the machine.
func listen(t *testing.T, address string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("here\n"))
			_ = c.Close()
		}
	}()
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// Two tenants' networks, one that leads out, the machine and what is behind it: from each container everything is called that it must not
// reach, and, so that a refusal means something, is called from where it may be.
func TestContainerReachesItsOwnNetworkAndNothingElse(t *testing.T) {
	e, img := engine(t)
	rules := firewall.Rules{Plane: plane, Bridges: "a3test-", Out: []firewall.Out{{Bridge: "a3test-e1"}}, Inner: []string{"a3test-n1", "a3test-n2"}}
	if changed, err := rules.Apply(t.Context()); err != nil || !changed {
		t.Fatalf("the rules were written %v: %v", changed, err)
	}
	if changed, err := rules.Apply(t.Context()); err != nil || changed {
		t.Fatalf("the rules were written again %v: %v", changed, err)
	}
	network(t, e, container.Network{Name: "a", Subnet: netip.MustParsePrefix("10.202.0.0/28"), Bridge: "a3test-n1", Internal: true})
	network(t, e, container.Network{Name: "b", Subnet: netip.MustParsePrefix("10.202.0.16/28"), Bridge: "a3test-n2", Internal: true})
	network(t, e, container.Network{Name: "out", Subnet: netip.MustParsePrefix("10.202.0.32/28"), Bridge: "a3test-e1"})
	apply(t, e, unit(e, "g/a1", img, "a", "10.202.0.2"))
	a2 := apply(t, e, unit(e, "g/a2", img, "a", "10.202.0.3"))
	b1 := unit(e, "g/b1", img, "b", "10.202.0.18")
	apply(t, e, b1)
	worker := unit(e, "g/worker", img, "b", "10.202.0.19")
	worker.Links = append(worker.Links, container.Link{Network: e.Thing("out"), Address: netip.MustParseAddr("10.202.0.34")})
	w := apply(t, e, worker)
	for _, at := range []string{"10.202.0.2:7000", "10.202.0.3:7000", "10.202.0.18:7000", "10.202.0.19:7000"} {
		awaitReach(t, at) // the machine reaches all of them
	}
	// The machine's own: on all addresses, on a metadata service's, and beyond it, a private system and a public one.
	listen(t, "0.0.0.0:7001")
	ip(t, "addr", "add", "169.254.169.254/32", "dev", "lo")
	beyond(t)
	for _, at := range []string{"10.202.0.1:7001", "169.254.169.254:7001", "192.168.77.2:7001", "198.51.100.2:7001"} {
		awaitReach(t, at)
	}

	type attempt struct {
		from int
		to   string
		may  bool
	}
	attempts := []attempt{
		{a2, "10.202.0.2:7000", true}, {w, "10.202.0.18:7000", true}, {w, "198.51.100.2:7001", true},
		// The other network, directly and by the machine's address in it.
		{a2, "10.202.0.18:7000", false}, {a2, "10.202.0.17:7001", false}, {a2, "10.202.0.34:7000", false},
		// The machine, by its address in the container's own network, in others, by a metadata service's, and what is behind it.
		{a2, "10.202.0.1:7001", false}, {a2, "10.202.0.33:7001", false}, {a2, "169.254.169.254:7001", false}, {a2, "192.168.77.2:7001", false}, {a2, "198.51.100.2:7001", false},
		// The same from where a way leads out.
		{w, "10.202.0.2:7000", false}, {w, "10.202.0.1:7001", false}, {w, "10.202.0.33:7001", false}, {w, "10.202.0.17:7001", false}, {w, "169.254.169.254:7001", false},
		{w, "192.168.77.2:7001", false}, {w, "198.51.100.1:7001", false},
	}
	names := map[int]string{a2: "a2", w: "the worker"}
	try := func(when string) {
		for _, at := range attempts {
			if got := reaches(t, at.from, at.to); got != at.may {
				t.Errorf("%s, %s reaches %s: %v", when, names[at.from], at.to, got)
			}
		}
	}
	try("as made")
	// Docker's own walls between networks come after what others put before them, once the plane's own are first again.
	forward := func(args ...string) {
		if out, err := exec.CommandContext(t.Context(), "iptables", args...).CombinedOutput(); err != nil {
			t.Fatalf("iptables %v: %v: %s", args, err, out)
		}
	}
	forward("-I", "FORWARD", "-j", "ACCEPT")
	if changed, err := rules.Apply(t.Context()); err != nil || !changed {
		t.Fatalf("the rules were put back %v: %v", changed, err)
	}
	try("beside somebody's rule that lets everything pass")
	forward("-D", "FORWARD", "-j", "ACCEPT")
	for _, name := range []string{"g/a1", "g/a2", "g/b1", "g/worker"} {
		if changed, err := e.Remove(t.Context(), name); err != nil || !changed {
			t.Errorf("%s was removed %v: %v", name, changed, err)
		}
	}
	if _, err := e.RemoveNetworks(t.Context(), "g"); err != nil {
		t.Error(err)
	}
	if left, err := e.Left(t.Context(), ""); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := rules.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		if out, err := exec.CommandContext(t.Context(), tool, "-S").CombinedOutput(); err != nil || strings.Contains(string(out), "A3-") || strings.Contains(string(out), "a3 plane") {
			t.Errorf("left in %s: %s, %v", tool, out, err)
		}
	}
}

// beyond makes a network behind the machine, in which two systems listen, one at a private address and one at a public one.
func beyond(t *testing.T) {
	t.Helper()
	exe, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	away := exec.CommandContext(t.Context(), "unshare", "--net", "--", exe, "300")
	if err := away.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = away.Process.Kill(); _ = away.Wait() })
	pid := fmt.Sprint(away.Process.Pid)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if there, err := os.Readlink("/proc/" + pid + "/ns/net"); err == nil && there != own {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no network was made")
		}
	}
	ip(t, "link", "add", "there", "type", "veth", "peer", "name", "away", "netns", pid)
	for _, a := range []string{"192.168.77.1/24", "198.51.100.1/24"} {
		ip(t, "addr", "add", a, "dev", "there")
	}
	ip(t, "link", "set", "there", "up")
	err = netns.In(away.Process.Pid, func() error {
		for _, args := range [][]string{{"link", "set", "away", "up"}, {"addr", "add", "192.168.77.2/24", "dev", "away"}, {"addr", "add", "198.51.100.2/24", "dev", "away"}, {"route", "add", "default", "via", "198.51.100.1"}} {
			if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
				return errors.Join(err, errors.New(string(out)))
			}
		}
		listen(t, "0.0.0.0:7001")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A container that was made and not yet put into all its networks, as by a process that was killed between the two, is in all of them once it is
// asked for again, whether it runs by then or not.
func TestContainerGetsTheNetworksThatItLacks(t *testing.T) {
	e, img := engine(t)
	network(t, e, container.Network{Name: "a", Subnet: netip.MustParsePrefix("10.202.0.0/28"), Bridge: "a3test-n1", Internal: true})
	network(t, e, container.Network{Name: "b", Subnet: netip.MustParsePrefix("10.202.0.16/28"), Bridge: "a3test-n2", Internal: true})
	u := unit(e, "g/a1", img, "a", "10.202.0.2")
	u.Links = append(u.Links, container.Link{Network: e.Thing("b"), Address: netip.MustParseAddr("10.202.0.18")})
	docker := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	apply(t, e, u)
	const second = "10.202.0.18:7000"
	awaitReach(t, second)
	// As Apply makes it, with all its labels, up to the moment between.
	create := []string{"create", "--name", e.Thing("g/a1"), "--network", e.Thing("a"), "--ip", "10.202.0.2", "--user", fmt.Sprint(someone), "--read-only"}
	for label := range strings.Lines(docker("inspect", "--format", "{{range $name, $value := .Config.Labels}}{{$name}}={{$value}}\n{{end}}", e.Thing("g/a1"))) {
		if label = strings.TrimSpace(label); label != "" {
			create = append(create, "--label", label)
		}
	}
	if _, err := e.Remove(t.Context(), "g/a1"); err != nil {
		t.Fatal(err)
	}
	docker(append(create, img, fmt.Sprint(port))...)
	for _, c := range []struct {
		was   string
		leave func()
	}{
		{"made", func() {}},
		{"running", func() { docker("network", "disconnect", e.Thing("b"), e.Thing("g/a1")) }},
		{"ended", func() {
			docker("stop", e.Thing("g/a1"))
			docker("network", "disconnect", e.Thing("b"), e.Thing("g/a1"))
		}},
	} {
		c.leave()
		if changed, err := e.Apply(t.Context(), u); err != nil || !changed {
			t.Errorf("a container that is %s and lacks a network was given it %v: %v", c.was, changed, err)
		}
		awaitReach(t, second)
	}
	apply(t, e, u)
	if _, err := e.Remove(t.Context(), "g/a1"); err != nil {
		t.Error(err)
	}
	if _, err := e.RemoveNetworks(t.Context(), "g"); err != nil {
		t.Error(err)
	}
}

// What the engine says of a container, and what the kernel says of its process.
func TestContainerIsClosed(t *testing.T) {
	e, img := engine(t)
	network(t, e, container.Network{Name: "a", Subnet: netip.MustParsePrefix("10.202.0.0/28"), Bridge: "a3test-n1", Internal: true})
	pid := apply(t, e, unit(e, "g/a1", img, "a", "10.202.0.2"))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t61234\t61234\t61234\t61234\n", "Gid:\t61234\t61234\t61234\t61234\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the kernel does not say %q of it:\n%s", want, status)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(mounts), "\n"); !strings.Contains(first, " / overlay ro,") {
		t.Errorf("its root is %s", first)
	}
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/bin", pid)); err == nil {
		t.Errorf("there is a /bin in it: %v", entries)
	}
	if _, err := e.Remove(t.Context(), "g/a1"); err != nil {
		t.Error(err)
	}
	if _, err := e.RemoveNetworks(t.Context(), "g"); err != nil {
		t.Error(err)
	}
}
