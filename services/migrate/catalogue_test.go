package migrate_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"a3os.app/services/migrate/migratetest"
)

// withoutRLS are the tables that have no row-level security, each with the reason. Every other table has it, FORCEd.
var withoutRLS = map[string]string{
	"discovery.staged_resources":    staging,
	"discovery.staged_entitlements": staging,
	"discovery.staged_grants":       staging,
	"discovery.staged_expansions":   staging,
	"discovery.dead_letters":        "refused messages belong to no workspace; role discovery has no privilege on it",

	"audit.inbox":         "producers hold INSERT on (id, body) alone, and only audit reads",
	"audit.settings":      "bounds of the tenant's backlog",
	"audit.progress":      "how far the tenant's inbox is drained",
	"audit.tiles":         tree,
	"audit.checkpoints":   tree,
	"audit.licences":      licensed,
	"audit.licence_watch": licensed,

	"iam.users":            tenantWide,
	"iam.service_accounts": tenantWide,
	"iam.revocation_head":  tenantWide,
	"iam.setup_codes":      issuer,
	"iam.bootstrap_codes":  issuer,
	"iam.sessions":         issuer,
	"iam.refresh_tokens":   issuer,
	"iam.assertions":       issuer,
	"iam.signing_keys":     issuer,
}

const (
	staging    = "COPY can't enter tables with row-level security; staging is keyed by run, and only role discovery reads it"
	tree       = "the tree is the tenant's, one for all of its workspaces; only audit reads it"
	tenantWide = "belongs to the tenant; role iam reads columns that members of any workspace may know"
	issuer     = "the issuer's, which works for the whole tenant; role iam has no privilege on it"
	licensed   = "the tenant's licence, for all of its workspaces; who enforces it reads it, and verifies it by itself"
	versions   = "goose's versions: only the owner has privileges on it"
	river      = "River's; messages carry identifiers and a signature, and only discovery and the worker have privileges on it"
)

// spanning are the policies that let a role see more than one workspace, each with what it is for. There are no others.
var spanning = map[string]string{
	"audit.entries/append":               "audit seals the events of all workspaces",
	"audit.entries/in_scope":             "a reader of the whole tenant sees all entries; in a workspace, that workspace's",
	"discovery.runs/look_out":            "the publisher looks for runs that are sealed, and publishes each in its workspace's scope",
	"iam.workspaces/whole_tenant":        "admins make workspaces and transfer them; the issuer chooses one",
	"iam.members/whole_tenant":           "the issuer reads roles; admins see and move memberships",
	"iam.transfers/whole_tenant":         "admins transfer workspaces",
	"iam.revocations/whole_tenant":       "every service follows all revocations",
	"integrations.integrations/due_read": "the schedule looks for what is due, and usage counts integrations",
	"integrations.integrations/due_move": "the schedule moves what it claimed to its next time",
	"a3.idempotency_keys/own_service":    "a role sees the keys that it claimed itself; rows name the principal and the workspace",
}

// notKeyed are the tables with a workspace_id that are the tenant's nevertheless: their keys don't begin with it.
const notKeyed = `(
	'iam.revocations', -- one sequence for the whole tenant, which every service follows; NULL is a revocation everywhere
	'iam.transfers'    -- made by tenant admins across workspaces, and read by role iam_tenant alone
)`

// reachable are the schemas that each role may look into.
var reachable = map[string][]string{
	"iam":                 {"a3", "audit", "iam"},
	"iam_tenant":          {"a3", "audit", "iam"},
	"integrations":        {"a3", "audit", "integrations"},
	"integrations_tenant": {"a3", "audit", "integrations"},
	"discovery":           {"a3", "audit", "discovery", "queue"},
	"discovery_tenant":    {"a3", "audit", "discovery", "queue"},
	"worker":              {"queue"},
	"audit":               {"a3", "audit"},
}

// ours leaves out the schemas that PostgreSQL came with.
const ours = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"

// catalogue answers the catalogue of a tenant's database.
type catalogue struct {
	*migratetest.Tenant
	conn *pgx.Conn
}

func newCatalogue(t *testing.T) *catalogue {
	t.Helper()
	c := &catalogue{Tenant: migratetest.New(t)}
	conn, err := pgx.Connect(t.Context(), c.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	c.conn = conn
	return c
}

// list answers the one text column of a query; $1 is the owner's role, $2 the services'.
func (c *catalogue) list(t *testing.T, query string) []string {
	t.Helper()
	services := make([]string, 0, len(migratetest.Roles()))
	for _, r := range migratetest.Roles() {
		services = append(services, c.Real(t, r))
	}
	// Both parameters are used in every query, so that each can be written with the ones it needs.
	query = "WITH who AS (SELECT $1::text AS owner, $2::text[] AS services) " + query
	rows, err := c.conn.Query(t.Context(), query, c.Real(t, "owner"), services)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%v\nin: %s", err, query)
	}
	return out
}

