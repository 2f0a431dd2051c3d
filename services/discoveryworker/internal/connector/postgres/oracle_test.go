package postgres

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgtest"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// envSeed makes TestGraphIsWhatPostgreSQLAnswers try one world again.
const envSeed = "A3_ORACLE_SEED"

// TestGraphIsWhatPostgreSQLAnswers makes random servers and compares every (role, object, privilege) that the server answers with
// what the graph says is held at once, and with what it says is held by SET ROLE.
func TestGraphIsWhatPostgreSQLAnswers(t *testing.T) {
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprintf("PostgreSQL%d", major), func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, major)
			for _, seed := range seeds(t) {
				if !o.try(t, seed) {
					t.Fatalf("PostgreSQL %d and the graph differ: run it again with %s=%d", major, envSeed, seed)
				}
			}
			t.Logf("%d answers of PostgreSQL compared in %d worlds; %d of them yes", o.compared, o.worlds, o.yes)
		})
	}
}

func seeds(t *testing.T) []uint64 {
	if one := os.Getenv(envSeed); one != "" {
		seed, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			t.Fatalf("%s is no number: %v", envSeed, err)
		}
		return []uint64{seed}
	}
	worlds := 30
	switch {
	case testing.Short():
		worlds = 10
	case os.Getenv("A3_LONG") != "":
		worlds = 240
	}
	// Another sample each day, the same within a day.
	base := uint64(time.Now().UTC().Truncate(24 * time.Hour).Unix()) //nolint:gosec // after 1970
	t.Logf("seeds from %d; one is run again with %s", base, envSeed)
	out := make([]uint64, worlds)
	for i := range out {
		out[i] = base + uint64(i) //nolint:gosec // small
	}
	return out
}

// reader is the role that the connector logs in as: it has nothing but CONNECT.
const reader = "a3_reader"

const readerPassword = "only-for-this-test"

// oracle is a server that is asked.
type oracle struct {
	url      func(database string) string
	port     int
	home     *pgx.Conn
	version  int
	compared int
	yes      int
	worlds   int
}

