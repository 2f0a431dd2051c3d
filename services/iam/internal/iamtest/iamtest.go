// Package iamtest is a whole iam for tests, on a real PostgreSQL with the real schemas and roles: its databases, its issuer, its API
// behind scopes that tests choose, and a clock that tests move.
package iamtest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/authz"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/licence/licencetest"
	"a3os.app/libs/page"
	"a3os.app/libs/pg"
	"a3os.app/libs/pgtest"
	"a3os.app/libs/scope"
	"a3os.app/libs/scope/scopetest"

	"a3os.app/services/iam"
	"a3os.app/services/iam/internal/denial"
	"a3os.app/services/iam/internal/issuer"
	"a3os.app/services/iam/internal/keyring"
	"a3os.app/services/iam/internal/revocation"
	"a3os.app/services/iam/internal/server"
)

// Plane is the plane of every Env.
const Plane = "dev"

// Env is a tenant's iam.
type Env struct {
	Tenant id.Tenant
	// Issuer is the URL that tokens carry, where it is really served.
	Issuer string
	DB     *pgtest.Database
	// URLs of the roles, by their words in migrations.
	URLs map[string]string
	// WorkspaceDB and TenantDB are the pools of role_iam and role_iam_tenant.
	WorkspaceDB, TenantDB *pg.DB
	Clock                 *Clock
	Keys                  *keyring.Ring
	KEK                   *keyring.KEK
	Feed                  *revocation.Feed
	Denials               *denial.Counter
	OAuth                 *issuer.Issuer
	Rights                server.Rights
	Users                 *server.Users
	Accounts              *server.ServiceAccounts
	Workspaces            *server.Workspaces
	Members               *server.Members
	Setup                 *server.Setup
	Identity              *server.Identity
	SigningKeys           *server.SigningKeys
	HTTP                  *httptest.Server
	// Super is a pool of the superuser, who sees everything.
	Super *pgxpool.Pool
	// Admin is the tenant's first admin, active.
	Admin id.User
}

// Clock is a clock that tests move.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

// Now is the machine's clock, and how far the test moved it.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// roles are the words of the migrations that iam rests on.
var roles = []string{"role_iam", "role_iam_tenant", "role_integrations", "role_integrations_tenant", "role_discovery", "role_discovery_tenant", "role_audit", "role_worker"}

// Database makes a database with the schemas that iam needs, and the URLs of its roles.
func Database(t testing.TB) (*pgtest.Database, map[string]string) {
	t.Helper()
	db := pgtest.New(t)
	urls, names := map[string]string{}, pg.Roles{}
	for _, word := range roles {
		urls[word] = db.Role(t, word)
		names[word] = db.RoleName(urls[word])
	}
	// The audit service's own migrations, read as files: a test of one service does not import another.
	audit := pg.Migration{Schema: "audit", Files: os.DirFS(auditMigrations(t))}
	if err := pg.Migrate(t.Context(), db.URL, names, pg.Base(), audit, iam.Schema()); err != nil {
		t.Fatal(err)
	}
	bindingtest.Database(t, db.URL)
	return db, urls
}

// auditMigrations is found from the directory that the test runs in, which is its package's.
func auditMigrations(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		found := filepath.Join(dir, "audit", "migrations")
		if _, err := os.Stat(found); err == nil {
			return found
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("services/audit/migrations was not found above the test's package")
		}
	}
}

