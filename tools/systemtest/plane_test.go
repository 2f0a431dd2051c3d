package systemtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/internal/profile"
)

// plane is a plane of this machine with a home and a port of its own.
type plane struct {
	home    string
	port    int
	domain  string
	environ []string
	// programs is the directory of the plane's programs, where they are not those under test.
	programs string
	// first is what the first `plane up` printed.
	first said
	// tenants by slug.
	tenants map[string]*tenant
}

// newPlane makes nothing but the home, where PostgreSQL's own user can walk. More environment is `A3_X=y`.
func newPlane(home string, environ ...string) (*plane, error) {
	// Only who knows the home's name gets any further, and all that is in it is closed.
	const walk = 0o711
	if err := errors.Join(os.MkdirAll(home, walk), os.Chmod(filepath.Dir(home), walk), os.Chmod(home, walk)); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &plane{home: home, port: port, domain: "localhost", tenants: map[string]*tenant{}}
	p.environ = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + cmp.Or(os.Getenv("HOME"), "/"), "LC_ALL=C.UTF-8",
		"A3_HOME=" + home, "A3_PORT=" + strconv.Itoa(port),
		"A3_TENANT_RATE=" + testsRate,
	}, environ...)
	if onDocker() {
		p.environ = append(p.environ, "A3_PLATFORM=docker", "DOCKER_HOST="+os.Getenv("DOCKER_HOST"))
	}
	if bin := os.Getenv("A3_PG_BIN"); bin != "" {
		p.environ = append(p.environ, "A3_PG_BIN="+bin)
	}
	return p, nil
}

// testsRate is how many requests of a tenant begin in a second: one of the tests' is called by many of them at once.
const testsRate = "1000"

// walkable is a new directory through which PostgreSQL's own user can walk. It is removed when the test ends.
func walkable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "a3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	const walk = 0o711
	if err := os.Chmod(dir, walk); err != nil {
		t.Fatal(err)
	}
	return dir
}