func newOracle(t *testing.T, major int) *oracle {
	t.Helper()
	server := pgtest.Server(t, major)
	o := &oracle{version: major, port: server.Port(), url: func(database string) string {
		u, err := server.URL(database)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}}
	o.home = o.connect(t, "postgres")
	o.run(t, o.home, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", reader, readerPassword))
	return o
}

func (o *oracle) connect(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), o.url(database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func (o *oracle) run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.PgConn().Exec(t.Context(), s).ReadAll(); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func (o *oracle) settings() *integrationsv1.Settings {
	return &integrationsv1.Settings{Connector: &integrationsv1.Settings_Postgres{Postgres: &integrationsv1.PostgresSettings{
		Host: "127.0.0.1", Port: uint32(o.port), User: reader, Database: "postgres", SslMode: "disable", //nolint:gosec // a port
	}}}
}

// try makes a world, compares and unmakes it.
func (o *oracle) try(t *testing.T, seed uint64) bool {
	t.Helper()
	w := newWorld(seed, o.version)
	o.run(t, o.home, w.shared...)
	defer o.unmake(t, w)
	for i, d := range w.databases {
		o.run(t, o.home, fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s", ident(d), reader))
		conn := o.connect(t, d)
		o.run(t, conn, w.within[i]...)
		_ = conn.Close(t.Context())
	}
	records := readAll(t, &postgres{page: 4 + w.rng.IntN(40)}, testSource(o.settings(), readerPassword), w.rng)
	g := newAnswers(t, records)
	same := true
	databases := w.databases
	if o.worlds%10 == 0 {
		databases = append(databases, "postgres")
	}
	for _, d := range databases {
		conn := o.connect(t, d)
		facts := o.ask(t, conn, d)
		_ = conn.Close(t.Context())
		same = o.compare(t, d, facts, g) && same
	}
	o.worlds++
	return same
}

func (o *oracle) unmake(t *testing.T, w *world) {
	t.Helper()
	for _, d := range w.databases {
		o.run(t, o.home, "DROP DATABASE "+ident(d))
	}
	roles := make([]string, len(w.roles))
	for i, r := range w.roles {
		roles[i] = ident(r)
	}
	list := strings.Join(roles, ", ")
	o.run(t, o.home, "DROP OWNED BY "+list, "DROP ROLE "+list)
}

// fact is one yes of the server: a role has a privilege on a resource.
type fact struct{ role, resource, privilege string }

// facts are the answers of one database, and the questions.
type facts struct {
	yes       map[fact]bool
	roles     []string
	questions map[[2]string]bool // resource, privilege
}

// objectQuestions answer a row for each object and privilege with the roles that have it.
var objectQuestions = map[string]string{
	"relations": `
		SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized_view' WHEN 'f' THEN 'foreign_table' ELSE 'table' END,
		       ARRAY[n.nspname::text, c.relname], '', p,
		       array_agg(r.rolname::text) FILTER (WHERE has_table_privilege(r.oid, c.oid, p))
		  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest($1::text[]) p, pg_roles r
		 WHERE c.relkind IN ('r','p','v','m','f') AND (c.oid >= 16384 OR c.oid = ANY ($2::oid[])) AND n.nspname <> 'pg_toast'
		 GROUP BY c.oid, n.nspname, p`,
	"sequences": `
		SELECT 'sequence', ARRAY[n.nspname::text, c.relname], '', p,
		       array_agg(r.rolname::text) FILTER (WHERE has_sequence_privilege(r.oid, c.oid, p))
		  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, unnest(ARRAY['USAGE','SELECT','UPDATE']) p, pg_roles r
		 WHERE c.relkind = 'S' GROUP BY c.oid, n.nspname, p`,
	"columns": `
		SELECT 'column', ARRAY[n.nspname::text, c.relname, a.attname], '', p,
		       array_agg(r.rolname::text) FILTER (WHERE has_column_privilege(r.oid, c.oid, a.attnum, p))
		  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
		       unnest(ARRAY['SELECT','INSERT','UPDATE','REFERENCES']) p, pg_roles r
		 WHERE c.relkind IN ('r','p','v','m','f') AND (c.oid >= 16384 AND a.attnum > 0 OR c.oid = ANY ($2::oid[]) AND a.attacl IS NOT NULL)
		   AND n.nspname <> 'pg_toast' AND NOT a.attisdropped
		 GROUP BY c.oid, n.nspname, a.attname, a.attnum, p`,
	"schemas": `
		SELECT 'schema', ARRAY[n.nspname::text], '', p, array_agg(r.rolname::text) FILTER (WHERE has_schema_privilege(r.oid, n.oid, p))
		  FROM pg_namespace n, unnest(ARRAY['USAGE','CREATE']) p, pg_roles r
		 WHERE n.oid >= 16384 OR n.nspname = 'public' GROUP BY n.oid, p`,
	"functions": `
		SELECT CASE f.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, ARRAY[n.nspname::text, f.proname], '(' || oidvectortypes(f.proargtypes) || ')', 'EXECUTE',
		       array_agg(r.rolname::text) FILTER (WHERE has_function_privilege(r.oid, f.oid, 'EXECUTE'))
		  FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace, pg_roles r
		 WHERE f.oid >= 16384 OR f.oid = ANY ($2::oid[]) GROUP BY f.oid, n.nspname`,
	"wrappers": `
		SELECT 'foreign_data_wrapper', ARRAY[f.fdwname::text], '', 'USAGE',
		       array_agg(r.rolname::text) FILTER (WHERE has_foreign_data_wrapper_privilege(r.oid, f.oid, 'USAGE'))
		  FROM pg_foreign_data_wrapper f, pg_roles r GROUP BY f.oid`,
	"servers": `
		SELECT 'foreign_server', ARRAY[f.srvname::text], '', 'USAGE',
		       array_agg(r.rolname::text) FILTER (WHERE has_server_privilege(r.oid, f.oid, 'USAGE'))
		  FROM pg_foreign_server f, pg_roles r GROUP BY f.oid`,
	"languages": `
		SELECT 'language', ARRAY[l.lanname::text], '', 'USAGE', array_agg(r.rolname::text) FILTER (WHERE has_language_privilege(r.oid, l.oid, 'USAGE'))
		  FROM pg_language l, pg_roles r WHERE l.oid = ANY ($2::oid[]) GROUP BY l.oid`,
	"types": `
		SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, ARRAY[n.nspname::text, t.typname::text], '', 'USAGE',
		       array_agg(r.rolname::text) FILTER (WHERE has_type_privilege(r.oid, t.oid, 'USAGE'))
		  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace, pg_roles r
		 WHERE t.typtype IN ('b', 'c', 'd', 'e', 'r') AND t.typname !~ '^_' AND n.nspname <> 'pg_toast'
		   AND (t.typrelid = 0 OR (SELECT relkind FROM pg_class WHERE oid = t.typrelid) = 'c')
		   AND (t.oid >= 16384 OR t.oid = ANY ($2::oid[]))
		 GROUP BY t.oid, n.nspname`,
	// PostgreSQL has a function for these from 18 on. Before that, this is what it does (pg_largeobject_aclmask_snapshot in aclchk.c).
	"large objects": `
		SELECT 'large_object', ARRAY[l.oid::text], '', p, array_agg(r.rolname::text) FILTER (WHERE r.rolsuper OR EXISTS (
		       SELECT FROM aclexplode(coalesce(l.lomacl, acldefault('L', l.lomowner))) x
		        WHERE x.privilege_type = p AND CASE WHEN x.grantee = 0 THEN true ELSE pg_has_role(r.oid, x.grantee, 'USAGE') END))
		  FROM pg_largeobject_metadata l, unnest(ARRAY['SELECT','UPDATE']) p, pg_roles r GROUP BY l.oid, p`,
	"database": `
		SELECT 'database', ARRAY[d.datname::text], '', p, array_agg(r.rolname::text) FILTER (WHERE has_database_privilege(r.oid, d.oid, p))
		  FROM pg_database d, unnest(ARRAY['CONNECT','CREATE','TEMPORARY']) p, pg_roles r WHERE d.datname = current_database() GROUP BY d.oid, p`,
	"tablespaces": `
		SELECT 'tablespace', ARRAY[s.spcname::text], '', 'CREATE', array_agg(r.rolname::text) FILTER (WHERE has_tablespace_privilege(r.oid, s.oid, 'CREATE'))
		  FROM pg_tablespace s, pg_roles r GROUP BY s.oid`,
	"parameters": `
		SELECT 'parameter', ARRAY[s.parname], '', p, array_agg(r.rolname::text) FILTER (WHERE has_parameter_privilege(r.oid, s.parname, p))
		  FROM pg_parameter_acl s, unnest(ARRAY['SET','ALTER SYSTEM']) p, pg_roles r GROUP BY s.oid, p`,
}

// ask asks everything that one database can be asked. What initdb made is asked about where its ACL says something today that it
// did not then.
func (o *oracle) ask(t *testing.T, conn *pgx.Conn, database string) facts {
	t.Helper()
	f := facts{yes: map[fact]bool{}, questions: map[[2]string]bool{}}
	// So that the types of arguments are written with their schemas, as the connector has them written.
	o.run(t, conn, "SET search_path = pg_catalog")
	var changed []uint32
	o.one(t, conn, &f.roles, "SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles")
	o.one(t, conn, &changed, `
		SELECT coalesce(array_agg(oid), '{}') FROM (
			SELECT c.oid, c.relacl AS acl, 'pg_class'::regclass AS class FROM pg_class c
			 WHERE relnamespace <> 'information_schema'::regnamespace UNION ALL SELECT f.oid, f.proacl, 'pg_proc'::regclass FROM pg_proc f
			UNION ALL SELECT l.oid, l.lanacl, 'pg_language'::regclass FROM pg_language l WHERE lanpltrusted
			UNION ALL SELECT t.oid, t.typacl, 'pg_type'::regclass FROM pg_type t WHERE t.typacl IS NOT NULL
			UNION ALL SELECT a.attrelid, a.attacl, 'pg_class'::regclass FROM pg_attribute a WHERE a.attrelid = 'pg_statistic'::regclass AND a.attacl IS NOT NULL) x(oid, acl, class)
		 WHERE oid < 16384 AND acl::text IS DISTINCT FROM (SELECT initprivs::text FROM pg_init_privs i WHERE i.objoid = x.oid AND i.classoid = x.class AND objsubid = 0)`)
	tablePrivileges := []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}
	if o.version >= 17 {
		tablePrivileges = append(tablePrivileges, "MAINTAIN")
	}
	for _, question := range objectQuestions {
		// Each question takes the parameters that it names.
		var arguments []any
		switch {
		case strings.Contains(question, "$1"):
			arguments = []any{tablePrivileges, changed}
		case strings.Contains(question, "$2"):
			question, arguments = strings.ReplaceAll(question, "$2", "$1"), []any{changed}
		}
		rows, err := conn.Query(t.Context(), question, arguments...)
		if err != nil {
			t.Fatalf("%s: %v", question, err)
		}
		var resourceType, suffix, privilege string
		var names, roles []string
		if _, err := pgx.ForEachRow(rows, []any{&resourceType, &names, &suffix, &privilege, &roles}, func() error {
			f.add(objectName(database, resourceType, names, suffix), privilege, roles)
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", question, err)
		}
	}
	o.askRoles(t, conn, database, &f)
	return f
}

func (f *facts) add(resource, privilege string, roles []string) {
	f.questions[[2]string{resource, privilege}] = true
	for _, r := range roles {
		f.yes[fact{r, resource, privilege}] = true
	}
}

func objectName(database, resourceType string, names []string, suffix string) string {
	switch resourceType {
	case "database", "tablespace", "parameter":
		return resourceType + " " + names[0]
	default:
		return resourceType + " " + qualified(append([]string{database}, names...)...) + suffix
	}
}

func roleName(database, role string) string {
	if role == databaseOwner {
		return "role " + databaseOwner + "@" + database
	}
	return "role " + role
}

// askRoles asks about pairs of roles, and who owns what.
func (o *oracle) askRoles(t *testing.T, conn *pgx.Conn, database string, f *facts) {
	t.Helper()
	modes := []string{"USAGE", "MEMBER", "USAGE WITH ADMIN OPTION"}
	if o.version >= 16 {
		modes = append(modes, "SET")
	}
	rows, err := conn.Query(t.Context(), `
		SELECT b.rolname::text, m, array_agg(a.rolname::text) FILTER (WHERE pg_has_role(a.oid, b.oid, m) AND a.oid <> b.oid)
		  FROM pg_roles a, pg_roles b, unnest($1::text[]) m WHERE a.rolname <> $2 GROUP BY b.rolname, m`, modes, databaseOwner)
	if err != nil {
		t.Fatal(err)
	}
	var role, mode string
	var roles []string
	if _, err := pgx.ForEachRow(rows, []any{&role, &mode, &roles}, func() error {
		f.add(roleName(database, role), mode, roles)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var supers []string
	o.one(t, conn, &supers, "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolsuper")
	f.add("server server", superuser, supers)
}

func (o *oracle) one(t *testing.T, conn *pgx.Conn, into any, question string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), question).Scan(into); err != nil {
		t.Fatalf("%s: %v", question, err)
	}
}
