package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
)

// A template is a database as a release's migrations leave an empty one. It is made once for each release, and the databases of new tenants
// are copied from it: PostgreSQL copies files in a fraction of the time in which it carries out every migration. Nobody connects to it, its
// roles log nobody in, and what is granted to them there is granted to a tenant's own roles in the tenant's copy, and to nobody else.
const (
	// templateName begins the name of a template, and of the roles that stand in it for a tenant's.
	templateName = "template_a3"
	// templateMigrator is whom a template is migrated as.
	templateMigrator = "template/" + migrator
)

// templateRole stands in a template for a role of every tenant.
func templateRole(role string) string { return templateName + "_" + role }

// MigratedDatabase implements platform.Templates. A set that has a server of its own gets its database as ever: there is nothing to copy from.
func (p *Platform) MigratedDatabase(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil || len(d.Migrate.Command) == 0 || p.Places != nil || p.hasOwnServer(s) {
		return p.Database(ctx, s)
	}
	if took, err := p.takeSpare(ctx, s, r); took || err != nil {
		return took, err
	}
	return p.makeDatabase(ctx, s, func(ctx context.Context, admin *pgx.Conn) (copied bool, err error) {
		template, err := p.template(ctx, admin, s.Blueprint, r)
		if err != nil || template == "" {
			return false, err
		}
		if err := p.copyTemplate(ctx, admin, template, s); err != nil {
			return false, fmt.Errorf("copy database %s from %s: %w", databaseName(s), template, err)
		}
		return true, p.State.SetMigrated(s.Name(), r.String())
	})
}

// The comment of a template is written last: one without was not finished. One that is whole says for which blueprint, whose roles stand in it.
const unfitTemplate = "a3 template, unfit: "

func wholeTemplate(b *blueprint.Blueprint) string { return "a3 template, whole, for " + b.Digest }

// templateOf is what a release's template is called.
func templateOf(b *blueprint.Blueprint, r platform.Release) (string, error) {
	digest, err := r.DigestOf(b.Artefact)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(digest + " " + b.Digest))
	return templateName + "_" + hex.EncodeToString(sum[:8]), nil
}

// template is the name of a release's template, which is made where it is not there; empty where its migrations make what a copy would not
// carry over. Of the templates of other releases none is kept.
func (p *Platform) template(ctx context.Context, admin *pgx.Conn, b *blueprint.Blueprint, r platform.Release) (string, error) {
	p.templates.Lock()
	defer p.templates.Unlock()
	name, err := templateOf(b, r)
	if err != nil {
		return "", err
	}
	rows, err := admin.Query(ctx, "SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE starts_with(datname, $1)", templateName+"_")
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	var other, comment string
	if _, err := pgx.ForEachRow(rows, []any{&other, &comment}, func() error { found[other] = comment; return nil }); err != nil {
		return "", fmt.Errorf("look for the template of %s: %w", r, err)
	}
	switch {
	case found[name] == wholeTemplate(b):
		return name, nil
	case strings.HasPrefix(found[name], unfitTemplate):
		return "", nil
	}
	for other := range found {
		// One that is copied this moment stays until the next time.
		if _, err := admin.Exec(ctx, "DROP DATABASE "+quoted(other)+" WITH (FORCE)"); err != nil && other == name {
			return "", fmt.Errorf("remove the unfinished template %s: %w", name, err)
		}
	}
	if err := p.makeTemplate(ctx, admin, b, r, name); err != nil {
		return "", fmt.Errorf("make the template %s of %s: %w", name, r, err)
	}
	lacks, err := notCarriedOver(ctx, admin, name)
	if err != nil {
		return "", err
	}
	if comment = wholeTemplate(b); lacks != "" {
		comment = unfitTemplate + lacks
	}
	if _, err := admin.Exec(ctx, "COMMENT ON DATABASE "+quoted(name)+" IS "+literal(comment)); err != nil || lacks != "" {
		return "", err
	}
	return name, nil
}

