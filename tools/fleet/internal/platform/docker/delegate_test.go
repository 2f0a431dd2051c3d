package docker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/docker"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/internal/enginetest"
)

// tiny is another product's set, of one component with a key and a directory of its own.
const tiny = `
name: tiny
artefact: pause
scope: tenant
keys:
  cookie: {kind: random}
components:
  - name: web
    command: ["7000"]
    needs: {keys: [cookie]}
    ports: [api]
    env:
      TINY_ADDRESS: '{{.Address "api"}}'
      TINY_COOKIE_FILE: '{{.KeyFile "cookie"}}'
`

// grounds is a plane of containers without services of its own, and the release that its tenants run.
func grounds(t *testing.T) (*docker.Platform, platform.Release) {
	t.Helper()
	home, err := os.MkdirTemp("/tmp", "a3-docker-")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(home, "pause")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../container/testdata/pause")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	control, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	keys := *control
	keys.Components, keys.Database = nil, nil
	p := &docker.Platform{Own: platform.Set{Blueprint: &keys}}
	for _, fill := range []func() error{
		func() (err error) { p.Tenants, err = blueprint.Parse("tiny.yaml", []byte(tiny)); return err },
		func() (err error) { p.State, err = state.Open(home); return err },
		func() (err error) { p.Settings, err = settings.Load([]string{"A3_HOME=" + home}, "/"); return err },
		func() (err error) { p.Binaries, err = pgserver.Find(t.Context(), pgserver.Options{}); return err },
		func() (err error) { p.Engine, err = container.Open(t.Context(), p.State.ID); return err },
	} {
		if err := fill(); err != nil {
			t.Fatal(err)
		}
	}
	p.Machine = &local.Platform{Settings: p.Settings, State: p.State, Own: p.Own, Programs: []string{program}, Places: p, Now: time.Now}
	t.Cleanup(func() {
		if _, err := p.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{p.State.Served, home} {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
		_ = p.Close()
	})
	r, err := local.Built(program)
	if err == nil {
		err = p.Machine.Settle(t.Context())
	}
	if err == nil {
		_, err = p.Identity(t.Context(), p.Own)
	}
	if err == nil {
		_, err = p.Fetch(t.Context(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, r
}

// worksOn is the platform as the process that works on a set has it, which is at a step.
func worksOn(t *testing.T, p *docker.Platform, s platform.Set, r platform.Release, step string) *docker.Platform {
	t.Helper()
	lent, err := p.Delegate(t.Context(), s, r, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if lent.Sockets || len(lent.Ports) > 0 {
		t.Errorf("it reaches the machine's sockets (%v) and ports %v", lent.Sockets, lent.Ports)
	}
	child, err := docker.Open(lent.Config, func(ctx context.Context, call json.RawMessage) (platform.Answer, error) {
		return p.Answer(ctx, s, r, step, call)
	})
	if err != nil {
		t.Fatal(err)
	}
	if child.Engine != nil {
		t.Error("it has the engine itself")
	}
	return child
}

// Row: none of the list's; what the plane's own sets of tests play for platform local (supervise, TestTokenOfOneGroupReachesNoOther).
//
// The process that works on one tenant starts and stops that tenant's containers, and can ask for nothing else: not another tenant's or the
// plane's, and of its own none with another image, mount, network or right than the blueprint has.
func TestProcessOfOneTenantIsRefusedWhatIsAnothers(t *testing.T) {
	enginetest.Need(t)
	p, r := grounds(t)
	mine := platform.Set{Blueprint: p.Tenants, Tenant: id.NewTenant(), Slug: "acme", Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
	theirs := platform.Set{Blueprint: p.Tenants, Tenant: id.NewTenant(), Slug: "globex", Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
	for _, s := range []platform.Set{mine, theirs} {
		if _, err := p.Identity(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if changed, err := worksOn(t, p, s, r, platform.StepStart).Start(t.Context(), s, r); err != nil || !changed {
			t.Fatalf("the control: it starts its own set: %v, %v", changed, err)
		}
		if changed, err := worksOn(t, p, s, r, platform.StepStart).Start(t.Context(), s, r); err != nil || changed {
			t.Fatalf("a second time it starts its own set: %v, %v", changed, err)
		}
	}
	before := inspect(t, p, mine, theirs)

	web, other := `"components":["web"]`, theirs.Name()
	attempts := []struct{ step, call, names string }{
		{platform.StepStart, `{"do":"keep","components":["` + other + `/web"]}`, other},
		{platform.StepStart, `{"do":"keep","components":["../` + other + `/web"]}`, other},
		{platform.StepStart, `{"do":"await","components":["web","` + other + `/web"]}`, other},
		{platform.StepStop, `{"do":"drop","components":["` + other + `/web"]}`, other},
		{platform.StepDelete, `{"do":"drop","components":["web","` + other + `/web"]}`, other},
		{platform.StepStop, `{"do":"drop","components":["plane/databases"]}`, "plane/databases"},
		{platform.StepStop, `{"do":"drop","components":["postgres"]}`, "postgres"},
		{platform.StepStart, `{"do":"keep",` + web + `,"tenant":"` + other + `"}`, "tenant"},
		{platform.StepStart, `{"do":"prepare","network":"` + other + `"}`, "network"},
		{platform.StepStart, `{"do":"keep",` + web + `,"privileged":true}`, "privileged"},
		{platform.StepStart, `{"do":"keep",` + web + `,"mounts":[{"from":"/","to":"/host"}]}`, "mounts"},
		{platform.StepStart, `{"do":"keep",` + web + `,"volumes":["` + other + `"]}`, "volumes"},
		{platform.StepStart, `{"do":"keep",` + web + `,"image":"sha256:` + strings.Repeat("0", 64) + `"}`, "image"},
		{platform.StepMigrate, `{"do":"migrate","release":"9.9.9"}`, "release"},
		{platform.StepStart, `{"do":"exec",` + web + `}`, "exec"},
		{platform.StepStop, `{"do":"keep",` + web + `}`, "keep"},
		{platform.StepStart, `{"do":"drop",` + web + `}`, "drop"},
		{platform.StepShred, `{"do":"drop",` + web + `}`, "drop"},
		{platform.StepStart, `{"do":"prepare"}{"do":"drop",` + web + `}`, "at once"},
	}
	for _, a := range attempts {
		if did, err := p.Answer(t.Context(), mine, r, a.step, json.RawMessage(a.call)); err == nil || did.Changed ||
			!strings.Contains(err.Error(), "refused to who works on "+mine.Name()) || !strings.Contains(err.Error(), a.names) {
			t.Errorf("at step %s it asks for %s: %v, %v; want a refusal that names %s", a.step, a.call, did.Changed, err, a.names)
		}
	}
	if _, err := p.Answer(t.Context(), p.Own, r, platform.StepStop, json.RawMessage(`{"do":"drop"}`)); err == nil {
		t.Error("the plane's own set is opened to such a process")
	}
	if after := inspect(t, p, mine, theirs); after != before {
		t.Errorf("the containers were\n%s\nand are\n%s", before, after)
	}

	// The control: what is its own it stops, and takes its files away.
	if changed, err := worksOn(t, p, mine, r, platform.StepStop).Stop(t.Context(), mine); err != nil || !changed {
		t.Errorf("it stops its own set: %v, %v", changed, err)
	}
	if left := inspect(t, p, mine); left != "" {
		t.Errorf("of its set, which it stopped, runs %s", left)
	}
	if now := inspect(t, p, theirs); !strings.Contains(before, now) || now == "" {
		t.Errorf("the other one's containers are %s", now)
	}
	if changed, err := worksOn(t, p, mine, r, platform.StepDelete).Delete(t.Context(), mine); err != nil || !changed {
		t.Errorf("it removes what is in its own directories: %v, %v", changed, err)
	}
	for _, dir := range []string{p.Machine.Files(mine).Dir(), filepath.Join(p.SecretsDir(), mine.Name())} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("in %s is left %v (%v)", dir, left, err)
		}
	}
}

// inspect is all that matters of sets' containers, in the engine's words.
func inspect(t *testing.T, p *docker.Platform, sets ...platform.Set) string {
	t.Helper()
	var out strings.Builder
	for _, s := range sets {
		all, err := p.Status(t.Context(), s.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			fmt.Fprintf(&out, "%s %s\n", c.Name, run(t, "docker", "inspect", "--format",
				"{{.Id}} {{.Image}} {{.State.StartedAt}} {{.HostConfig.Privileged}} {{json .HostConfig.CapAdd}} {{json .HostConfig.Mounts}} {{json .NetworkSettings.Networks}}", c.ID))
		}
	}
	return out.String()
}
