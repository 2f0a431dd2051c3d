package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"a3os.app/tools/internal/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// plane is a plane of containers, driven by the programs as an operator drives them.
type plane struct {
	t         *testing.T
	bin, home string
	// environ is more of what programs are told.
	environ []string
	// ben is the directory of a second operator's own key.
	ben string
	// product is what its tenants run: AccessOS, unless a test puts another in its place.
	product product
	// door is the address of one of its hosts, once somebody asked.
	door *url.URL
}

// product is what tenants of a plane run.
type product struct {
	// program is the file of its one artefact, of which releases are made.
	program string
	// setting is one that a component can't serve without, as it stands in the program, and migrations can.
	setting string
	// answers is a path that a set answers to whoever asks.
	answers string
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{t: t, bin: os.Getenv("A3_BIN"), home: filepath.Join(t.TempDir(), "home")}
	if p.bin == "" {
		p.bin = filepath.Join(t.TempDir(), "bin")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", p.bin+string(filepath.Separator), "a3os.app/services/accessos", "a3os.app/tools/fleet", "a3os.app/tools/a3")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	p.product = product{program: filepath.Join(p.bin, "accessos"), setting: `env:"BOOTSTRAP_CODE_HASH"`, answers: "/.well-known/openid-configuration"}
	t.Cleanup(func() {
		if _, err := os.Stat(p.home); err == nil {
			cmd := p.command("plane", "down", "--remove-data")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
	return p
}

// command outlives the test's context: the plane is taken down after that has ended.
func (p *plane) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, "fleet"), args...) //nolint:noctx // see above
	// No variable of a plane that whoever runs the tests has.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "A3_") })
	cmd.Env = append(cmd.Env, "A3_HOME="+p.home, "A3_PLATFORM=docker")
	cmd.Env = append(cmd.Env, p.environ...)
	return cmd
}

func (p *plane) fleet(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("fleet %v: %v: %s", args, err, out)
	}
	return string(out)
}