// planeIn is a plane of the test's own in dir, which nobody has brought up yet. When the test ends it is removed, and where the test
// failed what its processes complained of is printed first.
func planeIn(t *testing.T, dir string, environ ...string) *plane {
	t.Helper()
	p, err := newPlane(filepath.Join(dir, "plane"), environ...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			p.complaints(os.Stderr)
		}
		if err := p.remove(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// freePort is above the ports that planes take for their services and below those that systems hand out by themselves.
func freePort() (int, error) {
	const first, count, tries = 30100, 2600, 100
	for range tries {
		port := first + rand.IntN(count)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port was found")
}

// said is what a command said.
type said struct {
	out, err string
	code     int
}

func (s said) String() string { return fmt.Sprintf("exit code %d\n%s%s", s.code, s.out, s.err) }

// command runs one of the programs to its end.
func (p *plane) command(ctx context.Context, program string, args ...string) (said, error) {
	dir := cmp.Or(p.programs, programs)
	cmd := exec.CommandContext(ctx, filepath.Join(dir, program), args...)
	cmd.Env, cmd.Dir = p.environ, filepath.Dir(dir)
	return finish(cmd)
}

func finish(cmd *exec.Cmd) (said, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// A daemon that the command leaves behind must not hold the command's output open.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	s := said{out: out.String(), err: errOut.String()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		s.code = exit.ExitCode()
		return s, nil
	}
	return s, err
}

// a3 runs `a3 --profile profile args…` and fails the test where that is refused.
func (p *plane) a3(t testing.TB, profile string, args ...string) string {
	t.Helper()
	s := p.tryA3(t, profile, args...)
	if s.code != 0 {
		t.Fatalf("a3 --profile %s %s: %s", profile, strings.Join(args, " "), s)
	}
	return s.out
}

func (p *plane) tryA3(t testing.TB, profile string, args ...string) said {
	t.Helper()
	s, err := p.command(t.Context(), "a3", append([]string{"--profile", profile}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// up brings the plane up for the first time and learns what is in it.
func (p *plane) up(ctx context.Context) error {
	s, err := p.command(ctx, "fleet", "plane", "up")
	if err != nil {
		return err
	}
	if p.first = s; s.code != 0 {
		return fmt.Errorf("plane up: %s", s)
	}
	return p.learn(ctx)
}

// learn finds the plane's tenants, and where their services are.
func (p *plane) learn(ctx context.Context) error {
	var list struct {
		Tenants []struct {
			Tenant     struct{ ID, Slug string }
			ServiceSet struct {
				Components []struct{ Name, Address string }
			}
		}
	}
	if err := p.json(ctx, &list, "tenant", "list"); err != nil {
		return err
	}
	status, err := p.status(ctx)
	if err != nil {
		return err
	}
	for _, entry := range list.Tenants {
		x := &tenant{plane: p, id: entry.Tenant.ID, slug: entry.Tenant.Slug, addresses: map[string]string{}}
		for _, c := range entry.ServiceSet.Components {
			x.addresses[c.Name] = c.Address
		}
		for _, known := range status.Tenants {
			if known.ID == x.id {
				x.url = known.URL
			}
		}
		p.tenants[x.slug] = x
	}
	return nil
}

// json runs a fleet command and reads its answer.
func (p *plane) json(ctx context.Context, into any, args ...string) error {
	s, err := p.command(ctx, "fleet", append([]string{"-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if s.code != 0 {
		return fmt.Errorf("fleet %s: %s", strings.Join(args, " "), s)
	}
	return json.Unmarshal([]byte(s.out), into)
}

// status is what `fleet plane status -o json` answers.
type status struct {
	Processes []process `json:"processes"`
	Tenants   []struct {
		ID   string `json:"id"`
		Slug string `json:"slug"`
		URL  string `json:"url"`
	} `json:"tenants"`
}

// process is one process of a plane.
type process struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	Failures int    `json:"failures"`
	// Since is when the process that runs started.
	Since    time.Time `json:"since"`
	LastExit string    `json:"last_exit"`
	Log      string    `json:"log"`
}

func (p *plane) status(ctx context.Context) (status, error) {
	var s status
	return s, p.json(ctx, &s, "plane", "status")
}

// pids are the processes by name.
func (p *plane) pids(t testing.TB) map[string]int {
	t.Helper()
	s, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, u := range s.Processes {
		out[u.Name] = u.PID
	}
	return out
}

// process is one process by name: `plane/gateway`, `tnt_…/iam`.
func (p *plane) process(ctx context.Context, name string) (process, error) {
	s, err := p.status(ctx)
	if err != nil {
		return process{}, err
	}
	for _, u := range s.Processes {
		if u.Name == name {
			return u, nil
		}
	}
	return process{}, fmt.Errorf("the plane has no process %s", name)
}

// environment is what a process was started with; Linux tells it to the process's own user.
func (p *plane) environment(t testing.TB, process string) map[string]string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skipf("this system doesn't tell what %s was started with", process)
	}
	out := map[string]string{}
	for kv := range strings.SplitSeq(strings.TrimRight(p.kernelTells(t, process, "environ"), "\x00"), "\x00") {
		name, value, _ := strings.Cut(kv, "=")
		out[name] = value
	}
	return out
}

// kernelTells is what the kernel tells of a process, in a file of its directory in /proc. Where it ended before it was read, as another test may
// have it, the one that follows it is asked.
func (p *plane) kernelTells(t testing.TB, process, file string) (text string) {
	t.Helper()
	const most = 30 * time.Second
	within(t, most, func() error {
		pid := p.pids(t)[process]
		if pid == 0 {
			return fmt.Errorf("%s doesn't run", process)
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("what the kernel tells of %s: %v", process, err)
		}
		// Of one that ended, and for which nobody has waited yet, some files are there and empty.
		if err == nil && len(raw) == 0 {
			err = errors.New("it is empty")
		}
		if text = string(raw); err != nil {
			return fmt.Errorf("%s of process %d, which is said to be %s: %w", file, pid, process, err)
		}
		return nil
	})
	return text
}

// steady are the processes of the shared plane that no parallel test makes, restarts or ends: those of the plane itself, of acme and of
// globex. Those of tenants that tests made come and go by the tests that have them.
func steady(t testing.TB) map[string]int {
	t.Helper()
	out := shared.pids(t)
	for name := range out {
		group, _, _ := strings.Cut(name, "/")
		if strings.HasPrefix(group, "tnt_") && group != acme().id && group != globex().id {
			delete(out, name)
		}
	}
	return out
}

// store is where `plane up` leaves the profiles.
func (p *plane) store() profile.Store { return profile.In(p.home) }

// address is where the gateway listens.
func (p *plane) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// remove takes the plane down with all its data, and sees that nothing of it is left.
func (p *plane) remove() error {
	const most = 2 * time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	s, err := p.command(ctx, "fleet", "plane", "down")
	if err == nil && s.code != 0 {
		err = fmt.Errorf("plane down: %s", s)
	}
	if left := p.running(); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("plane down left processes: %s", strings.Join(left, "; ")))
	}
	s, removal := p.command(ctx, "fleet", "plane", "down", "--remove-data")
	if removal == nil && s.code != 0 {
		removal = fmt.Errorf("plane down --remove-data: %s", s)
	}
	err = errors.Join(err, removal)
	for _, dir := range p.dirs() {
		if _, there := os.Stat(dir); !errors.Is(there, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("plane down --remove-data left %s", dir))
		}
	}
	return err
}

// dirs are the directories that belong to the plane.
func (p *plane) dirs() []string {
	out := []string{p.home}
	for _, name := range []string{"postgres", "databases", "sample-postgres"} {
		if dir, err := pgserver.DirFor(filepath.Join(p.home, name), ""); err == nil && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	if dir := pgserver.DirForOthers(filepath.Join(p.home, "sets")); os.Geteuid() == 0 {
		out = append(out, dir)
	}
	// What lies in the home is the home's.
	return slices.DeleteFunc(out, func(dir string) bool { return strings.HasPrefix(dir, p.home+"/") })
}

// running are the processes of this machine whose program, arguments or working directory belong to the plane, whoever started them.
func (p *plane) running() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		program, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		line := strings.ReplaceAll(string(args), "\x00", " ")
		for _, dir := range p.dirs() {
			if strings.Contains(line, dir) || strings.HasPrefix(program, dir) || strings.HasPrefix(cwd, dir) {
				out = append(out, e.Name()+" "+line)
				break
			}
		}
	}
	return out
}

