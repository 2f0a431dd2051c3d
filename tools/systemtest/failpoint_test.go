package systemtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// failpoints are the points that the programs' source passes (libs/failpoint), in order.
func failpoints(t *testing.T) []string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`failpoint\.Here\(("?[^")]+"?)\)`)
	var out []string
	for _, module := range []string{"libs", "services"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range call.FindAllSubmatch(source, -1) {
				point := string(m[1])
				if !strings.HasPrefix(point, `"`) {
					t.Errorf("%s passes a point whose name is not written there: %s", path, point)
				}
				if point = strings.Trim(point, `"`); slices.Contains(out, point) {
					t.Errorf("two places are called %s", point)
				}
				out = append(out, point)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) == 0 {
		t.Fatal("the source passes no failpoint")
	}
	slices.Sort(out)
	return out
}

// withFailpoints builds accessos with them, beside the programs under test.
func withFailpoints(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoint", "-o", filepath.Join(dir, "accessos"), "./services/accessos")
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "GOWORK=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build accessos with failpoints: %v: %s", err, out)
	}
	for _, program := range []string{"fleet", "a3"} {
		raw, err := os.ReadFile(filepath.Join(programs, program))
		if err != nil {
			t.Fatal(err)
		}
		const executable = 0o755
		if err := os.WriteFile(filepath.Join(dir, program), raw, executable); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Row F3: the worker and discovery are killed at each point that the source names, in one run, with a checkpoint after each batch. What is published is what an undisturbed run publishes, row for row. That a run goes on from each checkpoint is
// held by connectortest. A release has no failpoint.
func TestRunKilledAtEveryPointPublishesTheSame(t *testing.T) {
	full(t)
	points := failpoints(t)
	bin := withFailpoints(t)
	t.Run("a release has no failpoint", func(t *testing.T) { noFailpoints(t, bin, points) })
	dir, err := os.MkdirTemp("", "a3-failpoint-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := newPlane(filepath.Join(dir, "plane"), "A3_TENANTS=acme", "A3_UNIX_TENANTS=acme")
	if err != nil {
		t.Fatal(err)
	}
	p.programs = bin
	t.Cleanup(func() {
		if t.Failed() {
			p.complaints(os.Stderr)
		}
		if err := p.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := p.tenants["acme"]
	owner := x.admin(t)
	w := x.workspace(t, owner).GetId()
	x.arm(t, "discovery", "discovery.slice.work 0s")
	kills := 0
	for connector, make := range map[string]func() *integrationsv1.Integration{
		"csv": func() *integrationsv1.Integration { return owner.upload(t, w, people(6000)) },
	} {
		t.Run(connector, func(t *testing.T) {
			calm, killed := make(), make()
			owner.discover(t, w, calm.GetId())
			lines := map[string][]string{"discovery": {"discovery.slice.work 0s"}}
			for _, point := range points {
				if strings.HasPrefix(point, "worker.postgres") {
					continue
				}
				component, ok := map[string]string{"worker": "discovery-worker", "discovery": "discovery"}[strings.Split(point, ".")[0]]
				if !ok {
					continue
				}
				// The second time since the process started, so that a slice is done between two kills; the end comes once.
				n := 2
				if strings.HasPrefix(point, "discovery.publish") || strings.HasPrefix(point, "discovery.report") {
					n = 1
				}
				lines[component] = append(lines[component], fmt.Sprintf("%s kill %d", point, n))
				kills++
			}
			before := x.restarts(t)
			for component, l := range lines {
				x.arm(t, component, l...)
			}
			run := ask(t, client(owner, w, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: killed.GetId()})
			done := owner.outlast(t, w, run.GetId())
			if done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
				t.Errorf("the run ended as %s: %s%v", done.GetState(), done.GetError(), done.GetGaps())
			}
			within(t, backWithin, func() error { return x.disarmed() })
			for component, l := range lines {
				want := len(l)
				if component == "discovery" {
					want-- // the line that kills nothing
				}
				if got := x.restarts(t)[component] - before[component]; got != want {
					t.Errorf("%s was to be killed %d times and came back %d times", component, want, got)
				}
			}
			t.Logf("killed %d times, the run took %s", len(lines["discovery"])-1+len(lines["discovery-worker"]), done.GetFinishedAt().AsTime().Sub(run.GetCreatedAt().AsTime()))
			samePublished(t, x, calm.GetId(), killed.GetId())
		})
	}
	t.Attr("row", fmt.Sprint("F3 ", kills))
}

// outlast watches a run to its end past the ends of who is asked.
func (w *person) outlast(t *testing.T, workspace, run string) *discoveryv1.Run {
	t.Helper()
	const most = 3 * time.Minute
	var last *discoveryv1.Run
	runs := client(w, workspace, discoveryv1connect.NewRunServiceClient)
	within(t, most, func() error {
		res, err := runs.GetRun(t.Context(), connect.NewRequest(&discoveryv1.GetRunRequest{RunId: run}))
		if err != nil {
			return err
		}
		if last = res.Msg; last.GetFinishedAt() == nil {
			return fmt.Errorf("the run is %s: %s", last.GetState(), last.GetProgress())
		}
		return nil
	})
	return last
}

// noFailpoints looks for what failpoints leave in a program, and finds it where they are.
func noFailpoints(t *testing.T, bin string, points []string) {
	for _, program := range []string{"accessos", "fleet", "a3"} {
		for dir, want := range map[string]bool{programs: false, bin: program == "accessos"} {
			raw, err := os.ReadFile(filepath.Join(dir, program))
			if err != nil {
				t.Fatal(err)
			}
			for _, trace := range append(slices.Clone(points), "A3_FAILPOINT") {
				if bytes.Contains(raw, []byte(trace)) != want {
					t.Errorf("%s in %s: that %s is in it should be %v", program, dir, trace, want)
				}
			}
		}
	}
}

// arm tells a component what to do at which points.
func (x *tenant) arm(t *testing.T, component string, lines ...string) {
	t.Helper()
	file := x.file("components", component, "state", "failpoint")
	const open = 0o666
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), open); err != nil {
		t.Fatal(err)
	}
}

// disarmed says which points were not passed.
func (x *tenant) disarmed() error {
	for component := range x.addresses {
		raw, err := os.ReadFile(x.file("components", component, "state", "failpoint"))
		if err == nil && bytes.Contains(raw, []byte(" kill")) {
			return fmt.Errorf("%s was not killed at each point: %s", component, raw)
		}
	}
	return nil
}

// restarts is how often each component came back.
func (x *tenant) restarts(t *testing.T) map[string]int {
	t.Helper()
	s, err := x.plane.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, u := range s.Processes {
		if component, ok := strings.CutPrefix(u.Name, x.id+"/"); ok {
			out[component] = u.Restarts
		}
	}
	return out
}