// New makes an iam with one active admin. Its feed runs until the test ends.
func New(t testing.TB) *Env {
	t.Helper()
	e := &Env{Tenant: id.NewTenant(), Clock: &Clock{}}
	e.DB, e.URLs = Database(t)
	e.Super = e.DB.Pool(t)
	e.WorkspaceDB, e.TenantDB = open(t, e.URLs["role_iam"]), open(t, e.URLs["role_iam_tenant"])
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	var err error
	if e.KEK, err = keyring.NewKEK(config.NewSecret(base64.StdEncoding.EncodeToString(key))); err != nil {
		t.Fatal(err)
	}
	if e.Keys, err = keyring.Open(t.Context(), e.TenantDB, e.Tenant, e.KEK, e.Clock.Now); err != nil {
		t.Fatal(err)
	}
	e.Feed = revocation.NewFeed(e.TenantDB, e.Keys)
	source := func(context.Context) string { return "192.0.2.1" }
	e.Denials = denial.NewCounter(e.TenantDB, source)
	e.HTTP = httptest.NewUnstartedServer(nil)
	e.HTTP.Start()
	t.Cleanup(e.HTTP.Close)
	e.Issuer = e.HTTP.URL
	e.OAuth, err = issuer.New(issuer.Config{
		Issuer: e.Issuer, Tenant: e.Tenant, DB: e.TenantDB, Keys: e.Keys, Denials: e.Denials, Revoked: e.Feed.Wake, Now: e.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.HTTP.Config.Handler = e.OAuth.Handler()
	pages, err := page.NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	licencetest.Install(t, e.DB.URL, licencetest.Whole(e.Tenant, 1))
	licensed := held.New(e.TenantDB, licencetest.Verifier(t), e.Tenant, nil)
	e.Rights = server.Rights{Workspace: e.WorkspaceDB, Tenant: e.TenantDB, Revoked: e.Feed.Wake, Now: e.Clock.Now, Licence: licensed}
	e.Users, e.Accounts = server.NewUsers(e.Rights, pages), server.NewServiceAccounts(e.Rights, pages)
	e.Workspaces, e.Members = server.NewWorkspaces(e.Rights, pages), server.NewMembers(e.Rights, pages)
	e.Setup, e.Identity = server.NewSetup(e.Rights, e.Denials, source), server.NewIdentity(e.Rights, "acme")
	e.SigningKeys = server.NewSigningKeys(e.Rights, e.Keys)
	e.run(t)
	e.Admin = e.User(t, "admin@example.com", "admin")
	return e
}

func (e *Env) run(t testing.TB) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Feed.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
}

func open(t testing.TB, url string) *pg.DB {
	t.Helper()
	db, err := pg.Open(t.Context(), pg.Config{URL: url, Service: "test", Owner: bindingtest.Somebody(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// User puts an active user into the database; role is the tenant's, empty for none.
func (e *Env) User(t testing.TB, email, role string) id.User {
	t.Helper()
	u := id.NewUser()
	e.DB.Exec(t, `INSERT INTO iam.users (id, email, display_name, state, tenant_role) VALUES ($1, $2, $2, 'active', nullif($3, ''))`, u, email, role)
	return u
}

// Ctx is the context of a call by a principal with roles, in a workspace or (zero) in none.
func (e *Env) Ctx(t testing.TB, principal string, w id.Workspace, roles ...string) context.Context {
	t.Helper()
	permissions, err := authz.Permissions(roles)
	if err != nil {
		t.Fatal(err)
	}
	return scopetest.With(t.Context(), scope.Scope{
		Plane: Plane, Tenant: e.Tenant, Workspace: w, Principal: scope.Principal(principal), Permissions: permissions,
	})
}

// AsAdmin is the context of a call by the first admin.
func (e *Env) AsAdmin(t testing.TB) context.Context {
	return e.Ctx(t, e.Admin.String(), id.Workspace{}, authz.TenantAdmin)
}

// Workspace makes a workspace through the API.
func (e *Env) Workspace(t testing.TB, name string, owner id.User) id.Workspace {
	t.Helper()
	res, err := e.Workspaces.CreateWorkspace(e.AsAdmin(t), connect.NewRequest(&iamv1.CreateWorkspaceRequest{Name: name, OwnerUserId: owner.String()}))
	if err != nil {
		t.Fatal(err)
	}
	w, err := id.ParseWorkspace(res.Msg.GetId())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Member adds a member through the API, as the workspace's admin.
func (e *Env) Member(t testing.TB, w id.Workspace, principal string, role iamv1.WorkspaceRole) {
	t.Helper()
	ctx := e.Ctx(t, e.Admin.String(), w, authz.WorkspaceAdmin)
	if _, err := e.Members.AddMember(ctx, connect.NewRequest(&iamv1.AddMemberRequest{Principal: principal, Role: role})); err != nil {
		t.Fatal(err)
	}
}

// Events are the events with an action, oldest first.
func (e *Env) Events(t testing.TB, action string) []*auditv1.Event {
	t.Helper()
	rows, err := e.Super.Query(t.Context(), "SELECT body FROM audit.inbox ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var events []*auditv1.Event
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			t.Fatal(err)
		}
		ev := new(auditv1.Event)
		if err := proto.Unmarshal(body, ev); err != nil {
			t.Fatal(err)
		}
		events = append(events, ev)
	}
	return slices.DeleteFunc(events, func(ev *auditv1.Event) bool { return ev.GetAction() != action })
}

// Int reads a number as the superuser.
func (e *Env) Int(t testing.TB, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := e.Super.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
