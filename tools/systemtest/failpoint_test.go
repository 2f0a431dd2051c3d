package systemtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
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

// Row F3: the worker and discovery are killed at each point that the source names, in one run of csv and one of postgres, with a checkpoint
// after each batch. What is published is what an undisturbed run publishes, row for row. That a run goes on from each checkpoint is
// held by connectortest. A release has no failpoint.
func TestRunKilledAtEveryPointPublishesTheSame(t *testing.T) {
	full(t)
	t.Parallel()
	points := failpoints(t)
	bin := withFailpoints(t)
	t.Run("a release has no failpoint", func(t *testing.T) { noFailpoints(t, bin, points) })
	p := planeIn(t, walkable(t), "A3_TENANTS=acme", "A3_UNIX_TENANTS=acme")
	p.programs = bin
	if err := p.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := p.tenants["acme"]
	owner := x.admin(t)
	w := x.workspace(t, owner).GetId()
	// First those that kill little: what was killed often the supervisor starts later and later.
	t.Run("the worker is told to end", func(t *testing.T) { endsMidPage(t, x, owner) })
	t.Run("unix", func(t *testing.T) { machineKilled(t, x, owner, points) })
	x.arm(t, "discovery", "discovery.slice.work 0s")
	// A system is known by the name of its connection, so that two of one name are in two workspaces.
	other := x.workspace(t, owner).GetId()
	kills, reader, same := 0, x.reader(t), name("northwind")
	for connector, system := range map[string]func(workspace string) *integrationsv1.Integration{
		"csv": func(workspace string) *integrationsv1.Integration { return owner.upload(t, workspace, people(6000)) },
		"postgres": func(workspace string) *integrationsv1.Integration {
			return x.northwind(t, owner, workspace, same, reader)
		},
	} {
		t.Run(connector, func(t *testing.T) {
			calm, killed := system(w), system(other)
			owner.discover(t, w, calm.GetId())
			var kill []string
			for _, point := range points {
				component, ours := componentOf(point)
				// Discovery does the same with a file's run: with A3_LONG=1 it is killed in that one too.
				if connector == "csv" && (strings.HasPrefix(point, "worker.postgres") || component != "discovery-worker" && os.Getenv("A3_LONG") == "") {
					continue
				}
				if ours {
					kill = append(kill, point)
				}
			}
			kills += len(kill)
			done := owner.killed(t, x, other, killed.GetId(), kill)
			if done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
				t.Errorf("the run ended as %s: %s%v", done.GetState(), done.GetError(), done.GetGaps())
			}
			samePublished(t, x, calm.GetId(), killed.GetId())
		})
	}
	t.Attr("row", fmt.Sprint("F3 ", kills))
	t.Run("a system fails in the middle of a page", func(t *testing.T) { failsMidPage(t, x, owner, w) })
	t.Run("what panics holds secrets", func(t *testing.T) { panics(t, x, owner) })
}

// Row F3 for unix, whose run is one slice with five tries: each kill costs one or two, so that a run is killed twice. Discovery's points
// are those of the other connectors, so that killing it there is left to A3_LONG=1.
func machineKilled(t *testing.T, x *tenant, owner *person, points []string) {
	x.arm(t, "discovery")
	machine := func() (string, *integrationsv1.Integration) {
		w := x.workspace(t, owner).GetId()
		return w, ask(t, client(owner, w, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration, &integrationsv1.CreateIntegrationRequest{
			Name: "machine", Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{HostName: "machine"}}}})
	}
	calmly, calm := machine()
	other, killed := machine()
	owner.discover(t, calmly, calm.GetId())
	var kill []string
	for _, point := range points {
		component, ours := componentOf(point)
		if ours && !strings.HasPrefix(point, "worker.postgres") && (component == "discovery-worker" || os.Getenv("A3_LONG") != "") {
			kill = append(kill, point)
		}
	}
	const atOnce = 2
	for group := range slices.Chunk(kill, atOnce) {
		lines := map[string][]string{}
		for _, point := range group {
			component, _ := componentOf(point)
			lines[component] = append(lines[component], point+" kill")
		}
		for component, l := range lines {
			x.arm(t, component, l...)
		}
		run := ask(t, client(owner, other, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: killed.GetId()})
		done := owner.outlast(t, other, run.GetId())
		within(t, backWithin, x.disarmed)
		if done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE && done.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || done.GetError() != "" {
			t.Errorf("killed at %v the run ended as %s: %s%v", group, done.GetState(), done.GetError(), done.GetGaps())
		}
		t.Logf("killed at %v, the run took %s", group, done.GetFinishedAt().AsTime().Sub(run.GetCreatedAt().AsTime()))
	}
	// The machine is everybody's, and may have changed meanwhile: the two are compared when both have seen it as it is.
	owner.discover(t, calmly, calm.GetId())
	samePublished(t, x, calm.GetId(), killed.GetId())
	t.Attr("row", fmt.Sprint("F3 ", len(kill)))
}

