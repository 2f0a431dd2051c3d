package systemtest

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/tools/internal/enginetest"
)

// onDocker says whether planes of the tests are of containers.
func onDocker() bool { return os.Getenv(PlatformVariable) == "docker" }

// suite is the package's tests with the plane that they share.
type suite struct{ *testing.M }

// Run implements enginetest.Suite.
func (s suite) Run() int {
	code, err := run(s.M)
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemtest:", err)
		code = max(code, 1)
	}
	return code
}

// runOnDocker runs, beside an engine of their own, those tests that are played on docker, unless others were asked for by name.
func runOnDocker(m *testing.M) {
	if why := enginetest.Missing(); why != "" {
		fmt.Fprintln(os.Stderr, "systemtest: there can be no planes of containers here:", why)
		os.Exit(1)
	}
	if chosen := flag.Lookup("test.run").Value; chosen.String() == "" {
		if err := chosen.Set("^(" + strings.Join(OnDocker(), "|") + ")$"); err != nil {
			fmt.Fprintln(os.Stderr, "systemtest:", err)
			os.Exit(1)
		}
	}
	enginetest.Main(suite{m})
}

// remembered is what a plane keeps of where its containers are.
type remembered struct {
	ID    string
	Hosts map[string]netip.Addr
}

func (p *plane) remembered(t testing.TB) remembered {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	var out remembered
	if err := errors.Join(err, json.Unmarshal(text, &out)); err != nil {
		t.Fatal(err)
	}
	return out
}

// host is the address of a member of one of the plane's networks.
func (p *plane) host(t testing.TB, network, member string) string {
	t.Helper()
	at, ok := p.remembered(t).Hosts[network+"/"+member]
	if !ok {
		t.Fatalf("the network %s has no %s", network, member)
	}
	return at.String()
}

// container has docker do something with the container of a process.
func (p *plane) container(t testing.TB, process string, do ...string) string {
	t.Helper()
	filter := []string{"ps", "-q", "--filter", "label=app.a3os.plane=" + p.remembered(t).ID, "--filter", "label=app.a3os.name=" + process}
	id, err := exec.CommandContext(t.Context(), "docker", filter...).Output()
	if err != nil || len(strings.Fields(string(id))) != 1 {
		t.Fatalf("the container of %s: %v: %q", process, err, id)
	}
	out, err := exec.CommandContext(t.Context(), "docker", append(do, strings.TrimSpace(string(id)))...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %v: %v: %s", do, err, out)
	}
	return string(out)
}

// logOf is what a process said.
func (p *plane) logOf(t testing.TB, process string) string {
	t.Helper()
	if onDocker() {
		return p.container(t, process, "logs")
	}
	return read(t, filepath.Join(p.home, "log", process+".log"))
}

// given is the file by which a component is told something that fleet keeps in a file of the plane: on docker a copy of it.
func (x *tenant) given(t testing.TB, component, name string) string {
	t.Helper()
	if onDocker() {
		return filepath.Join("/run/a3", x.plane.remembered(t).ID, x.id, component, name)
	}
	return x.file("components", component, name)
}

// kept is a file that a component of the plane's own keeps in its state, by the variable that names it there.
func (p *plane) kept(t testing.TB, component, variable string) string {
	t.Helper()
	named := p.environment(t, "plane/"+component)[variable]
	if onDocker() {
		// Its directory is the container's /state.
		for _, line := range strings.Split(p.container(t, "plane/"+component, "inspect", "--format", "{{range .Mounts}}{{.Source}} {{.Destination}}\n{{end}}"), "\n") {
			if from, to, _ := strings.Cut(line, " "); to != "" && strings.HasPrefix(named, to+"/") {
				return from + strings.TrimPrefix(named, to)
			}
		}
		t.Fatalf("no mount of %s has %s", component, named)
	}
	return named
}

// freeAddress is where a set may be, and nothing is.
func freeAddress(t *testing.T) string {
	t.Helper()
	if onDocker() {
		// The end of the pool that planes cut their networks from, which the tests' planes don't get to.
		pool := netip.MustParsePrefix(cmp.Or(shared.environment(t, "plane/registry")["A3_SET_NETWORKS"], "10.83.0.0/16")).Addr().As4()
		const some, api = 250, 7443
		pool[2], pool[3] = 255, byte(1+rand.IntN(some))
		return netip.AddrPortFrom(netip.AddrFrom4(pool), api).String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
