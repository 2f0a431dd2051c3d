package migrate_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// grants are all privileges that anybody holds on anything of a tenant's database: who, on what. The owner's own are left out.
const grants = `(
	SELECT a.grantee, a.is_grantable, k.relkind::text AS kind, n.nspname AS schema, n.nspname || '.' || k.relname AS object, a.privilege_type AS privilege, k.relowner AS owner
		FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace, aclexplode(k.relacl) a
	UNION ALL SELECT a.grantee, a.is_grantable, 'column', n.nspname, n.nspname || '.' || k.relname || '.' || l.attname, a.privilege_type, k.relowner
		FROM pg_attribute l JOIN pg_class k ON k.oid = l.attrelid JOIN pg_namespace n ON n.oid = k.relnamespace, aclexplode(l.attacl) a
	UNION ALL SELECT a.grantee, a.is_grantable, 'function', n.nspname, n.nspname || '.' || f.proname, a.privilege_type, f.proowner
		FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace, aclexplode(f.proacl) a
	UNION ALL SELECT a.grantee, a.is_grantable, 'schema', n.nspname, n.nspname, a.privilege_type, n.nspowner FROM pg_namespace n, aclexplode(n.nspacl) a
	UNION ALL SELECT a.grantee, a.is_grantable, 'type', n.nspname, n.nspname || '.' || y.typname, a.privilege_type, y.typowner
		FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace, aclexplode(y.typacl) a
	UNION ALL SELECT a.grantee, a.is_grantable, 'database', 'database', d.datname, a.privilege_type, d.datdba FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = current_database()
	) g LEFT JOIN pg_roles r ON r.oid = g.grantee`

// oursIn leaves out what PostgreSQL came with, among grants.
const oursIn = `g.schema NOT LIKE 'pg\_%' AND g.schema <> 'information_schema'`

