package systemtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"a3os.app/libs/id"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// gated is a tenant that releases are rolled out to, and who works there meanwhile.
type gated struct {
	*rolling
	x         *tenant
	admin     *person
	workspace string
	releases  int
}

// Each gate of a rollout halts it, on a set that really gets slow, fails, restarts, gives jobs up or seals nothing while it is watched, and
// the rollout says which one and by how much. A set that nobody asks is asked by probes.
func TestStoryOfTheGatesOfARollout(t *testing.T) {
	long(t)
	t.Parallel()
	r := newRolling(t, "acme,globex")
	g := &gated{rolling: r, x: r.tenants["acme"]}
	g.admin = g.x.admin(t)
	g.workspace = g.x.workspace(t, g.admin).GetId()
	g.quick()
	for _, gate := range []struct {
		says  string
		flags []string
		trip  func(ctx context.Context)
	}{
		{"p99 is", []string{"--p99-factor", "2"}, g.slow},
		{"% of requests fail", []string{"--p99-factor", "0"}, g.failing},
		{"restarts since the change", []string{"--p99-factor", "0"}, g.restarting},
		{"jobs failed for good", []string{"--p99-factor", "0"}, g.givingUp},
		{"audit events wait to be sealed", []string{"--p99-factor", "0", "--audit-backlog", "1"}, g.unsealed},
	} {
		if halted := g.trips(gate.flags, gate.trip); !strings.Contains(halted.GetDetail(), gate.says) || !strings.HasPrefix(halted.GetDetail(), "acme: ") {
			t.Errorf("it was to halt since %q, and halted since %s", gate.says, halted.GetDetail())
		} else {
			t.Logf("halted: %s", halted.GetDetail())
		}
	}
	hash := g.plan("--bake", "1s", "--samples", "20", "--p99-factor", "0")
	g.must("apply", hash)
	if done := g.newest().GetTenants()[0]; done.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED || done.GetProbes() == 0 {
		t.Errorf("a set that nobody asked: %v", done)
	}
	g.steered()
}

// plan is a rollout of one more release.
func (g *gated) plan(more ...string) string {
	g.t.Helper()
	g.releases++
	version := fmt.Sprintf("1.%d.0", g.releases)
	g.register(version, func(program []byte) []byte { return fmt.Append(program, version) })
	return g.rollout(version, append([]string{"--tenant", "acme", "--rollback", "none"}, more...)...)
}

// trips rolls a release out, has something happen while it is watched, and answers the rollout when it has halted.
func (g *gated) trips(flags []string, trip func(context.Context)) *registryv1.Rollout {
	g.t.Helper()
	c := g.carry(g.plan(append([]string{"--bake", "10m", "--samples", "1"}, flags...)...))
	within(g.t, 2*time.Minute, func() error {
		if now := g.newest().GetTenants(); len(now) == 0 || now[0].GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING {
			return fmt.Errorf("it is not watched yet: %v", now)
		}
		return nil
	})
	ctx, stop := context.WithCancel(g.t.Context())
	var tripping sync.WaitGroup
	tripping.Go(func() { trip(ctx) })
	var halted *registryv1.Rollout
	within(g.t, 2*time.Minute, func() error {
		if halted = g.newest(); halted.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED {
			return fmt.Errorf("the rollout is %s: %v\n%s", halted.GetState(), halted.GetTenants(), c.out)
		}
		return nil
	})
	stop()
	tripping.Wait()
	if err := c.cmd.Wait(); err == nil {
		g.t.Error("who carried a rollout out that halted ended as if all were well")
	}
	g.must("rollout", "abort", halted.GetId(), "--reason", "the gate was seen")
	return halted
}

// list is a read.
func (g *gated) list(ctx context.Context) error {
	_, err := client(g.admin, g.workspace, integrationsv1connect.NewIntegrationServiceClient).
		ListIntegrations(ctx, connect.NewRequest(&integrationsv1.ListIntegrationsRequest{PageSize: 10}))
	return err
}

// steadily does something again and again until ctx ends.
func steadily(ctx context.Context, do func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// quick has reads answered as quickly as they are, until the registry keeps a report of them: what comes later is held against it.
func (g *gated) quick() {
	g.t.Helper()
	registry := g.superuser(g.t, "postgres", "registry")
	tenant, err := id.ParseTenant(g.x.id)
	if err != nil {
		g.t.Fatal(err)
	}
	before := time.Now()
	within(g.t, 3*time.Minute, func() error {
		for range 50 {
			if err := g.list(g.t.Context()); err != nil {
				return err
			}
		}
		var kept time.Time
		if err := registry.QueryRow(g.t.Context(), "SELECT max(reported_at) FROM registry.report_points WHERE tenant_id = $1", tenant).Scan(&kept); err != nil {
			return err
		}
		const oneReport = 10 * time.Second
		if kept.Before(before.Add(oneReport)) {
			return fmt.Errorf("what it reported last and is kept is of %s", kept)
		}
		return nil
	})
}

// exec runs SQL as the superuser; the test ends otherwise only once it has failed.
func (g *gated) exec(sql string) {
	if _, err := g.superuser(g.t, "postgres", g.x.id).Exec(context.WithoutCancel(g.t.Context()), sql); err != nil {
		g.t.Error(err)
	}
}

// slow has reads wait for a table.
func (g *gated) slow(ctx context.Context) {
	steadily(ctx, func() {
		var reads sync.WaitGroup
		for range 4 {
			reads.Go(func() { _ = g.list(g.t.Context()) })
		}
		g.exec("BEGIN; LOCK TABLE integrations.integrations IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1); COMMIT")
		reads.Wait()
	})
}

// failing takes a table away from under reads.
func (g *gated) failing(ctx context.Context) {
	g.exec("ALTER TABLE integrations.integrations RENAME TO away")
	steadily(ctx, func() { _ = g.list(g.t.Context()) })
	g.exec("ALTER TABLE integrations.away RENAME TO integrations")
}

// restarting kills a service.
func (g *gated) restarting(context.Context) {
	kill(g.t, g.pids(g.t)[g.x.id+"/integrations"])
}

// givingUp puts a message on the queue that nobody signed.
func (g *gated) givingUp(context.Context) {
	g.exec(`INSERT INTO queue.river_job (kind, args, max_attempts, metadata)
		VALUES ('a3os.message', jsonb_build_object('key', '` + id.NewMessage().String() + `', 'envelope', encode('no envelope', 'base64'), 'payload', encode('no payload', 'base64')), 25, '{}')`)
}

// unsealed lets nothing be sealed while things are done.
func (g *gated) unsealed(ctx context.Context) {
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		// Long enough that a report comes meanwhile, and too short for audit to be out of order.
		steadily(ctx, func() { g.exec("BEGIN; LOCK TABLE audit.entries IN SHARE MODE; SELECT pg_sleep(2); COMMIT") })
	})
	writes := client(g.admin, g.workspace, integrationsv1connect.NewIntegrationWriteServiceClient)
	steadily(ctx, func() {
		req := connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: name("unsealed"), Settings: csvSettings()})
		req.Header().Set("Idempotency-Key", name("key"))
		_, _ = writes.CreateIntegration(g.t.Context(), req)
	})
}

// A rollout is steered while it is carried out, each time with a reason and with no need to stop who carries it: a window denies, which
// whoever watches is told; it is led to another release; a tenant is left out. The picture that is watched ends with the rollout.
func (g *gated) steered() {
	g.t.Helper()
	other := g.runs("globex")
	both := []string{"--tenant", "globex", "--wave-size", "1", "--bake", "1s", "--samples", "5", "--p99-factor", "0"}
	denied := g.plan(append([]string{"--deny", "mon-sun 00:00-24:00"}, both...)...)
	c := g.carry(denied)
	var id string
	within(g.t, time.Minute, func() error {
		now := g.newest()
		if !strings.HasPrefix(now.GetWaitsFor(), "the end of the window mon") {
			return fmt.Errorf("it is %s and waits for %q", now.GetState(), now.GetWaitsFor())
		}
		id = now.GetId()
		return nil
	})
	watching := g.start("rollout", "status", id, "--watch")
	within(g.t, time.Minute, func() error {
		if shown := watching.out.String(); !strings.Contains(shown, "waits for the end of the window") {
			return fmt.Errorf("who watches is shown %q", shown)
		}
		return nil
	})
	g.must("rollout", "pause", id, "--reason", "the window is too long")
	g.must("rollout", "retarget", id, g.plan(both...), "--reason", "a release that may be now")
	g.must("rollout", "skip", id, "globex", "--reason", "the customer wants to wait")
	g.must("rollout", "resume", id, "--reason", "the window is gone")
	if err := c.cmd.Wait(); err != nil {
		g.t.Errorf("who carried it out ended with %v: %s", err, c.out)
	}
	for _, x := range g.newest().GetTenants() {
		want := map[string]registryv1.RolloutTenantState{"acme": registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED,
			"globex": registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_SKIPPED}[x.GetSlug()]
		if x.GetState() != want {
			g.t.Errorf("%s is %s, want %s", x.GetSlug(), x.GetState(), want)
		}
	}
	if is, want := g.runs("acme"), fmt.Sprintf("1.%d.0@", g.releases); !strings.HasPrefix(is, want) {
		g.t.Errorf("acme runs %s, want %s", is, want)
	}
	if is := g.runs("globex"); is != other {
		g.t.Errorf("globex was left out and runs %s, it was %s", is, other)
	}
	if err := watching.cmd.Wait(); err != nil {
		g.t.Errorf("who watched ended with %v", err)
	}
	for _, shown := range []string{"waits for the end of the window", "paused", "skipped", "passed", "succeeded", "the customer wants to wait"} {
		if !strings.Contains(watching.out.String(), shown) {
			g.t.Errorf("who watched was not shown %q:\n%s", shown, watching.out)
		}
	}
}