// complaint is a line of a log that says why something failed: of ours, of Go's runtime, of PostgreSQL.
var complaint = regexp.MustCompile(`"ERROR"|panic|PANIC|^fatal error: |^runtime(/cgo)?: |^SIG[A-Z]+: |could not fork|out of memory`)

// complaints writes what the processes' logs say of errors, the last of each, for whoever looks at a failed test.
func (p *plane) complaints(w io.Writer) {
	const most = 5
	// A machine that is at its end breaks what is right.
	for _, of := range []string{"/proc/loadavg", "/proc/meminfo"} {
		text, _ := os.ReadFile(of)
		lines := strings.SplitAfter(string(text), "\n")
		fmt.Fprintf(w, "%s: %s", of, strings.ReplaceAll(strings.Join(lines[:min(3, len(lines))], ""), "\n", "; "))
		fmt.Fprintln(w)
	}
	logs, _ := filepath.Glob(filepath.Join(p.home, "log", "*", "*.log"))
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if complaint.MatchString(line) {
				lines = append(lines, line)
			}
		}
		for _, line := range lines[max(0, len(lines)-most):] {
			fmt.Fprintf(w, "%s: %s", strings.TrimPrefix(path, p.home), line)
		}
	}
}

// within asks again and again until check is content, and answers how long that took. After d the test fails with what check said last.
func within(t testing.TB, d time.Duration, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > d {
			t.Fatalf("not within %s: %v", d, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// long skips a test that takes minutes: A3_LONG=1 runs it, as .ci/run does.
func long(t *testing.T) {
	t.Helper()
	if full(t); os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
}

// full skips a test that is for a full run: with -short there are the answer and the isolation of tenants and workspaces.
func full(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("this is for a full run, without -short")
	}
}
