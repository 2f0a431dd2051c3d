package local_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/pgserver"
	"a3os.app/libs/workload"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// The test program is also the supervisor, and every part of a tiny product that knows nothing of AccessOS.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(m.Run())
	}
	if err := be(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func be(ctx context.Context, args []string) error {
	switch args[0] {
	case "be-supervisor":
		return supervise.Run(ctx, supervise.Dir(args[1]), programs(args[1]))
	case "be-watcher":
		return supervise.Watch(ctx, supervise.Dir(args[1]), programs(args[1]))
	case "tiny-migrate":
		conn, err := connect(ctx, "TINY_OWNER_FILE")
		if err != nil {
			return err
		}
		_, role, _ := strings.Cut(os.Getenv("TINY_ROLES"), "writer=")
		_, err = conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS tiny; CREATE TABLE IF NOT EXISTS tiny.notes (note text); GRANT USAGE ON SCHEMA tiny TO "+role+"; GRANT INSERT, SELECT ON tiny.notes TO "+role)
		// What stands behind the program is a release's own migration; see built.
		if program, own := os.ReadFile(os.Args[0]); err == nil && own == nil {
			if _, more, ok := strings.Cut(string(program[max(0, len(program)-1<<12):]), more); ok {
				_, err = conn.Exec(ctx, strings.ReplaceAll(more, "ROLE", role))
			}
		}
		return err
	case "tiny-hold":
		if err := os.WriteFile(os.Getenv("TINY_HOLD"), nil, 0o600); err != nil {
			return err
		}
		<-ctx.Done()
	case "tiny-store":
		conn, err := connect(ctx, "TINY_DATABASE_FILE")
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "INSERT INTO tiny.notes VALUES ('started')"); err != nil {
			return err
		}
	case "tiny-web":
		if _, err := os.ReadFile(os.Getenv("TINY_COOKIE_FILE")); err != nil {
			return err
		}
	}
	srv := &http.Server{Addr: os.Getenv("TINY_LISTEN"), ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(os.Getenv("TINY_PEERS"))) })}
	return srv.ListenAndServe()
}

// more begins the SQL that a release's migration carries out besides; it is made here, so that this program holds it nowhere.
var more = "\x00" + strings.ToUpper("sql ")

func connect(ctx context.Context, variable string) (*pgx.Conn, error) {
	url, err := os.ReadFile(os.Getenv(variable))
	if err != nil {
		return nil, err
	}
	return pgx.Connect(ctx, string(url))
}

func programs(dir string) supervise.Programs {
	return supervise.Programs{Supervisor: []string{os.Args[0], "be-supervisor", dir}, Watcher: []string{os.Args[0], "be-watcher", dir},
		Log: filepath.Join(dir, "supervisor.log")}
}

