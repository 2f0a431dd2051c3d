package server_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/blob"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"
	"a3os.app/libs/secret"
	"a3os.app/services/integrations/internal/server"
	"a3os.app/services/migrate/migratetest"
)

// env is integrations on a tenant's database and real stores. Only the two other services it calls are made up.
type env struct {
	*migratetest.Tenant
	server  *server.Server
	secrets *secret.LocalReader
	objects *blob.LocalReader
	retired []string
	down    bool
}

func (e *env) TestSource(context.Context, *connect.Request[discoveryv1.TestSourceRequest]) (*connect.Response[discoveryv1.TestSourceResponse], error) {
	return connect.NewResponse(&discoveryv1.TestSourceResponse{Ok: true}), nil
}

func (e *env) RetireSource(_ context.Context, req *connect.Request[discoveryv1.RetireSourceRequest]) (*connect.Response[discoveryv1.RetireSourceResponse], error) {
	if e.down {
		return nil, fault.New(fault.Unavailable, "discovery is away")
	}
	e.retired = append(e.retired, req.Msg.GetIntegrationId())
	return connect.NewResponse(&discoveryv1.RetireSourceResponse{}), nil
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{Tenant: migratetest.New(t)}
	keys, err := secret.NewKeys()
	check(t, err)
	dir, objects := t.TempDir(), t.TempDir()
	check(t, os.Chmod(dir, 0o700))
	check(t, os.Chmod(objects, 0o700))
	owner := bindingtest.Owner(t, e.ID)
	_, err = secret.CreateLocal(dir, bindingtest.Signer(t), e.ID, keys.Public)
	check(t, err)
	_, err = blob.CreateLocal(objects, bindingtest.Signer(t), e.ID)
	check(t, err)
	secrets, err := secret.OpenLocalWriter(dir, owner, keys.Public)
	check(t, err)
	e.secrets, err = secret.OpenLocalReader(dir, owner, keys.Private)
	check(t, err)
	content, err := blob.OpenLocalWriter(objects, owner, 1<<20)
	check(t, err)
	e.objects, err = blob.OpenLocalReader(objects, owner)
	check(t, err)
	pages, err := page.NewSealer([]byte("a secret of the test's own"))
	check(t, err)
	e.server = server.New(server.Config{DB: e.Open(t, "integrations"), Wide: e.Open(t, "integrations_tenant"), Pages: pages,
		Secrets: secrets, Content: content, Tester: e, Retirer: e, Licence: e.Licence(t, e.Open(t, "integrations"))})
	return e
}

func (e *env) in(t *testing.T, w id.Workspace) context.Context {
	return scopetest.With(t.Context(), scope.Scope{Plane: "dev", Tenant: e.ID, Workspace: w, Principal: scope.Principal(id.NewUser().String())})
}

func postgres() *integrationsv1.Settings {
	return &integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{Postgres: &integrationsv1.PostgresSettings{
		Host: "db.example.org", Port: 5432, User: "reader", Database: "app", SslMode: "verify-full"}}}
}

func (e *env) create(t *testing.T, w id.Workspace, req *integrationsv1.CreateIntegrationRequest) *integrationsv1.Integration {
	t.Helper()
	res, err := e.server.CreateIntegration(e.in(t, w), connect.NewRequest(req))
	check(t, err)
	return res.Msg
}

func TestSecretGoesInAndComesOutForTheWorkerAlone(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	got := e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "crm", Settings: postgres(), Secret: "canary-4711"})
	if !got.GetHasSecret() || got.GetConnector() != "postgres" || got.GetVersion() != 1 {
		t.Errorf("created: %v", got)
	}
	src, err := e.server.GetRunSource(e.in(t, w), connect.NewRequest(&integrationsv1.GetRunSourceRequest{IntegrationId: got.GetId()}))
	check(t, err)
	path, err := secret.ParsePath(src.Msg.GetSource().GetSecretPath())
	check(t, err)
	value, _, err := e.secrets.Get(t.Context(), path)
	check(t, err)
	if value.Reveal() != "canary-4711" {
		t.Error("the worker reads another secret than was written")
	}
	var rows int
	check(t, e.Pool(t).QueryRow(t.Context(), `SELECT count(*) FROM (SELECT i::text AS v FROM integrations.integrations i
		UNION ALL SELECT encode(body, 'escape') FROM audit.inbox UNION ALL SELECT k::text FROM a3.idempotency_keys k) x WHERE v LIKE '%canary-4711%'`).Scan(&rows))
	if rows != 0 {
		t.Errorf("the secret stands in %d rows of the database", rows)
	}
}