// isolation runs the proof and answers how many attempts each wall took, the holes, and the exit code.
func (p *plane) isolation() (attempts map[string]int, holes []string, code int) {
	p.t.Helper()
	cmd := p.command("-o", "json", "isolation", "verify", "--out", p.t.TempDir())
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	var report struct {
		Walls []struct {
			Wall              string
			Attempts, Refused int
		}
		Results []struct{ Outcome, Wall, From, At, Attempt, Answer, Control string }
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		p.t.Fatalf("%v: %s%s", err, out.String(), said.String())
	}
	attempts = map[string]int{}
	for _, w := range report.Walls {
		attempts[w.Wall] = w.Attempts
	}
	for _, r := range report.Results {
		if r.Outcome != "refused" {
			holes = append(holes, strings.Join([]string{r.Outcome, r.Wall, r.From, r.At, r.Attempt, r.Answer, r.Control}, ": "))
		}
	}
	return attempts, holes, cmd.ProcessState.ExitCode()
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// outside is a private network that discovery may reach at first.
const outside = "10.20.0.0/16"

// The whole of it: the answer, a second time without a change, every wall between the sets, what is seen when one wall falls, and
// nothing left when the plane goes.
func TestPlaneOnDockerGivesTheAnswerAndKeepsItsSetsApart(t *testing.T) {
	enginetest.Need(t)
	if testing.Short() {
		t.Skip("it brings a whole plane up in containers")
	}
	p := newPlane(t)
	p.environ = []string{"A3_OUTSIDE_NETWORKS=" + outside}
	up := p.fleet("plane", "up")
	for _, want := range []string{"SELECT on hr.salaries", "1 path; everything that it rests on was read", "has a network of its own"} {
		if !strings.Contains(up, want) {
			t.Errorf("it does not say %q:\n%s", want, up)
		}
	}
	if again := p.fleet("plane", "up"); !strings.Contains(again, "nothing changed") {
		t.Errorf("a second time it says:\n%s", again)
	}
	p.gatewayRestarts(t)
	p.filesWrittenAgain(t)
	attempts, holes, code := p.isolation()
	if code != 0 || len(holes) > 0 {
		t.Errorf("it exits with %d:\n%s", code, strings.Join(holes, "\n"))
	}
	const walls, network = 9, 30
	if len(attempts) != walls || attempts["network"] < network {
		t.Errorf("attempts: %v", attempts)
	}
	p.tellsNobody(t)
	if rules := run(t, "iptables", "-S"); !strings.Contains(rules, outside) {
		t.Errorf("discovery may not go where the settings have it go:\n%s", rules)
	}
	// What was closed stays closed at the supervisor's next turn, which it began with other settings.
	p.environ = nil
	p.fleet("plane", "up")
	p.wallFalls(t)
	if rules := run(t, "iptables", "-S"); strings.Contains(rules, outside) {
		t.Errorf("the supervisor opened what was closed:\n%s", rules)
	}

	p.fleet("plane", "down")
	p.nothingLeft(t)
	p.subnetsAreTaken(t)
	if back := p.fleet("plane", "up"); !strings.Contains(back, "everything that it rests on was read") {
		t.Errorf("after it was down it says:\n%s", back)
	}
	if _, holes, code := p.isolation(); code != 0 || len(holes) > 0 {
		t.Errorf("after others took subnets of its own, the proof exits with %d:\n%s", code, strings.Join(holes, "\n"))
	}
	p.fleet("plane", "down", "--remove-data")
	p.nothingLeft(t)
	if _, err := os.Stat(p.home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its home is still there: %v", err)
	}
}

// subnetsAreTaken has networks of others in subnets that the plane chose, as those that another plane made while this one was down.
func (p *plane) subnetsAreTaken(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	var noted struct{ Subnets map[string]string }
	if err == nil {
		err = json.Unmarshal(text, &noted)
	}
	if err != nil {
		t.Fatal(err)
	}
	took := 0
	for name, subnet := range noted.Subnets {
		if name != "databases" && !strings.HasPrefix(name, "tnt_") {
			continue
		}
		took++
		network := fmt.Sprintf("%s-%d", t.Name(), took)
		run(t, "docker", "network", "create", "--subnet", subnet, network)
		t.Cleanup(func() {
			if out, err := exec.Command("docker", "network", "rm", network).CombinedOutput(); err != nil { //nolint:noctx // the test's context has ended
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	if took < 2 {
		t.Fatalf("of the subnets %v none is a tenant's, or none is of the databases", noted.Subnets)
	}
}

// filesWrittenAgain has the plane know its database servers' image by other files, as after an update that wrote the same bytes: the page says
// that they may be behind until the plane is started, which finds out that none is and touches no container.
func (p *plane) filesWrittenAgain(t *testing.T) {
	t.Helper()
	const behind = "as PostgreSQL, its libraries and the time zones were"
	if said := p.fleet("status"); strings.Contains(said, behind) {
		t.Errorf("before any update the page says:\n%s", said)
	}
	file := filepath.Join(p.home, "plane.json")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, bytes.Replace(text, []byte(`"postgresql-`), []byte(`"postgresql-before-`), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if said := p.fleet("status"); !strings.Contains(said, behind) || !strings.Contains(said, "databases of the plane") || !strings.Contains(said, "fleet plane up") {
		t.Errorf("the page does not say that servers are behind:\n%s", said)
	}
	before := p.containers(t)
	p.fleet("plane", "up")
	if now := p.containers(t); !maps.Equal(before, now) {
		t.Errorf("of the same bytes, containers were made anew: they were %v and are %v", before, now)
	}
	if said := p.fleet("status"); strings.Contains(said, behind) {
		t.Errorf("after the plane's start the page says:\n%s", said)
	}
}

var password = regexp.MustCompile(`postgres://[^:/ ]+:([^@ ]+)@`)

// tellsNobody sees that the engine tells no secret of the plane to whoever asks it about containers and images.
func (p *plane) tellsNobody(t *testing.T) {
	t.Helper()
	ids := strings.Fields(run(t, "docker", "ps", "-aq"))
	told := run(t, "docker", append([]string{"inspect"}, ids...)...)
	const least = 14
	if len(ids) < least {
		t.Errorf("there are %d containers", len(ids))
	}
	looked := 0
	err := filepath.WalkDir("/run/a3", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, "roots.pem") || strings.HasSuffix(path, "certificate.given") || strings.HasSuffix(path, "pg_hba.conf") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		secret := strings.TrimSpace(string(text))
		if m := password.FindStringSubmatch(secret); m != nil {
			secret = m[1]
		}
		looked++
		if strings.Contains(told, secret) {
			t.Errorf("the engine tells what is in %s", path)
		}
		return nil
	})
	const secrets = 20
	if err != nil || looked < secrets {
		t.Errorf("%d secrets were looked for: %v", looked, err)
	}
}

// wallFalls takes the packet filter away for longer than it may be: status says so, and the proof finds it. Left alone after that, the supervisor
// puts it back, and an operator is told.
func (p *plane) wallFalls(t *testing.T) {
	t.Helper()
	rules := run(t, "iptables", "-S")
	chain := regexp.MustCompile(`-N (A3-\S+-IN)\n`).FindStringSubmatch(rules)
	if chain == nil {
		t.Fatalf("there is no chain of the plane's:\n%s", rules)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var flushing sync.WaitGroup
	flushing.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			_ = exec.CommandContext(t.Context(), "iptables", "--wait", "10", "-F", chain[1]).Run()
		}
	})
	if said := p.fleet("plane", "status"); !strings.Contains(said, "packet filter is not in force") {
		t.Errorf("status says:\n%s", said)
	}
	_, holes, code := p.isolation()
	found := slices.ContainsFunc(holes, func(h string) bool {
		return strings.HasPrefix(h, "hole: network: ") && strings.Contains(h, "the machine")
	})
	if code == 0 || !found {
		t.Errorf("the proof exits with %d and finds:\n%s", code, strings.Join(holes, "\n"))
	}
	cancel()
	flushing.Wait()
	run(t, "iptables", "-F", chain[1])
	const most = 75 * time.Second
	for until := time.Now().Add(most); !strings.Contains(p.fleet("plane", "status"), "keeps it from the machine"); <-time.After(time.Second) {
		if time.Now().After(until) {
			t.Fatalf("the packet filter is not put back within %s", most)
		}
	}
	if said := p.fleet("status"); !strings.Contains(said, "was changed by somebody else than the plane; it was put back") {
		t.Errorf("an operator is told:\n%s", said)
	}
	if _, holes, code := p.isolation(); code != 0 {
		t.Errorf("after it was put back the proof still finds:\n%s", strings.Join(holes, "\n"))
	}
}

// nothingLeft sees that nothing of a plane that is down is left on the machine but its data.
func (p *plane) nothingLeft(t *testing.T) {
	t.Helper()
	if left := run(t, "docker", "ps", "-aq") + run(t, "docker", "network", "ls", "-q", "--filter", "label=app.a3os.plane"); strings.TrimSpace(left) != "" {
		t.Errorf("left with the engine: %s", left)
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		if rules := run(t, tool, "-S"); strings.Contains(rules, "A3-") {
			t.Errorf("left in %s:\n%s", tool, rules)
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil || strings.Contains(string(mounts), "a3-secrets /run/a3/"+planeID(p.home)) {
		t.Errorf("the secrets' place is still mounted: %v", err)
	}
}

// planeID is empty where the plane is gone: its place then is any.
func planeID(home string) string {
	var state struct{ ID string }
	text, err := os.ReadFile(filepath.Join(home, "plane.json"))
	if err != nil || json.Unmarshal(text, &state) != nil {
		return "gone"
	}
	return state.ID
}