// none says that a query must answer nothing.
func (c *catalogue) none(t *testing.T, promise, query string) {
	t.Helper()
	for _, found := range c.list(t, query) {
		t.Errorf("%s: %s", promise, found)
	}
}

func exempt(table string) bool {
	_, named := withoutRLS[table]
	return named || strings.HasPrefix(table, "queue.") || strings.HasSuffix(table, ".schema_migrations")
}

func TestEveryTableHasRowLevelSecurityOrAReason(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	tables := c.list(t, `SELECT n.nspname || '.' || k.relname FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace, who
		WHERE k.relkind IN ('r', 'p', 'f', 'm') AND `+ours)
	secured := c.list(t, `SELECT n.nspname || '.' || k.relname FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace, who
		WHERE k.relkind IN ('r', 'p') AND k.relrowsecurity AND k.relforcerowsecurity AND `+ours)
	policed := c.list(t, "SELECT DISTINCT schemaname || '.' || tablename FROM pg_policies, who")
	if len(tables) < 30 {
		t.Errorf("%d tables: the catalogue is not read any more", len(tables))
	}
	for _, table := range tables {
		switch has := slices.Contains(secured, table); {
		case !has && !exempt(table):
			t.Errorf("%s: FORCE ROW LEVEL SECURITY, or name it in this test with the reason", table)
		case has && exempt(table):
			t.Errorf("%s has row-level security and stands in the list of those without", table)
		case has && !slices.Contains(policed, table):
			t.Errorf("%s has row-level security and no policy: nobody can use it", table)
		}
	}
	for table := range withoutRLS {
		if !slices.Contains(tables, table) {
			t.Errorf("%s stands in the list of those without row-level security, and is no table", table)
		}
	}
}

func TestWorkspaceTablesAreKeyedByWorkspace(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	const tables = `(SELECT k.oid, n.nspname || '.' || k.relname AS name, a.attnum, a.attnotnull FROM pg_class k
		JOIN pg_namespace n ON n.oid = k.relnamespace JOIN pg_attribute a ON a.attrelid = k.oid AND a.attname = 'workspace_id'
		WHERE k.relkind IN ('r', 'p') AND k.relrowsecurity AND n.nspname <> 'audit' AND ` + ours + `) w`
	c.none(t, "workspace_id can't be left out", "SELECT name FROM who, "+tables+" WHERE NOT attnotnull AND name NOT IN "+notKeyed)
	c.none(t, "a primary key begins with workspace_id, for unique checks pass by row-level security", `
		SELECT name FROM who, `+tables+` WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = w.oid AND i.indisprimary AND i.indkey[0] = w.attnum)
		AND name NOT IN `+notKeyed)
	c.none(t, "a unique index begins with workspace_id, or a clash would tell of another workspace", `
		SELECT name || ' ' || i.indexrelid::regclass FROM who, `+tables+` JOIN pg_index i ON i.indrelid = w.oid
		WHERE i.indisunique AND i.indkey[0] <> w.attnum AND name NOT IN `+notKeyed)
	c.none(t, "a foreign key between workspace tables begins with workspace_id", `
		SELECT f.conname::text FROM who, pg_constraint f JOIN `+tables+` ON w.oid = f.conrelid
		WHERE f.contype = 'f' AND f.conkey[1] <> w.attnum
		AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = f.confrelid AND a.attname = 'workspace_id')`)
}

func TestPoliciesAreForKnownRolesAndThoseThatSpanWorkspacesStandInOneList(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	c.none(t, "a policy is for a role of a service that has the schema", `
		SELECT p.schemaname || '.' || p.tablename || '/' || p.policyname || ' is for ' || r FROM who, pg_policies p, unnest(p.roles) r
		WHERE r <> ALL (who.services) AND p.policyname <> 'own_service'`)
	// A policy holds to one workspace when both of its conditions are nothing but that.
	const own = "(workspace_id = ( SELECT a3.current_workspace() AS current_workspace))"
	wide := c.list(t, fmt.Sprintf(`SELECT p.schemaname || '.' || p.tablename || '/' || p.policyname FROM who, pg_policies p
		WHERE NOT (coalesce(p.qual, '%[1]s') = '%[1]s' AND coalesce(p.with_check, '%[1]s') = '%[1]s'
			OR p.tablename = 'workspaces' AND p.policyname = 'own_workspace' AND p.qual = replace('%[1]s', 'workspace_id =', 'id ='))`, own))
	slices.Sort(wide)
	if d := cmp.Diff(slices.Sorted(maps.Keys(spanning)), wide); d != "" {
		t.Errorf("policies that span workspaces (-this list +the catalogue):\n%s", d)
	}
	c.none(t, "a policy that spans workspaces is for a role of its own", `
		SELECT p.schemaname || '.' || p.tablename || '/' || p.policyname FROM who, pg_policies p, unnest(p.roles) r
		WHERE (p.qual = 'true' OR p.with_check = 'true') AND r NOT LIKE '%\_tenant\_%' AND r NOT LIKE '%\_audit\_%'`)
	c.none(t, "policies only ever permit: a restrictive one hides that none permits", "SELECT policyname::text FROM who, pg_policies WHERE permissive <> 'PERMISSIVE'")
}