func TestIdOfAnotherWorkspaceIsAsUnknownAsOneThatNeverWas(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	theirs := e.create(t, id.NewWorkspace(), &integrationsv1.CreateIntegrationRequest{Name: "crm", Settings: postgres()}).GetId()
	mine := e.in(t, id.NewWorkspace())
	for _, i := range []string{theirs, id.NewIntegration().String()} {
		for name, call := range map[string]func() error{
			"get": func() error {
				_, err := e.server.GetIntegration(mine, connect.NewRequest(&integrationsv1.GetIntegrationRequest{IntegrationId: i}))
				return err
			},
			"update": func() error {
				_, err := e.server.UpdateIntegration(mine, connect.NewRequest(&integrationsv1.UpdateIntegrationRequest{IntegrationId: i, Version: 1}))
				return err
			},
			"delete": func() error {
				_, err := e.server.DeleteIntegration(mine, connect.NewRequest(&integrationsv1.DeleteIntegrationRequest{IntegrationId: i}))
				return err
			},
			"upload": func() error {
				_, err := e.server.UploadContent(mine, connect.NewRequest(&integrationsv1.UploadContentRequest{IntegrationId: i, Content: []byte("a")}))
				return err
			},
			"test": func() error {
				_, err := e.server.TestIntegration(mine, connect.NewRequest(&integrationsv1.TestIntegrationRequest{IntegrationId: i}))
				return err
			},
			"source": func() error {
				_, err := e.server.GetRunSource(mine, connect.NewRequest(&integrationsv1.GetRunSourceRequest{IntegrationId: i}))
				return err
			},
		} {
			if err := call(); !errors.Is(err, server.ErrNone) || err.Error() != server.ErrNone.Error() {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	list, err := e.server.ListIntegrations(mine, connect.NewRequest(&integrationsv1.ListIntegrationsRequest{}))
	check(t, err)
	if len(list.Msg.GetIntegrations()) != 0 || len(e.retired) != 0 {
		t.Errorf("another workspace lists %v, retired %v", list.Msg, e.retired)
	}
	// The same name in two workspaces is no clash: nobody learns of the other.
	e.create(t, id.NewWorkspace(), &integrationsv1.CreateIntegrationRequest{Name: "crm", Settings: postgres()})
}

func TestChangeOfAnOldVersionAndATakenNameAreRefused(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	a := e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "a", Settings: postgres()})
	e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "b", Settings: postgres()})
	update := func(version int64, name string) error {
		_, err := e.server.UpdateIntegration(e.in(t, w), connect.NewRequest(&integrationsv1.UpdateIntegrationRequest{IntegrationId: a.GetId(), Version: version, Name: &name}))
		return err
	}
	if err := update(1, "b"); !errors.Is(err, server.ErrName) {
		t.Errorf("a taken name: %v", err)
	}
	check(t, update(1, "c"))
	if err := update(1, "d"); !errors.Is(err, server.ErrVersion) {
		t.Errorf("an old version: %v", err)
	}
}

func TestRemovedIntegrationIsRetiredOrNotRemoved(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	a := e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "a", Settings: postgres(), Secret: "s"})
	remove := func() error {
		_, err := e.server.DeleteIntegration(e.in(t, w), connect.NewRequest(&integrationsv1.DeleteIntegrationRequest{IntegrationId: a.GetId()}))
		return err
	}
	e.down = true
	if err := remove(); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("with discovery away: %v", err)
	}
	_, err := e.server.GetIntegration(e.in(t, w), connect.NewRequest(&integrationsv1.GetIntegrationRequest{IntegrationId: a.GetId()}))
	check(t, err)
	e.down = false
	check(t, remove())
	if len(e.retired) != 1 || e.retired[0] != a.GetId() {
		t.Errorf("retired: %v", e.retired)
	}
	integration, err := id.ParseIntegration(a.GetId())
	check(t, err)
	if _, _, err := e.secrets.Get(t.Context(), secret.Path{Tenant: e.ID, Workspace: w, Integration: integration}); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("its secret: %v", err)
	}
}

func TestOwnMachineIsNoSystemUnlessThePlaneSaysSo(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	_, err := e.server.CreateIntegration(e.in(t, id.NewWorkspace()), connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: "host",
		Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{}}}}))
	if !errors.Is(err, server.ErrUnix) {
		t.Errorf("unix: %v", err)
	}
}

func TestWhatIsDueIsClaimedOnce(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	a := e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "a", Settings: postgres(), Schedule: durationpb.New(time.Hour)})
	e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "never", Settings: postgres()})
	scheduler := scopetest.With(t.Context(), scope.Scope{Plane: "dev", Tenant: e.ID, Principal: scope.Workload("discovery")})
	claim := func() []*integrationsv1.Due {
		res, err := e.server.ClaimDue(scheduler, connect.NewRequest(&integrationsv1.ClaimDueRequest{Limit: 10}))
		check(t, err)
		return res.Msg.GetDue()
	}
	if due := claim(); len(due) != 0 {
		t.Errorf("due at once: %v", due)
	}
	e.Exec(t, "UPDATE integrations.integrations SET next_due_at = now() - interval '3 hours' WHERE next_due_at IS NOT NULL")
	due := claim()
	if len(due) != 1 || due[0].GetIntegrationId() != a.GetId() || due[0].GetWorkspaceId() != w.String() {
		t.Fatalf("due: %v", due)
	}
	// Two more times were missed meanwhile: they are skipped.
	if again := claim(); len(again) != 0 {
		t.Errorf("claimed again: %v", again)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
