package docker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/internal/enginetest"
	"a3os.app/tools/internal/proctest"
)

// Row F33, in containers: a tenant with a database server of its own is made, upgraded and removed by a fleet that is killed, or whose process with
// that tenant's credentials is, at each point of each step. Each time the same command goes on, and what there is in the end is what there is of a tenant
// that nobody disturbed.
func TestStoryOfATenantInContainersKilledAtEachPoint(t *testing.T) {
	enginetest.Need(t)
	if os.Getenv("A3_LONG") == "" {
		t.Skip("this takes minutes: set A3_LONG=1")
	}
	p := newPlane(t)
	p.failpoints(t)
	p.environ = []string{"A3_TENANTS=globex"}
	p.fleet("plane", "up")
	p.release(t, "1.1.0", func(program []byte) []byte { return append(program, "another"...) })
	kills := 0
	var calm, hurried string
	for _, o := range []struct {
		kind    string
		args    []string
		answers int
	}{
		{"provision", []string{"--tier", "dedicated"}, http.StatusOK},
		{"upgrade", []string{"--release", "1.1.0"}, http.StatusOK},
		{"offboard", nil, http.StatusNotFound},
	} {
		began := time.Now()
		p.fleet("apply", p.planned(t, o.kind, "calm", o.args...))
		n := p.killedThrough(t, p.planned(t, o.kind, "hurried", o.args...))
		if kills += n; n < leastKills {
			t.Errorf("%s was killed %d times: this shows less than it says", o.kind, n)
		}
		if calm == "" {
			calm, hurried = p.tenant(t, "calm").GetTenant().GetId(), p.tenant(t, "hurried").GetTenant().GetId()
		}
		want, got := p.world(t, "calm", calm), p.world(t, "hurried", hurried)
		for _, line := range want {
			if !slices.Contains(got, line) {
				t.Errorf("%s by a fleet that was killed, and this is not there: %s", o.kind, line)
			}
		}
		for _, line := range got {
			if !slices.Contains(want, line) {
				t.Errorf("%s by a fleet that was killed, and this is besides: %s", o.kind, line)
			}
		}
		if got := p.answers(t, "hurried"); got != o.answers {
			t.Errorf("%s by a fleet that was killed it answers %d", o.kind, got)
		}
		t.Logf("%s: killed %d times in %s", o.kind, n, time.Since(began).Round(time.Second))
	}
	t.Attr("row", fmt.Sprint("F33 ", kills))
}

// leastKills of an operation: it has four steps at least, of three points each.
const leastKills = 12

// failpoints puts a fleet with failpoints beside the plane's programs.
func (p *plane) failpoints(t *testing.T) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.CopyFS(bin, os.DirFS(p.bin)); err != nil {
		t.Fatal(err)
	}
	p.bin = bin
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoint", "-o", filepath.Join(bin, "fleet"), "a3os.app/tools/fleet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build fleet with failpoints: %v: %s", err, out)
	}
}

// planned plans a change of one tenant and answers its hash.
func (p *plane) planned(t *testing.T, kind, slug string, more ...string) (hash string) {
	t.Helper()
	var made registryv1.GetPlanResponse
	p.ask(t, &made, append([]string{"plan", kind, "--tenant", slug, "--reason", "it is to be killed"}, more...)...)
	return made.GetPlan().GetHash()
}

// killedThrough applies a plan until it is carried out: killed at the first point that it passes, then at the second, and so on; from the first one
// again when a step more is on record.
func (p *plane) killedThrough(t *testing.T, hash string) (kills int) {
	t.Helper()
	for done, point := 0, 1; ; point++ {
		if !p.killedAt(t, hash, point) {
			return kills
		}
		kills++
		if now := p.stepsDone(t, hash); now > done {
			done, point = now, 0
		}
	}
}

// killedAt applies a plan and kills who passes the n-th point in that; killed is false where it came to its end before.
func (p *plane) killedAt(t *testing.T, hash string, n int) (killed bool) {
	t.Helper()
	const most = 5 * time.Minute
	cmd, said := p.command("apply", hash), &bytes.Buffer{}
	cmd.Env, cmd.Stdout, cmd.Stderr = append(cmd.Env, "A3_FAILPOINT=fleet.* stop each"), said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick, bound := time.NewTicker(20*time.Millisecond), time.After(most)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil && !killed {
				t.Fatalf("apply, to be killed at point %d, failed by itself: %v: %s", n, err, said)
			}
			return killed
		case <-bound:
			_ = cmd.Process.Kill()
			t.Fatalf("apply neither stops nor ends: %s", said)
		case <-tick.C:
		}
		pid := proctest.Stopped(cmd.Process.Pid)
		if pid == 0 {
			continue
		}
		n--
		does := syscall.SIGCONT
		if n == 0 {
			does, killed = syscall.SIGKILL, true
		}
		if err := syscall.Kill(pid, does); err != nil {
			t.Fatal(err)
		}
	}
}

// stepsDone is how many steps of a plan's operation are on record as done.
func (p *plane) stepsDone(t *testing.T, hash string) (done int) {
	t.Helper()
	var all registryv1.ListOperationsResponse
	p.ask(t, &all, "operation", "list")
	for _, op := range all.GetOperations() {
		for _, s := range op.GetSteps() {
			if op.GetPlanHash() == hash && s.GetState() == registryv1.StepState_STEP_STATE_DONE {
				done++
			}
		}
	}
	return done
}

// world is all that there is of a tenant, with its id and its slug by their roles, so that two tenants can be compared.
func (p *plane) world(t *testing.T, slug, id string) (out []string) {
	t.Helper()
	add := func(format string, args ...any) {
		line := strings.ReplaceAll(fmt.Sprintf(format, args...), id, "ID")
		out = append(out, strings.ReplaceAll(line, slug, "SLUG"))
	}
	for what, list := range map[string][]string{
		"container": {"ps", "-a", "--format", "{{.Names}} of {{.Image}} {{.State}}"}, "network": {"network", "ls", "--format", "{{.Name}}"}, "volume": {"volume", "ls", "--format", "{{.Name}}"},
	} {
		for line := range strings.Lines(run(t, "docker", list...)) {
			if strings.Contains(line, id) {
				add("%s %s", what, strings.TrimSpace(line))
			}
		}
	}
	err := filepath.WalkDir(p.home, func(path string, d fs.DirEntry, err error) error {
		// What comes and goes meanwhile is nobody's state.
		if err != nil || !strings.Contains(path, id) || d.IsDir() && d.Name() == "state" || strings.Contains(path, "/log/") || strings.Contains(path, "/operations/") {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if err == nil && !strings.Contains(path, "/objects/") {
			add("file %s %s", strings.TrimPrefix(path, p.home), info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	status := p.tenant(t, id)
	add("registry %s %s", status.GetTenant().GetState(), status.GetServiceSet().GetRelease())
	var all registryv1.ListOperationsResponse
	p.ask(t, &all, "operation", "list", "--tenant", id)
	for _, op := range all.GetOperations() {
		line := fmt.Sprintf("operation %s %s", op.GetKind(), op.GetState())
		for _, s := range op.GetSteps() {
			line += " " + s.GetName() + " " + s.GetState().String()
		}
		add("%s", line)
	}
	return out
}
