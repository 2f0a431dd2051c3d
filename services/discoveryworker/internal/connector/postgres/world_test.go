package postgres

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// world is a random server: its roles, its databases and the statements that make them. The same seed makes the same world.
type world struct {
	rng       *rand.Rand
	version   int
	roles     []string
	databases []string
	// shared is run in the server's own database, within each in the database of the same index.
	shared []string
	within [][]string
}

// depth of the chain of memberships that every world has at least.
const depth = 7

func newWorld(seed uint64, version int) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0xa3)), version: version}
	w.makeRoles()
	w.makeMemberships()
	databases := 1
	if w.chance(30) {
		databases = 2 // making one is the slow part
	}
	for i := range databases {
		w.databases = append(w.databases, fmt.Sprintf([]string{"app_%d", "Büro %d"}[i], seed))
		w.within = append(w.within, nil)
		w.makeDatabase(i)
	}
	return w
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func pick[T any](w *world, from ...T) T { return from[w.rng.IntN(len(from))] }

func (w *world) role() string { return pick(w, w.roles...) }

// grantee is a role or, now and then, PUBLIC.
func (w *world) grantee() string {
	if w.chance(15) {
		return "PUBLIC"
	}
	return ident(w.role())
}

// ident always quotes, so that the test does not rest on the connector's own rule.
func ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// try runs a statement as a role, and lets it be where the server refuses it.
func try(as, statement string) string {
	return fmt.Sprintf("DO $do$ BEGIN SET LOCAL ROLE %s; %s; RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END $do$", ident(as), statement)
}

func (w *world) makeRoles() {
	for i := range 9 + w.rng.IntN(6) {
		name := fmt.Sprintf(pick(w, "r%d", "r%d", "Role %d", `q"%d`, "r.%d"), i)
		w.roles = append(w.roles, name)
		options := []string{pick(w, "LOGIN", "NOLOGIN")}
		if w.chance(30) {
			options = append(options, "NOINHERIT")
		}
		for _, rare := range []string{"SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"} {
			if w.chance(7) {
				options = append(options, rare)
			}
		}
		if w.chance(10) {
			options = append(options, pick(w, "VALID UNTIL '2001-01-01'", "VALID UNTIL 'infinity'", "CONNECTION LIMIT 3"))
		}
		w.shared = append(w.shared, fmt.Sprintf("CREATE ROLE %s %s", ident(name), strings.Join(options, " ")))
	}
}

// makeMemberships makes a chain through the first roles and more edges in its direction, since circles are refused.
func (w *world) makeMemberships() {
	for i := range depth {
		w.shared = append(w.shared, w.membership(w.roles[i+1], w.roles[i]))
	}
	for range 4 + w.rng.IntN(10) {
		a, b := w.rng.IntN(len(w.roles)), w.rng.IntN(len(w.roles))
		if a != b {
			w.shared = append(w.shared, w.membership(w.roles[max(a, b)], w.roles[min(a, b)]))
		}
	}
	for range w.rng.IntN(6) {
		// By a role with the admin option, or without it and then in vain.
		a, b := w.rng.IntN(len(w.roles)), w.rng.IntN(len(w.roles))
		if a != b {
			w.shared = append(w.shared, try(w.role(), w.membership(w.roles[max(a, b)], w.roles[min(a, b)])))
		}
	}
	predefined := []string{"pg_read_all_data", "pg_write_all_data", "pg_execute_server_program", "pg_write_server_files", "pg_monitor"}
	if w.version >= 17 {
		predefined = append(predefined, "pg_maintain")
	}
	for range w.rng.IntN(4) {
		w.shared = append(w.shared, w.membership(pick(w, predefined...), w.role()))
	}
	if w.chance(30) {
		w.shared = append(w.shared, fmt.Sprintf("REVOKE %s%s FROM %s", pick(w, "", "ADMIN OPTION FOR "), ident(w.roles[1]), ident(w.roles[0])))
	}
}

func (w *world) membership(of, member string) string {
	statement := fmt.Sprintf("GRANT %s TO %s", ident(of), ident(member))
	if w.version < 16 {
		if w.chance(25) {
			statement += " WITH ADMIN OPTION"
		}
		return statement
	}
	var with []string
	for i, option := range []string{"INHERIT", "SET", "ADMIN"} {
		if w.chance([]int{40, 30, 30}[i]) {
			with = append(with, option+" "+pick(w, "TRUE", "FALSE"))
		}
	}
	if len(with) > 0 {
		statement += " WITH " + strings.Join(with, ", ")
	}
	return statement
}