// makeTemplate makes a database and has a release migrate it, for roles that log in for no longer than that takes.
func (p *Platform) makeTemplate(ctx context.Context, admin *pgx.Conn, b *blueprint.Blueprint, r platform.Release, name string) (err error) {
	owner, password := quoted(templateRole(ownerRole)), rand.Text()
	for role := range b.Database.Roles {
		if err := makeRole(ctx, admin, templateRole(role)); err != nil {
			return err
		}
	}
	if err := makeRole(ctx, admin, templateRole(ownerRole)); err != nil {
		return err
	}
	closed := []string{
		"ALTER ROLE " + owner + " NOLOGIN PASSWORD NULL",
		"ALTER DATABASE " + quoted(name) + " OWNER TO " + quoted(pgserver.Superuser),
		"REVOKE ALL ON DATABASE " + quoted(name) + " FROM " + owner,
		"ALTER DATABASE " + quoted(name) + " ALLOW_CONNECTIONS false",
	}
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+quoted(name)+" OWNER "+owner+" TEMPLATE template0 ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	if err := batch(ctx, admin, closeToPublic(quoted(name)), "ALTER DATABASE "+quoted(name)+" ALLOW_CONNECTIONS true",
		fmt.Sprintf("ALTER ROLE %s LOGIN CONNECTION LIMIT %d PASSWORD %s", owner, ownerConnections, literal(password)),
		"ALTER ROLE "+owner+" SET search_path = pg_catalog"); err != nil {
		return err
	}
	migrated := p.migrateTemplate(ctx, b, r, p.Postgres.URLAs(templateRole(ownerRole), password, name))
	return errors.Join(migrated, batch(context.WithoutCancel(ctx), admin, closed...))
}

func (p *Platform) migrateTemplate(ctx context.Context, b *blueprint.Blueprint, r platform.Release, url string) (err error) {
	dir, done, err := p.scratch("template")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	user, err := p.templateUser(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, ownerRole+".url")
	if err := writeFile(file, url); err != nil {
		return err
	}
	if user != nil {
		if err := give(file, user); err != nil {
			return err
		}
	}
	facts := blueprint.Facts{Plane: p.State.Plane, Release: r.String(), LogLevel: p.Settings.LogLevel, OwnerURL: file, RoleNames: map[string]string{}}
	for role := range b.Database.Roles {
		facts.RoleNames[role] = templateRole(role)
	}
	env, err := facts.Environ(b.Database.Migrate.Env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateWithin)
	defer cancel()
	if last, err := p.onceAs(ctx, b, r, user, b.Database.Migrate.Command, env); err != nil {
		return fmt.Errorf("%w: %s", err, last)
	}
	return nil
}

// notCarriedOver names what a database holds for a template's roles that takeOver does not make a tenant's; empty where it makes all of it.
func notCarriedOver(ctx context.Context, admin *pgx.Conn, name string) (string, error) {
	rows, err := admin.Query(ctx, `SELECT DISTINCT d.classid::regclass::text || ' (' || d.deptype::text || ')' FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid
		WHERE b.datname = $1 AND d.refclassid = 'pg_authid'::regclass AND NOT (d.deptype = 'o'
			OR d.deptype = 'a' AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass, 'pg_type'::regclass)
			OR d.deptype = 'r' AND d.classid = 'pg_policy'::regclass) ORDER BY 1`, name)
	if err != nil {
		return "", err
	}
	lacks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", fmt.Errorf("read what the template %s holds: %w", name, err)
	}
	return strings.Join(lacks, ", "), nil
}

// copyTemplate makes a set's database from a template. Until all in it is the set's it belongs to the superuser: a copy that was cut off is
// known by that, and made anew.
func (p *Platform) copyTemplate(ctx context.Context, admin *pgx.Conn, template string, s platform.Set) error {
	roles := map[string]string{}
	for role := range databaseRoles(s.Blueprint.Database) {
		roles[role] = realRole(s, role)
	}
	return p.copyTo(ctx, admin, template, s, databaseName(s), roles)
}