// Row F20 for the worker: told to end while it reads a page, it gives the slice back at once, without waiting for a rescue and without
// counting it as failed, and the run publishes what an undisturbed one does.
func endsMidPage(t *testing.T, x *tenant, owner *person) {
	const soon = time.Minute // a slice whose worker died is rescued after 90 s
	w, other, same, reader := x.workspace(t, owner).GetId(), x.workspace(t, owner).GetId(), name("northwind"), x.reader(t)
	calm, ended := x.northwind(t, owner, w, same, reader), x.northwind(t, owner, other, same, reader)
	owner.discover(t, w, calm.GetId())
	x.arm(t, "discovery", "discovery.slice.work 0s")
	x.arm(t, "discovery-worker", "worker.postgres.page 2s 2")
	pid := x.plane.pids(t)[x.id+"/discovery-worker"]
	run := ask(t, client(owner, other, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: ended.GetId()})
	within(t, time.Minute, func() error {
		raw, err := os.ReadFile(x.file("components", "discovery-worker", "state", "failpoint"))
		if err == nil && len(raw) > 0 {
			err = errors.New("the page is not being read yet")
		}
		return err
	})
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	done := owner.outlast(t, other, run.GetId())
	took := done.GetFinishedAt().AsTime().Sub(run.GetCreatedAt().AsTime())
	t.Logf("the run took %s", took)
	if done.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE || took > soon {
		t.Errorf("the run ended after %s as %s: %s%v", took, done.GetState(), done.GetError(), done.GetGaps())
	}
	if now := x.plane.pids(t)[x.id+"/discovery-worker"]; now == pid {
		t.Error("the worker did not end: this test proves less than it says")
	}
	samePublished(t, x, calm.GetId(), ended.GetId())
	x.arm(t, "discovery")
	t.Attr("row", "F20 1")
}

// componentOf is whose a point is, where it is one of a run's.
func componentOf(point string) (component string, ours bool) {
	component, ours = map[string]string{"worker": "discovery-worker", "discovery": "discovery"}[strings.Split(point, ".")[0]]
	return component, ours
}

// killed runs discovery while the worker and discovery are killed at points, each once, and answers how the run ended.
func (w *person) killed(t *testing.T, x *tenant, workspace, integration string, points []string) *discoveryv1.Run {
	t.Helper()
	lines := map[string][]string{"discovery": {"discovery.slice.work 0s"}}
	for _, point := range points {
		component, _ := componentOf(point)
		// The second time since the process started, so that a slice is done between two kills; the end comes once.
		n := 2
		if strings.HasPrefix(point, "discovery.publish") || strings.HasPrefix(point, "discovery.report") {
			n = 1
		}
		lines[component] = append(lines[component], fmt.Sprintf("%s kill %d", point, n))
	}
	before := x.restarts(t)
	for component, l := range lines {
		x.arm(t, component, l...)
	}
	run := ask(t, client(w, workspace, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: integration})
	done := w.outlast(t, workspace, run.GetId())
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
	t.Logf("killed %d times, the run took %s", len(points), done.GetFinishedAt().AsTime().Sub(run.GetCreatedAt().AsTime()))
	return done
}