func (w *world) makeDatabase(i int) {
	name := ident(w.databases[i])
	w.shared = append(w.shared, fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 STRATEGY FILE_COPY OWNER %s", name, ident(w.role())))
	for range w.rng.IntN(5) {
		w.shared = append(w.shared, w.change("DATABASE "+name, "CONNECT", "CREATE", "TEMPORARY", "ALL"))
	}
	if i == 0 && w.chance(30) {
		w.shared = append(w.shared, w.change("PARAMETER work_mem", "SET", "ALTER SYSTEM"))
	}
	if i == 0 && w.chance(30) {
		w.shared = append(w.shared, w.change("TABLESPACE pg_default", "CREATE"))
	}
	schemas := []string{"public"}
	for _, s := range []string{"app", `odd."Schema`} {
		schemas = append(schemas, s)
		w.in(i, fmt.Sprintf("CREATE SCHEMA %s AUTHORIZATION %s", ident(s), ident(w.role())))
	}
	for _, s := range schemas {
		for range w.rng.IntN(4) {
			w.in(i, w.change("SCHEMA "+ident(s), "USAGE", "CREATE", "ALL"))
		}
	}
	for n := range 3 + w.rng.IntN(3) {
		w.makeRelation(i, pick(w, schemas...), n)
	}
	w.makeFunctions(i, pick(w, schemas...))
	w.makeTypes(i, pick(w, schemas...))
	w.makeRare(i)
}

func (w *world) makeTypes(i int, schema string) {
	for _, made := range [][2]string{{"mood", "CREATE TYPE %s AS ENUM ('glad', 'sad')"}, {"pair", "CREATE TYPE %s AS (a int, b int)"}, {"span", "CREATE TYPE %s AS RANGE (subtype = float8)"}, {"small", "CREATE DOMAIN %s AS int"}} {
		object := ident(schema) + "." + ident(made[0])
		w.in(i, fmt.Sprintf(made[1], object))
		if w.chance(40) {
			w.in(i, fmt.Sprintf("ALTER TYPE %s OWNER TO %s", object, ident(w.role())))
		}
		for range w.rng.IntN(3) {
			w.in(i, w.change("TYPE "+object, "USAGE", "ALL"))
		}
	}
	if w.chance(20) {
		w.in(i, w.change("TYPE pg_catalog.int8", "USAGE"))
	}
	for n := range w.rng.IntN(3) {
		oid := fmt.Sprint(50_000 + n)
		w.in(i, "SELECT lo_create("+oid+")")
		w.in(i, fmt.Sprintf("ALTER LARGE OBJECT %s OWNER TO %s", oid, ident(w.role())))
		for range w.rng.IntN(4) {
			w.in(i, w.change("LARGE OBJECT "+oid, "SELECT", "UPDATE", "ALL"))
		}
	}
}

func (w *world) in(database int, statement string) {
	w.within[database] = append(w.within[database], statement)
}

// change grants or revokes, as superuser, as the owner by whom it then is granted, or as a role that may hold the grant option.
func (w *world) change(object string, privileges ...string) string {
	privilege := pick(w, privileges...)
	switch w.rng.IntN(10) {
	case 0, 1:
		return fmt.Sprintf("REVOKE %s ON %s FROM %s CASCADE", privilege, object, w.grantee())
	case 2:
		return fmt.Sprintf("REVOKE GRANT OPTION FOR %s ON %s FROM %s CASCADE", privilege, object, ident(w.role()))
	case 3, 4:
		return fmt.Sprintf("GRANT %s ON %s TO %s WITH GRANT OPTION", privilege, object, ident(w.role()))
	case 5, 6:
		return try(w.role(), fmt.Sprintf("GRANT %s ON %s TO %s", privilege, object, w.grantee()))
	default:
		return fmt.Sprintf("GRANT %s ON %s TO %s", privilege, object, w.grantee())
	}
}

func (w *world) makeRelation(i int, schema string, n int) {
	name := ident(schema) + "." + ident(fmt.Sprintf(pick(w, "t%d", "T %d", "t.%d"), n))
	privileges := []string{"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "ALL"}
	if w.version >= 17 {
		privileges = append(privileges, "MAINTAIN")
	}
	kind, object := pick(w, "TABLE", "TABLE", "PARTITIONED", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"), "TABLE "+name
	switch kind {
	case "TABLE":
		w.in(i, fmt.Sprintf("CREATE TABLE %s (a int, b int, c serial)", name))
	case "PARTITIONED":
		kind = "TABLE"
		w.in(i, fmt.Sprintf("CREATE TABLE %s (a int, b int, c int) PARTITION BY LIST (a)", name))
	case "SEQUENCE":
		w.in(i, "CREATE SEQUENCE "+name)
		privileges, object = []string{"USAGE", "SELECT", "UPDATE", "ALL"}, "SEQUENCE "+name
	default:
		w.in(i, fmt.Sprintf("CREATE %s %s AS SELECT 1 AS a, 2 AS b, 3 AS c", kind, name))
	}
	if w.chance(80) {
		owner := w.role()
		w.in(i, fmt.Sprintf("ALTER %s %s OWNER TO %s", kind, name, ident(owner)))
		if w.chance(30) {
			w.in(i, fmt.Sprintf("REVOKE %s ON %s FROM %s CASCADE", pick(w, privileges...), object, ident(owner)))
		}
	}
	for range w.rng.IntN(7) {
		w.in(i, w.change(object, privileges...))
	}
	if kind == "SEQUENCE" {
		return
	}
	for range w.rng.IntN(4) {
		column := pick(w, "a", "b", "c")
		w.in(i, w.change("TABLE "+name, "SELECT ("+column+")", "INSERT ("+column+")", "UPDATE ("+column+", a)", "REFERENCES ("+column+")", "ALL ("+column+")"))
	}
}

func (w *world) makeFunctions(i int, schema string) {
	for n, signature := range []string{"(x int, y text)", "(VARIADIC a int[])"} {
		name := fmt.Sprintf("%s.%s", ident(schema), ident(fmt.Sprintf("f%d", n)))
		w.in(i, fmt.Sprintf("CREATE FUNCTION %s%s RETURNS int LANGUAGE sql AS 'SELECT 1' %s", name, signature, pick(w, "", "SECURITY DEFINER")))
		object := fmt.Sprintf("FUNCTION %s%s", name, signature)
		if w.chance(60) {
			w.in(i, fmt.Sprintf("ALTER %s OWNER TO %s", object, ident(w.role())))
		}
		for range w.rng.IntN(4) {
			w.in(i, w.change(object, "EXECUTE", "ALL"))
		}
	}
	if w.chance(40) {
		w.in(i, fmt.Sprintf("CREATE PROCEDURE %s.p() LANGUAGE sql AS 'SELECT 1'", ident(schema)))
		w.in(i, w.change(fmt.Sprintf("PROCEDURE %s.p()", ident(schema)), "EXECUTE"))
	}
}

// makeRare makes what few databases have.
func (w *world) makeRare(i int) {
	if w.chance(20) {
		w.in(i, "CREATE FOREIGN DATA WRAPPER fdw")
		w.in(i, "CREATE SERVER elsewhere FOREIGN DATA WRAPPER fdw")
		w.in(i, "CREATE FOREIGN TABLE public.far (a int, b int, c int) SERVER elsewhere")
		w.in(i, w.change("FOREIGN DATA WRAPPER fdw", "USAGE"))
		w.in(i, w.change("FOREIGN SERVER elsewhere", "USAGE"))
		w.in(i, w.change("TABLE public.far", "SELECT", "INSERT"))
		w.in(i, w.change("LANGUAGE sql", "USAGE"))
	}
	if w.chance(25) {
		// The server's own catalogues and functions, which most never touch.
		w.in(i, w.change("TABLE pg_catalog.pg_authid", "SELECT", "UPDATE", "ALL"))
		w.in(i, w.change("TABLE pg_catalog.pg_statistic", "SELECT (starelid)", "UPDATE (starelid)"))
		w.in(i, w.change("FUNCTION pg_catalog.pg_ls_dir(text)", "EXECUTE"))
	}
	if w.chance(30) {
		w.in(i, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO pg_database_owner; GRANT USAGE ON SCHEMA app TO pg_database_owner")
		w.in(i, `CREATE TABLE app.of_owner (a int, b int, c int); ALTER TABLE app.of_owner OWNER TO pg_database_owner`)
	}
	if w.chance(20) {
		w.in(i, fmt.Sprintf("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO %s; CREATE TABLE public.later (a int, b int, c int)", ident(w.role())))
	}
}