// escapes are ways past the walls of a tenant's database, each with a query that names whatever took it, and with a breach: statements
// that take it, so that the test sees the query find one. In both, WORKER, OWNER, IAM and STRANGER are roles; STRANGER is of nobody.
var escapes = map[string]struct{ query, breach string }{
	"somebody who is neither the owner nor a service has a privilege": {
		`SELECT coalesce(r.rolname, 'PUBLIC') || ' ' || g.privilege || ' on ' || g.object FROM who, ` + grants + `
			WHERE g.grantee <> g.owner AND (g.grantee = 0 OR r.rolname <> ALL (who.services || who.owner)) AND ` + oursIn,
		"GRANT SELECT ON iam.users TO STRANGER"},
	"PUBLIC gets at a type, or anything else of ours": {
		`SELECT g.object || ' ' || g.privilege FROM who, ` + grants + ` WHERE g.grantee = 0 AND ` + oursIn, "GRANT USAGE ON SCHEMA iam TO PUBLIC"},
	"a privilege can be passed on": {
		`SELECT g.object || ' ' || g.privilege FROM who, ` + grants + ` WHERE g.is_grantable AND g.grantee <> g.owner AND ` + oursIn,
		"GRANT EXECUTE ON FUNCTION a3.current_workspace() TO IAM WITH GRANT OPTION"},
	"a service uses a sequence of a schema that it can't look into": {
		`SELECT s || ' uses ' || k.oid::regclass FROM who, unnest(who.services) s, pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
			WHERE k.relkind = 'S' AND has_sequence_privilege(s, k.oid, 'USAGE, SELECT, UPDATE') AND NOT has_schema_privilege(s, n.oid, 'USAGE')`,
		"CREATE SEQUENCE discovery.escaped; GRANT USAGE ON SEQUENCE discovery.escaped TO WORKER"},
	// But for audit, whose inbox is opened and closed to deeds by the values of two sequences: reading one takes no lock.
	"a service sets a sequence, which would repeat or skip what others rest on": {
		`SELECT s || ' sets ' || k.oid::regclass FROM who, unnest(who.services) s, pg_class k WHERE k.relkind = 'S' AND has_sequence_privilege(s, k.oid, 'UPDATE')
			AND NOT (k.oid::regclass::text IN ('audit.open_to_seq', 'audit.open_until') AND s LIKE '%\_audit\_%')`,
		"GRANT UPDATE ON SEQUENCE queue.river_job_id_seq TO WORKER"},
	"a service calls a function of a schema that it can't look into": {
		`SELECT s || ' calls ' || f.oid::regprocedure FROM who, unnest(who.services) s, pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
			WHERE ` + ours + ` AND has_function_privilege(s, f.oid, 'EXECUTE') AND NOT has_schema_privilege(s, n.oid, 'USAGE')`,
		"GRANT EXECUTE ON FUNCTION a3.current_workspace() TO WORKER"},
	"a function with its owner's rights is the superuser's": {
		`SELECT f.oid::regprocedure::text FROM who, pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace JOIN pg_roles r ON r.oid = f.proowner
			WHERE f.prosecdef AND r.rolname <> who.owner AND ` + ours,
		"CREATE FUNCTION a3.escaped() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 1'"},
	"something belongs to another than the database's owner": {
		`SELECT what || ' belongs to ' || r.rolname FROM who, LATERAL (
			SELECT k.oid::regclass::text AS what, k.relowner AS owner FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace WHERE ` + ours + `
			UNION ALL SELECT f.oid::regprocedure::text, f.proowner FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE ` + ours + `
			UNION ALL SELECT 'schema ' || n.nspname, n.nspowner FROM pg_namespace n WHERE ` + ours + ` AND n.nspname <> 'public'
			UNION ALL SELECT 'database', datdba FROM pg_database WHERE datname = current_database()) owned JOIN pg_roles r ON r.oid = owned.owner
			WHERE r.rolname <> who.owner`,
		"CREATE TABLE iam.escaped (a int)"},
	"a function claims to leak nothing, so that it runs before a policy does": {
		`SELECT f.oid::regprocedure::text FROM who, pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE f.proleakproof AND ` + ours,
		"CREATE FUNCTION a3.escaped(text) RETURNS bool LANGUAGE sql LEAKPROOF AS 'SELECT true'"},
	"what no policy governs: a materialised view or a foreign table": {
		`SELECT k.oid::regclass::text FROM who, pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace WHERE k.relkind IN ('m', 'f') AND ` + ours,
		"CREATE MATERIALIZED VIEW iam.escaped AS SELECT 1 AS a"},
	"a view answers with its owner's rights": {
		`SELECT k.oid::regclass::text FROM who, pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
			WHERE k.relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (k.reloptions), false) AND ` + ours,
		"CREATE VIEW iam.escaped AS SELECT id FROM iam.users"},
	"a rule rewrites what is asked": {
		`SELECT w.ev_class::regclass || ' ' || w.rulename FROM who, pg_rewrite w JOIN pg_class k ON k.oid = w.ev_class JOIN pg_namespace n ON n.oid = k.relnamespace
			WHERE k.relkind <> 'v' AND ` + ours,
		"CREATE RULE escaped AS ON INSERT TO iam.users DO ALSO NOTHING"},
	"nothing is granted in advance": {"SELECT d.oid::text FROM who, pg_default_acl d",
		"ALTER DEFAULT PRIVILEGES FOR ROLE OWNER IN SCHEMA iam GRANT SELECT ON TABLES TO WORKER"},
	"a service's role is a member, or has members": {
		`SELECT m.member::regrole || ' in ' || m.roleid::regrole FROM who, pg_auth_members m
			WHERE m.member::regrole::text = ANY (SELECT quote_ident(s) FROM unnest(who.services || who.owner) s) OR m.roleid::regrole::text = ANY (SELECT quote_ident(s) FROM unnest(who.services || who.owner) s)`,
		"GRANT OWNER TO WORKER"},
	"a service's role is no plain one": {
		`SELECT r.rolname::text FROM who, pg_roles r WHERE r.rolname = ANY (who.services || who.owner)
			AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls)`,
		"ALTER ROLE WORKER BYPASSRLS"},
	"a role or the database carries a setting that takes a wall away": {
		`SELECT coalesce(s.setrole::regrole::text, 'database') || ': ' || c FROM who, pg_db_role_setting s, unnest(s.setconfig) c
			WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
			AND (s.setrole = 0 OR s.setrole::regrole::text = ANY (SELECT quote_ident(x) FROM unnest(who.services || who.owner) x))
			AND split_part(c, '=', 1) NOT IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'temp_file_limit',
				'log_lock_waits', 'log_temp_files', 'log_parameter_max_length', 'log_parameter_max_length_on_error')
			AND c <> 'search_path=pg_catalog'`,
		"ALTER ROLE WORKER SET row_security = off"},
	"a workspace is set for good": {
		`SELECT c FROM who, pg_db_role_setting s, unnest(s.setconfig) c WHERE c LIKE 'a3.%'`,
		"ALTER ROLE WORKER SET a3.workspace_id = '00000000-0000-0000-0000-000000000000'"},
	// But for a reader of the whole tenant's log, for whom no workspace is an answer.
	"a policy asks something else than the function that raises": {
		`SELECT p.schemaname || '.' || p.tablename || '/' || p.policyname FROM who, pg_policies p WHERE concat(p.qual, p.with_check) LIKE '%current_setting%'
			AND p.schemaname || '.' || p.tablename || '/' || p.policyname <> 'audit.entries/in_scope'`,
		"CREATE POLICY escaped ON iam.members TO IAM USING (workspace_id = current_setting('a3.workspace_id', true)::uuid)"},
	"something leaves the database by itself: a publication, a subscription, a foreign server, an event trigger": {
		`SELECT what FROM who, (SELECT 'publication ' || pubname AS what FROM pg_publication UNION ALL SELECT 'server ' || srvname FROM pg_foreign_server
			UNION ALL SELECT 'wrapper ' || fdwname FROM pg_foreign_data_wrapper UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
			UNION ALL SELECT 'large object ' || oid FROM pg_largeobject_metadata) x`,
		"CREATE PUBLICATION escaped FOR ALL TABLES"},
	"a trigger is off, or runs for replicas alone": {
		`SELECT t.tgrelid::regclass || ' ' || t.tgname FROM who, pg_trigger t JOIN pg_class k ON k.oid = t.tgrelid JOIN pg_namespace n ON n.oid = k.relnamespace
			WHERE t.tgenabled NOT IN ('O', 'A') AND ` + ours,
		"ALTER TABLE audit.entries DISABLE TRIGGER USER"},
}