// copyTo makes a database from a template, and hands all in it to roles, by the names of those that stand for them.
func (p *Platform) copyTo(ctx context.Context, admin *pgx.Conn, template string, s platform.Set, name string, roles map[string]string) error {
	db := quoted(name)
	// Nobody connects before it is closed; see Database.
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+db+" TEMPLATE "+quoted(template)+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	if err := batch(ctx, admin, closeToPublic(db), "ALTER DATABASE "+db+" ALLOW_CONNECTIONS true"); err != nil {
		return err
	}
	conn, err := p.connect(ctx, s, name)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var stand, real, quotedStand []string
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		stand, real, quotedStand = append(stand, templateRole(role)), append(real, roles[role]), append(quotedStand, quoted(templateRole(role)))
	}
	rows, err := conn.Query(ctx, takeOver, stand, real)
	if err != nil {
		return err
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read what is granted in it: %w", err)
	}
	owner := quoted(roles[ownerRole])
	// The owner first: who owns a thing is who grants it.
	statements = append([]string{"REASSIGN OWNED BY " + quoted(templateRole(ownerRole)) + " TO " + owner}, statements...)
	return batch(ctx, conn, append(statements, "DROP OWNED BY "+strings.Join(quotedStand, ", "), "ALTER DATABASE "+db+" OWNER TO "+owner)...)
}

// takeOver answers the statements that give each tenant's role what the role that stands for it was given; $1 are the latter, $2 the former.
// What belongs to the template's owner is left out: it changes hands whole.
const takeOver = `
	WITH stands AS MATERIALIZED (SELECT r.oid, real FROM unnest($1::text[], $2::text[]) AS n(stand, real) JOIN pg_catalog.pg_roles r ON r.rolname = n.stand),
	granted AS (
		SELECT 1 AS turn, format('SCHEMA %I', n.nspname) AS object, '' AS column, a.* FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner
		UNION ALL SELECT 2, format(CASE c.relkind WHEN 'S' THEN 'SEQUENCE %I.%I' ELSE 'TABLE %I.%I' END, n.nspname, c.relname), '', a.*
			FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
		UNION ALL SELECT 3, format('TABLE %I.%I', n.nspname, c.relname), format(' (%I)', t.attname), a.*
			FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.aclexplode(t.attacl) a
			WHERE a.grantee <> c.relowner
		UNION ALL SELECT 4, format('ROUTINE %s', f.oid::regprocedure), '', a.* FROM pg_catalog.pg_proc f, pg_catalog.aclexplode(f.proacl) a WHERE a.grantee <> f.proowner
		UNION ALL SELECT 5, format('TYPE %I.%I', n.nspname, t.typname), '', a.*
			FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace, pg_catalog.aclexplode(t.typacl) a WHERE a.grantee <> t.typowner)
	SELECT statement FROM (
		SELECT turn, object, format('GRANT %s ON %s TO %I%s', string_agg(privilege_type || "column", ', '), object, stands.real, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS statement
			FROM granted JOIN stands ON stands.oid = grantee GROUP BY turn, object, stands.real, is_grantable
		UNION ALL SELECT 6, '', format('ALTER POLICY %I ON %I.%I TO %s', p.polname, n.nspname, c.relname,
				(SELECT string_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC' ELSE quote_ident(coalesce(stands.real, pg_get_userbyid(r.oid)::text)) END, ', ')
					FROM unnest(p.polroles) AS r(oid) LEFT JOIN stands ON stands.oid = r.oid))
			FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	) all_of_it ORDER BY turn, object, statement`

// makeRole makes a role that logs nobody in, where it isn't there.
func makeRole(ctx context.Context, admin *pgx.Conn, name string) error {
	var there bool
	if err := admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).Scan(&there); err != nil {
		return fmt.Errorf("look for role %s: %w", name, err)
	}
	if there {
		return nil
	}
	if _, err := admin.Exec(ctx, "CREATE ROLE "+quoted(name)+" NOLOGIN NOINHERIT"); err != nil {
		return fmt.Errorf("make role %s: %w", name, err)
	}
	return nil
}

// batch carries statements out in one transaction, which statements that are sent together are.
func batch(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	_, err := conn.PgConn().Exec(ctx, strings.Join(statements, ";")).ReadAll()
	return err
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }
