package docker_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/image"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/docker"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/internal/enginetest"
)

// a product with a database.
const keeper = `
name: keeper
artefact: pause
scope: tenant
keys:
  backup: {kind: backup}
backup:
  key: backup
database:
  roles:
    writer: {connections: 4, schemas: [keeper]}
components:
  - name: web
    command: ["7000"]
    needs: {database: [writer]}
    ports: [api]
    env:
      KEEPER_ADDRESS: '{{.Address "api"}}'
      KEEPER_DATABASE_FILE: '{{.DatabaseURLFile "writer"}}'
`

const sharedServer = "plane/databases"

// serverPlane is a plane whose machine can be updated under its database servers.
type serverPlane struct {
	*docker.Platform
	release platform.Release
	told    []string
}

func servers(t *testing.T) *serverPlane {
	t.Helper()
	grounded, r := grounds(t)
	p := &serverPlane{Platform: grounded, release: r}
	p.Note = func(text string) { p.told = append(p.told, text) }
	var err error
	if p.Tenants, err = blueprint.Parse("keeper.yaml", []byte(keeper)); err != nil {
		t.Fatal(err)
	}
	p.ground(t)
	return p
}

func (p *serverPlane) ground(t *testing.T) {
	t.Helper()
	if _, err := p.Ground(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// served is a tenant of the plane that was started.
func (p *serverPlane) served(t *testing.T, slug string, tier registryv1.IsolationTier) platform.Set {
	t.Helper()
	s := platform.Set{Blueprint: p.Tenants, Tenant: id.NewTenant(), Slug: slug, Tier: tier}
	if _, err := p.State.Remember(slug, s.Tenant, func(t *state.Tenant) { t.ID, t.Dedicated = s.Tenant, s.Dedicated() }); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() (bool, error){
		func() (bool, error) { return p.Identity(t.Context(), s) },
		func() (bool, error) { return p.Database(t.Context(), s) },
		func() (bool, error) { return p.Start(t.Context(), s, p.release) },
	} {
		if _, err := step(); err != nil {
			t.Fatalf("%s: %v", slug, err)
		}
	}
	return s
}

// updated has the machine's PostgreSQL make another image than the servers run from, which it answers.
func (p *serverPlane) updated(t *testing.T) (was string) {
	t.Helper()
	key := ""
	for k, v := range p.State.Images() {
		if strings.HasPrefix(k, "postgresql-") {
			key, was = k, v
		}
	}
	spec, err := image.Postgres(t.Context(), p.Binaries)
	if err != nil {
		t.Fatal(err)
	}
	spec.Files["/mended"] = p.Machine.Programs[0]
	made, err := image.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	id, err := made.ID()
	if err == nil {
		err = p.Engine.Load(t.Context(), id, made.Write)
	}
	if err = errors.Join(err, p.State.SetImage(key, id), p.State.SetImage("postgresql-before", was)); err != nil {
		t.Fatal(err)
	}
	return was
}

// runs is the container of a database server: its id, and the plane's networks that it stands in.
func (p *serverPlane) runs(t *testing.T, unit string) (container string, networks []string) {
	t.Helper()
	var is []struct {
		ID              string `json:"Id"`
		State           struct{ StartedAt string }
		NetworkSettings struct{ Networks map[string]any }
	}
	if err := json.Unmarshal([]byte(run(t, "docker", "inspect", p.Engine.Thing(unit))), &is); err != nil || len(is) != 1 {
		t.Fatalf("%v: %v", is, err)
	}
	for name := range is[0].NetworkSettings.Networks {
		networks = append(networks, name)
	}
	return is[0].ID + is[0].State.StartedAt, networks
}

// reachable sees that a server stands in the network of each of these tenants, and answers each there.
func (p *serverPlane) reachable(t *testing.T, when, unit string, sets ...platform.Set) {
	t.Helper()
	_, networks := p.runs(t, unit)
	for _, s := range sets {
		if !slices.Contains(networks, p.Engine.Thing(s.Name())) {
			t.Errorf("%s the server of %s stands in the networks %v alone", when, s.Slug, networks)
			continue
		}
		url, err := os.ReadFile(p.Machine.Files(s).URL("writer"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), strings.TrimSpace(string(url)))
		if err != nil {
			t.Errorf("%s %s gets no answer of its database: %v", when, s.Slug, err)
			continue
		}
		_ = conn.Close(t.Context())
	}
}

func (p *serverPlane) behind(t *testing.T, when string, want ...string) {
	t.Helper()
	got, err := p.Behind(t.Context())
	if slices.Sort(want); err != nil || !slices.Equal(got, want) {
		t.Errorf("%s the servers %v are behind (%v), want %v", when, got, err, want)
	}
}

// worked does what comes up for a tenant that is served, but for its start.
func (p *serverPlane) worked(t *testing.T, s platform.Set) {
	t.Helper()
	if _, err := p.Serve(t.Context(), s); err != nil {
		t.Errorf("%s: %v", s.Slug, err)
	}
	if _, err := p.Database(t.Context(), s); err != nil {
		t.Errorf("%s: %v", s.Slug, err)
	}
	if _, err := p.Machine.BackUp(t.Context(), s); err != nil {
		t.Errorf("%s: %v", s.Slug, err)
	}
}

// The machine is updated under the server that three tenants share. Whoever works on one of them takes it as it runs, and nobody is cut off; the
// plane's next start makes it anew, unless a backup is being read from it, and it stands in all three tenants' networks after that. So it does, too,
// when it is made anew for one of them because it didn't run.
func TestSharedServerIsMadeAnewForAllOrForNobody(t *testing.T) {
	enginetest.Need(t)
	p := servers(t)
	var sets []platform.Set
	for _, slug := range []string{"acme", "globex", "initech"} {
		sets = append(sets, p.served(t, slug, registryv1.IsolationTier_ISOLATION_TIER_DATABASE))
	}
	p.reachable(t, "at first", sharedServer, sets...)
	p.behind(t, "at first")
	before, _ := p.runs(t, sharedServer)
	was := p.updated(t)
	p.behind(t, "after an update of the machine", sharedServer, "plane/postgres")

	p.worked(t, sets[0])
	if _, err := p.Start(t.Context(), sets[0], p.release); err != nil {
		t.Error(err)
	}
	if now, _ := p.runs(t, sharedServer); now != before {
		t.Error("whoever worked on one tenant had the server of all made anew")
	}
	p.reachable(t, "after work on acme", sharedServer, sets...)

	end := p.reads(t, sets[2])
	p.ground(t)
	if now, _ := p.runs(t, sharedServer); now != before || len(p.told) != 1 || !strings.Contains(p.told[0], sharedServer) {
		t.Errorf("the server was made anew under a backup, or nobody was told that it was not: %v", p.told)
	}
	end()
	p.ground(t)
	if now, _ := p.runs(t, sharedServer); now == before {
		t.Error("the plane's start left the server as it was")
	}
	p.reachable(t, "made anew", sharedServer, sets...)
	p.behind(t, "made anew")
	if there, err := p.Engine.HasImage(t.Context(), was); err != nil || there || p.State.Images()["postgresql-before"] != "" {
		t.Errorf("the image that nothing runs from is still there: %v, %v", there, err)
	}
	if changed, err := p.Ground(t.Context()); err != nil || changed {
		t.Errorf("a second time: %v, %v", changed, err)
	}

	if _, err := p.Engine.Remove(t.Context(), sharedServer); err != nil {
		t.Fatal(err)
	}
	p.worked(t, sets[1])
	p.reachable(t, "made for globex", sharedServer, sets...)
}

// A tenant's own server is made anew when the tenant is started, and not by whoever backs the tenant up.
func TestOwnServerIsMadeAnewWhereItsTenantIsStarted(t *testing.T) {
	enginetest.Need(t)
	p := servers(t)
	s := p.served(t, "acme", registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)
	own := s.Name() + "/postgres"
	before, _ := p.runs(t, own)
	was := p.updated(t)
	p.ground(t)
	p.worked(t, s)
	if now, _ := p.runs(t, own); now != before {
		t.Error("it was made anew while its tenant was not started")
	}
	p.behind(t, "before the tenant is started", own)
	if there, err := p.Engine.HasImage(t.Context(), was); err != nil || !there {
		t.Errorf("the image that it runs from is gone: %v", err)
	}

	end := p.reads(t, s)
	start := func() {
		t.Helper()
		if _, err := p.Start(t.Context(), s, p.release); err != nil {
			t.Fatal(err)
		}
	}
	start()
	if now, _ := p.runs(t, own); now != before {
		t.Error("it was made anew under a backup")
	}
	end()
	start()
	if now, _ := p.runs(t, own); now == before {
		t.Error("the tenant's start left it as it was")
	}
	p.reachable(t, "made anew", own, s)
	p.behind(t, "after the tenant was started")
}

// reads has somebody read a tenant's database as a backup does, until end.
func (p *serverPlane) reads(t *testing.T, s platform.Set) (end func()) {
	t.Helper()
	at, err := p.Databases(s)
	if err != nil {
		t.Fatal(err)
	}
	super, err := at.URL("postgres")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), super)
	if err != nil {
		t.Fatal(err)
	}
	name, database := local.RealRole(s, local.ReaderRole), local.DatabaseName(s)
	const password = "of-this-test-alone"
	for _, statement := range []string{"CREATE ROLE " + name + " LOGIN PASSWORD '" + password + "'", "GRANT CONNECT ON DATABASE " + database + " TO " + name} {
		if _, err := admin.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := pgx.Connect(t.Context(), at.URLAs(name, password, database))
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		err := reader.Close(t.Context())
		// A session is still seen for a moment after its client left; whose role is gone is nobody's.
		_, ended := admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '"+name+"'")
		_, revoked := admin.Exec(t.Context(), "REVOKE ALL ON DATABASE "+database+" FROM "+name)
		_, dropped := admin.Exec(t.Context(), "DROP ROLE "+name)
		if err := errors.Join(err, ended, revoked, dropped, admin.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}