// machine is this machine with a server and a supervisor of the test's own.
func machine(t *testing.T) *local.Platform {
	t.Helper()
	home, err := os.MkdirTemp("/tmp", "a3-local-")
	if err != nil {
		t.Fatal(err)
	}
	// The server's user walks through it where this is root.
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	st, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load([]string{"A3_HOME=" + home}, "/")
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(home, "run")
	p := &local.Platform{Settings: s, State: st, Supervisor: supervise.NewClient(supervise.Dir(run)), Now: time.Now}
	if err := p.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Programs = []string{os.Args[0]}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := p.Supervisor.Stop(ctx); err != nil && !errors.Is(err, supervise.ErrNotRunning) {
			t.Error(err)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.Supervisor.Ensure(t.Context(), programs(run)); err != nil {
		t.Fatal(err)
	}
	binaries, err := pgserver.Find(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Postgres, err = p.NewServer(binaries, "postgres"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Serve(t.Context(), p.Postgres); err != nil {
		t.Fatal(err)
	}
	control, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	p.Own = platform.Set{Blueprint: control}
	if _, err := p.KeysAndStores(p.Own); err != nil {
		t.Fatal(err)
	}
	return p
}

func tiny(t *testing.T) *blueprint.Blueprint {
	t.Helper()
	text, err := os.ReadFile("../../../../../deploy/blueprint/testdata/tiny.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b, err := blueprint.Parse("tiny.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// built is a release of the test's own program; another text is another release.
func built(t *testing.T, p *local.Platform, text string) platform.Release {
	t.Helper()
	program := os.Args[0]
	if text != "" {
		code, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		// What follows a program's own bytes is read by nobody, and has another digest.
		program = filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(program, append(code, text...), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Programs = append(p.Programs, program)
	}
	r, err := local.Built(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fetch(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// carryOut does every step of a set, and says which changed something.
func carryOut(t *testing.T, p *local.Platform, s platform.Set) string {
	t.Helper()
	r := built(t, p, "")
	var changed []string
	for _, step := range []struct {
		name string
		do   func() (bool, error)
	}{
		{"identity", func() (bool, error) { return p.Identity(t.Context(), s) }},
		{"database", func() (bool, error) { return p.Database(t.Context(), s) }},
		{"migrate", func() (bool, error) { return p.Migrate(t.Context(), s, r) }},
		{"mark", func() (bool, error) { return p.Mark(t.Context(), s) }},
		{"start", func() (bool, error) { return p.Start(t.Context(), s, r) }},
	} {
		did, err := step.do()
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if did {
			changed = append(changed, step.name)
		}
	}
	return strings.Join(changed, " ")
}

func TestSetOfAnotherProductIsCarriedOutTheSameAndARepetitionChangesNothing(t *testing.T) {
	p, b := machine(t), tiny(t)
	set := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
	if got := carryOut(t, p, set); got != "identity database migrate mark start" {
		t.Errorf("the first time %q changed something", got)
	}
	web, err := p.Address(set, "web", "api")
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + web + "/")
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("its web front answers %s (%v)", res.Status, err)
	}
	if got := carryOut(t, p, set); got != "" {
		t.Errorf("the second time %q changed something", got)
	}
	placed, err := p.Placed(t.Context(), set, built(t, p, ""))
	if err != nil || len(placed.GetComponents()) != 2 || placed.GetComponents()[1].GetAddress() != web {
		t.Errorf("it is placed at %v (%v)", placed, err)
	}
}

func TestTenantsAreKeptApartInTheDatabaseAndByTheirAuthorities(t *testing.T) {
	p, b := machine(t), tiny(t)
	acme, globex := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}, platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "globex"}
	carryOut(t, p, acme)
	carryOut(t, p, globex)
	home := p.Settings.Home
	url, err := os.ReadFile(filepath.Join(home, "tenants", globex.Name(), "database", "writer.url"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), string(url))
	if err != nil {
		t.Fatalf("a role can't reach its own database: %v", err)
	}
	defer conn.Close(t.Context())
	for _, database := range []string{acme.Name(), "postgres", "template1"} {
		other := strings.Replace(string(url), "/"+globex.Name()+"?", "/"+database+"?", 1)
		if conn, err := pgx.Connect(t.Context(), other); err == nil {
			t.Errorf("a role of globex reached database %s", database)
			_ = conn.Close(t.Context())
		} else if !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("database %s refused with %v", database, err)
		}
	}
	for _, sql := range []string{"CREATE TEMP TABLE x ()", "CREATE SCHEMA x", "CREATE TABLE public.x ()", "CREATE TABLE tiny.x ()", "DROP TABLE tiny.notes", "SET ROLE " + globex.Name() + "_owner", "CREATE ROLE x"} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("a service's role could %s", sql)
		}
	}
	roots, err := p.Roots(acme)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := workload.ParseRoots(workload.TrustDomain{Plane: p.State.Plane, Tenant: globex.Tenant}, roots); err == nil {
		t.Error("the root of acme passes for one of globex")
	}
}

// Tenants come several at once, and each closes the server's own databases besides its own.
func TestDatabasesAreMadeAtOnce(t *testing.T) {
	p, b := machine(t), tiny(t)
	var all sync.WaitGroup
	for range 8 {
		s := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
		if _, err := p.Identity(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for range 10 {
				if _, err := p.Database(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestWhatIsSecretIsItsOwnersAlone(t *testing.T) {
	p, b := machine(t), tiny(t)
	set := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
	carryOut(t, p, set)
	err := filepath.WalkDir(filepath.Join(p.Settings.Home, "tenants"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// Where each process is a user of its own, others walk through directories and read what is public: certificates of authorities.
		allowed := fs.FileMode(0)
		switch {
		case !p.Separated():
		case d.IsDir():
			allowed = 0o051
		case d.Name() == "roots.pem":
			allowed = 0o044
		}
		if info.Mode().Perm()&0o077&^allowed != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNewReleaseIsMigratedOnceAndReplacesTheProcesses(t *testing.T) {
	p, b := machine(t), tiny(t)
	b.Env = map[string]string{"TINY_RELEASE": "{{.Release}}"}
	b.Database.Migrate.Command = []string{"tiny-web"}
	b.Database.Migrate.Env = map[string]string{"TINY_COOKIE_FILE": "/nowhere"}
	set := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
	r := built(t, p, "")
	for _, step := range []func() (bool, error){
		func() (bool, error) { return p.Identity(t.Context(), set) },
		func() (bool, error) { return p.Database(t.Context(), set) },
	} {
		if _, err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Migrate(t.Context(), set, r); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Fatalf("a failed migration ended with %v, want its last word", err)
	}
	b.Database.Migrate = tiny(t).Database.Migrate
	if did, err := p.Migrate(t.Context(), set, r); err != nil || !did {
		t.Fatalf("after a failed migration the next one did nothing: %v, %v", did, err)
	}
	if _, err := p.Start(t.Context(), set, r); err != nil {
		t.Fatal(err)
	}
	r = built(t, p, "two")
	if did, err := p.Start(t.Context(), set, r); err != nil || !did {
		t.Errorf("the new release replaced nothing: %v, %v", did, err)
	}
}

// Row F50, another digest than planned: what lies there is not what was fetched any more. It is neither started nor made an image of.
func TestProgramThatWasSwappedIsNoRelease(t *testing.T) {
	p, b := machine(t), tiny(t)
	set := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: "acme"}
	carryOut(t, p, set)
	r := built(t, p, "")
	program, err := p.Program(b, r)
	if err != nil {
		t.Fatal(err)
	}
	if artefact, err := p.Artefact(b, r); err != nil || artefact != program {
		t.Errorf("the artefact is %q (%v), want %q", artefact, err, program)
	}
	code, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const executable = 0o755
	if err := errors.Join(os.WriteFile(program+".part", append(code, "swapped"...), executable), os.Rename(program+".part", program)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stop(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"it is started":         func() error { _, err := p.Start(t.Context(), set, r); return err },
		"an image is made":      func() error { _, err := p.Program(b, r); return err },
		"an image is made, AWS": func() error { _, err := p.Artefact(b, r); return err },
		"it is fetched again":   func() error { _, err := p.Fetch(t.Context(), r); return err },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "somebody changed it") {
			t.Errorf("a program was swapped after it was fetched, and %s: %v, want a refusal", what, err)
		}
	}
}