// Row F29: while the third page is read the system ends the connection, and takes no other. The run is tried as often as it may be and ends
// partial, with what it did not read named; nothing of that is taken for gone, though it is.
func failsMidPage(t *testing.T, x *tenant, owner *person, w string) {
	x.arm(t, "discovery")
	reader := x.reader(t)
	i := x.northwind(t, owner, w, name("northwind"), reader)
	server := x.plane.superuser(t, "sample-postgres", "northwind")
	clerk := strings.ReplaceAll(name("clerk"), "-", "_")
	if _, err := server.Exec(t.Context(), "CREATE ROLE "+clerk); err != nil {
		t.Fatal(err)
	}
	owner.discover(t, w, i.GetId())
	conn := x.plane.superuser(t, "postgres", x.id)
	shown := func() (n int) {
		t.Helper()
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM discovery.grants WHERE integration_id = $1 AND until IS NULL", uuidOf(t, i.GetId())).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := shown()
	if _, err := server.Exec(t.Context(), "GRANT SELECT ON ALL TABLES IN SCHEMA hr TO "+clerk); err != nil {
		t.Fatal(err)
	}
	owner.discover(t, w, i.GetId())
	granted := shown()
	if granted <= before {
		t.Fatalf("%d grants are shown, and %d after more were given", before, granted)
	}
	if _, err := server.Exec(t.Context(), "REVOKE SELECT ON ALL TABLES IN SCHEMA hr FROM "+clerk); err != nil {
		t.Fatal(err)
	}
	x.arm(t, "discovery", "discovery.slice.work 0s")
	x.arm(t, "discovery-worker", "worker.postgres.page 3s 3")
	run := ask(t, client(owner, w, discoveryv1connect.NewRunWriteServiceClient).StartRun, &discoveryv1.StartRunRequest{IntegrationId: i.GetId()})
	within(t, time.Minute, func() error {
		raw, err := os.ReadFile(x.file("components", "discovery-worker", "state", "failpoint"))
		if err == nil && len(raw) > 0 {
			err = errors.New("the third page is not being read yet")
		}
		return err
	})
	for _, sql := range []string{"ALTER ROLE " + reader + " CONNECTION LIMIT 0", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" + reader + "'"} {
		if _, err := server.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	done := owner.outlast(t, w, run.GetId())
	if done.GetState() != integrationsv1.RunState_RUN_STATE_PARTIAL || len(done.GetGaps()) == 0 {
		t.Errorf("the run ended as %s, %s, with the gaps %v", done.GetState(), done.GetError(), done.GetGaps())
	}
	if now := shown(); now != granted {
		t.Errorf("%d grants were shown before the run that saw a part, and %d after it", granted, now)
	}
	if _, err := server.Exec(t.Context(), "ALTER ROLE "+reader+" CONNECTION LIMIT -1"); err != nil {
		t.Fatal(err)
	}
	x.arm(t, "discovery")
	owner.discover(t, w, i.GetId())
	if now := shown(); now != before {
		t.Errorf("after a run that saw everything %d grants are shown, want %d", now, before)
	}
	t.Attr("row", fmt.Sprint("F29 ", 1))
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

const readerPassword = "systemtest-password"

// reader is a new role of the plane's sample server that sees what everybody does. On the server of the shared plane it is there until the test
// ends; another plane's goes with its plane.
func (x *tenant) reader(t *testing.T) string {
	t.Helper()
	reader := strings.ReplaceAll(name("reader"), "-", "_")
	server := x.plane.superuser(t, "sample-postgres", "postgres")
	if x.plane == shared {
		logins.RLock()
		t.Cleanup(logins.RUnlock) // after the role is gone
	}
	if _, err := server.Exec(t.Context(), "CREATE ROLE "+reader+" LOGIN PASSWORD '"+readerPassword+"'"); err != nil {
		t.Fatal(err)
	}
	if x.plane == shared {
		t.Cleanup(func() {
			clearSample(t, "REVOKE ALL ON DATABASE northwind, analytics FROM "+reader, "DROP ROLE "+reader)
		})
	}
	if _, err := server.Exec(t.Context(), "GRANT CONNECT ON DATABASE northwind, analytics TO "+reader); err != nil {
		t.Fatal(err)
	}
	return reader
}

// northwind connects the plane's sample server, as reader.
func (x *tenant) northwind(t *testing.T, owner *person, workspace, called, reader string) *integrationsv1.Integration {
	t.Helper()
	return ask(t, client(owner, workspace, integrationsv1connect.NewIntegrationWriteServiceClient).CreateIntegration, &integrationsv1.CreateIntegrationRequest{
		Name: called, Secret: readerPassword, Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{Postgres: &integrationsv1.PostgresSettings{
			Host: "127.0.0.1", Port: portOf(t, x.plane.sampleAddress(t)), User: reader, Database: "northwind", SslMode: "disable"}}}})
}