func TestPublicHasNothing(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	c.none(t, "PUBLIC has nothing in a table, view or sequence", `
		SELECT n.nspname || '.' || k.relname || ' ' || a.privilege_type FROM who, pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace, aclexplode(k.relacl) a
		WHERE a.grantee = 0 AND `+ours)
	c.none(t, "PUBLIC has nothing in a column", `
		SELECT n.nspname || '.' || k.relname || '.' || l.attname FROM who, pg_attribute l JOIN pg_class k ON k.oid = l.attrelid
		JOIN pg_namespace n ON n.oid = k.relnamespace, aclexplode(l.attacl) a WHERE a.grantee = 0 AND `+ours)
	c.none(t, "PUBLIC calls no function (functions are PUBLIC's unless revoked)", `
		SELECT n.nspname || '.' || f.proname FROM who, pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace,
		aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a WHERE a.grantee = 0 AND `+ours)
	c.none(t, "PUBLIC has nothing in a schema", `
		SELECT n.nspname || ' ' || a.privilege_type FROM who, pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
		WHERE a.grantee = 0 AND `+ours)
}

func TestServicesOwnNothingAndReachTheirOwnSchemas(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	c.none(t, "a service owns nothing", `
		SELECT r.rolname || ' owns ' || what FROM who, pg_roles r, LATERAL (
			SELECT 'table ' || relname AS what FROM pg_class WHERE relowner = r.oid UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proowner = r.oid
			UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspowner = r.oid UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typowner = r.oid
			UNION ALL SELECT 'database ' || datname FROM pg_database WHERE datdba = r.oid) owned
		WHERE r.rolname = ANY (who.services)`)
	c.none(t, "a service runs no DDL", `
		SELECT r.rolname || ' creates in ' || n.nspname FROM who, pg_roles r, pg_namespace n
		WHERE r.rolname = ANY (who.services) AND (has_schema_privilege(r.rolname, n.oid, 'CREATE') OR has_database_privilege(r.rolname, current_database(), 'CREATE, TEMP'))`)
	c.none(t, "a service truncates nothing, and makes no triggers and foreign keys on what it does not own", `
		SELECT r.rolname || ' on ' || k.relname FROM who, pg_roles r, pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
		WHERE r.rolname = ANY (who.services) AND k.relkind IN ('r', 'p') AND `+ours+` AND has_table_privilege(r.rolname, k.oid, 'TRUNCATE, REFERENCES, TRIGGER')`)
	for _, role := range migratetest.Roles() {
		got := c.list(t, fmt.Sprintf("SELECT n.nspname::text FROM who, pg_namespace n WHERE %s AND has_schema_privilege('%s', n.oid, 'USAGE') ORDER BY 1", ours, c.Real(t, role)))
		if d := cmp.Diff(reachable[role], got); d != "" {
			t.Errorf("schemas that %s looks into (-want +got):\n%s", role, d)
		}
		c.none(t, role+" has privileges in a schema that it can't look into", fmt.Sprintf(`
			SELECT n.nspname || '.' || k.relname FROM who, pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
			WHERE k.relkind IN ('r', 'p', 'v') AND %s AND NOT has_schema_privilege('%[2]s', n.oid, 'USAGE')
			AND has_any_column_privilege('%[2]s', k.oid, 'SELECT, INSERT, UPDATE')`, ours, c.Real(t, role)))
	}
}

func TestFunctionsWithTheOwnersRightsPinTheirSearchPath(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	c.none(t, "SECURITY DEFINER without a search_path of its own runs whatever its caller put in front", `
		SELECT n.nspname || '.' || f.proname FROM who, pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
		WHERE f.prosecdef AND NOT EXISTS (SELECT FROM unnest(f.proconfig) s WHERE s LIKE 'search\_path=pg\_catalog%pg\_temp') AND `+ours)
	c.none(t, "an untrusted language", "SELECT lanname::text FROM who, pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c')")
	c.none(t, "an extension that nobody asked for", "SELECT extname::text FROM who, pg_extension WHERE extname <> 'plpgsql'")
}