// Nothing escapes; and each query would name what did, for it is shown a breach, which is taken back.
func TestNothingEscapesAndWhatDidWouldBeNamed(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t)
	stranger := c.Role(t, "stranger")
	names := strings.NewReplacer("WORKER", quoted(c.Real(t, "worker")), "OWNER", quoted(c.Real(t, "owner")), "IAM", quoted(c.Real(t, "iam")), "STRANGER", quoted(c.RoleName(stranger)))
	// The stranger may enter, which is the breach of another test; here it is nobody's concern.
	if _, err := c.conn.Exec(t.Context(), "REVOKE ALL ON DATABASE "+quoted(c.Name)+" FROM "+quoted(c.RoleName(stranger))); err != nil {
		t.Fatal(err)
	}
	for promise, e := range escapes {
		c.none(t, promise, e.query)
		if _, err := c.conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		for statement := range strings.SplitSeq(e.breach, "; ") {
			if _, err := c.conn.Exec(t.Context(), names.Replace(statement), pgx.QueryExecModeExec); err != nil {
				t.Fatalf("%s: the breach: %v", promise, err)
			}
		}
		if len(c.list(t, e.query)) == 0 {
			t.Errorf("%s: the query doesn't name a breach", promise)
		}
		if _, err := c.conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d ways tried", len(escapes))
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }
