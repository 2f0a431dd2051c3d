package local

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

const (
	ownerRole = "owner"
	// Bounds of a role's sessions, unless its blueprint says otherwise. A pool closes what it doesn't use after a minute and a half at
	// most, so a session that is idle for longer was forgotten.
	lockTimeout        = "10s"
	idleInTransaction  = "60s"
	statementTimeout   = "60s"
	idleSessionTimeout = "10min"
	temporaryFileLimit = "2GB"
	ownerConnections   = 4
)

// databaseName is the name of a set's database, and what its roles' names begin with.
func databaseName(s platform.Set) string {
	if s.Tenant.IsZero() {
		return "registry"
	}
	return s.Name()
}

// realRole is the name of a set's role in the server.
func realRole(s platform.Set, role string) string {
	if s.Tenant.IsZero() && role == databaseName(s) {
		return role
	}
	return databaseName(s) + "_" + role
}

func (p *Platform) urlFile(s platform.Set, role string) string {
	return p.dir(s, "database", role+".url")
}

// Database implements platform.Platform.
func (p *Platform) Database(ctx context.Context, s platform.Set) (changed bool, err error) {
	return p.makeDatabase(ctx, s, nothingToCopy)
}

// copies makes a set's database from what is there already, and says whether there was anything.
type copies func(ctx context.Context, admin *pgx.Conn) (copied bool, err error)

func nothingToCopy(context.Context, *pgx.Conn) (bool, error) { return false, nil }

func (p *Platform) makeDatabase(ctx context.Context, s platform.Set, copied copies) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil {
		return false, nil
	}
	if changed, err = p.serveOwn(ctx, s); err != nil {
		return changed, err
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return changed, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	statements, err := p.roles(ctx, admin, s, d)
	if err != nil {
		return changed, err
	}
	if len(statements) > 0 {
		// In one transaction, for each is written to disk before it is answered.
		if err := batch(ctx, admin, statements...); err != nil {
			return changed, fmt.Errorf("make the roles of %s: %w", databaseName(s), err)
		}
		changed = true
	}
	did, err := p.database(ctx, admin, s, d, copied)
	if changed = changed || did; err != nil {
		return changed, err
	}
	return changed, p.HandOver(ctx, s)
}

// databaseRoles are the roles that a set has in its database, by their names in the blueprint.
func databaseRoles(d *blueprint.Database) map[string]blueprint.Role {
	roles := maps.Clone(d.Roles)
	if roles == nil {
		roles = map[string]blueprint.Role{}
	}
	roles[ownerRole] = blueprint.Role{Connections: ownerConnections, StatementTimeout: "0"}
	return roles
}

// roles answers the statements that make a set's login roles, or bring them up to date. A role's comment is a digest of what it was made
// with, so that nothing is done where nothing changed.
func (p *Platform) roles(ctx context.Context, admin *pgx.Conn, s platform.Set, d *blueprint.Database) (statements []string, err error) {
	roles := databaseRoles(d)
	super, err := isSuperuser(ctx, admin)
	if err != nil {
		return nil, err
	}
	names := []string{realRole(s, readerRole)}
	for name := range roles {
		names = append(names, realRole(s, name))
	}
	rows, err := admin.Query(ctx, "SELECT rolname::text, coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = ANY($1)", names)
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	var role, comment string
	if _, err := pgx.ForEachRow(rows, []any{&role, &comment}, func() error { have[role] = comment; return nil }); err != nil {
		return nil, fmt.Errorf("look for the roles of %s: %w", databaseName(s), err)
	}
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		real := realRole(s, name)
		set, made, err := p.role(s, name, roles[name], super)
		if err != nil {
			return nil, fmt.Errorf("make role %s: %w", real, err)
		}
		was, there := have[real]
		if there && was == made {
			continue
		}
		if !there {
			statements = append(statements, "CREATE ROLE "+quoted(real))
			if !super {
				statements = append(statements, takePart(real))
			}
		}
		statements = append(statements, set...)
	}
	if _, there := have[realRole(s, readerRole)]; !there && !super {
		statements = append(statements, makeReader(s)...)
	}
	return statements, nil
}

// isSuperuser says whether a server's first user is one. RDS's isn't: it makes databases and roles, has of what it made what it grants itself, and
// can't set what a superuser alone may. That the server itself does there, by its parameters.
func isSuperuser(ctx context.Context, admin *pgx.Conn) (is bool, err error) {
	if err := admin.QueryRow(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&is); err != nil {
		return false, fmt.Errorf("ask what the server's first user may do: %w", err)
	}
	return is, nil
}

// takePart has a first user who is no superuser have what a role has that it made: else it could neither give it a database nor end its sessions.
func takePart(real string) string { return "GRANT " + quoted(real) + " TO CURRENT_USER" }

// role answers the statements that have a login role be as the blueprint says, its comment with them, which is made.
func (p *Platform) role(s platform.Set, name string, r blueprint.Role, super bool) (statements []string, made string, err error) {
	password, err := p.password(s, name)
	if err != nil {
		return nil, "", err
	}
	role := quoted(realRole(s, name))
	// Who is no superuser may not even say that a role is to have none of what it can't give.
	attributes := "LOGIN NOINHERIT NOCREATEDB NOCREATEROLE "
	if super {
		attributes = "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS "
	}
	attributes += fmt.Sprintf("CONNECTION LIMIT %d PASSWORD ", r.Connections)
	// RESET ALL first: what this list no longer says, or somebody else said, does not stay.
	statements = []string{"ALTER ROLE " + role + " WITH " + attributes + literal(password), "ALTER ROLE " + role + " RESET ALL"}
	settings := [][2]string{
		{"search_path", "pg_catalog"}, {"statement_timeout", cmp.Or(r.StatementTimeout, statementTimeout)}, {"lock_timeout", lockTimeout},
		{"idle_in_transaction_session_timeout", idleInTransaction}, {"idle_session_timeout", cmp.Or(r.IdleSessionTimeout, idleSessionTimeout)},
	}
	if super {
		settings = append(settings, superuserSettings...)
	}
	for _, setting := range append(settings, [2]string{"log_parameter_max_length_on_error", "0"}) {
		statements = append(statements, fmt.Sprintf("ALTER ROLE %s SET %s = %s", role, setting[0], literal(setting[1])))
	}
	sum := sha256.Sum256([]byte(strings.Join(statements, ";")))
	made = "a3 " + hex.EncodeToString(sum[:])
	verifier, err := scramVerifier(password)
	if err != nil {
		return nil, "", err
	}
	statements[0] = "ALTER ROLE " + role + " WITH " + attributes + literal(verifier)
	return append(statements, "COMMENT ON ROLE "+role+" IS "+literal(made)), made, nil
}

// superuserSettings only a superuser may change: a role that was taken over can't lift them. Of waits and of spills the server's log tells, and
// never of what a statement was given: that may be a secret.
var superuserSettings = [][2]string{{"temp_file_limit", temporaryFileLimit}, {"log_lock_waits", "on"}, {"log_temp_files", "64MB"}, {"log_parameter_max_length", "0"}}

// password is in the file with the role's connection string, which is written before the role is made.
func (p *Platform) password(s platform.Set, role string) (string, error) {
	file := p.urlFile(s, role)
	server, err := p.databases(s)
	if err != nil {
		return "", err
	}
	if text, err := os.ReadFile(file); err == nil {
		cfg, err := pgx.ParseConfig(strings.TrimSpace(string(text)))
		if err != nil {
			return "", fmt.Errorf("%s holds no connection string", file)
		}
		// The port may have changed since.
		if url := server.URLAs(realRole(s, role), cfg.Password, databaseName(s)); url != strings.TrimSpace(string(text)) {
			return cfg.Password, writeFile(file, url)
		}
		return cfg.Password, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	password := rand.Text()
	return password, writeFile(file, server.URLAs(realRole(s, role), password, databaseName(s)))
}

func (p *Platform) database(ctx context.Context, admin *pgx.Conn, s platform.Set, d *blueprint.Database, copied copies) (changed bool, err error) {
	name, owner := databaseName(s), realRole(s, ownerRole)
	db := quoted(name)
	var have, mark string
	err = admin.QueryRow(ctx, "SELECT pg_get_userbyid(datdba), coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1", name).Scan(&have, &mark)
	if err == nil && have == pgserver.Superuser && mark == "" && !s.Tenant.IsZero() {
		// A copy that was cut off: nothing of the tenant's was ever in it, for that is its owner's.
		if _, err := admin.Exec(ctx, "DROP DATABASE "+db+" WITH (FORCE)"); err != nil {
			return false, fmt.Errorf("remove the copy %s that was cut off: %w", name, err)
		}
		err = pgx.ErrNoRows
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if err := p.newDatabase(ctx, admin, db, owner, copied); err != nil {
			return false, fmt.Errorf("make database %s: %w", name, err)
		}
		changed = true
	case err != nil:
		return false, fmt.Errorf("look for database %s: %w", name, err)
	case have != owner:
		return false, fmt.Errorf("database %s belongs to %s and not to %s: it is somebody else's", name, have, owner)
	}
	if err := notAnothers("database "+name, mark, binding.Mark{Tenant: s.Tenant}); err != nil {
		return false, err
	}
	_, err = admin.PgConn().Exec(ctx, strings.Join(opened(s, d), ";")).ReadAll()
	if err != nil {
		return changed, fmt.Errorf("close database %s: %w", name, err)
	}
	return changed, nil
}

// opened is the statements after which a set's roles get to its database, and nobody else does.
func opened(s platform.Set, d *blueprint.Database) []string {
	db, names := quoted(databaseName(s)), []string{}
	for _, name := range slices.Sorted(maps.Keys(databaseRoles(d))) {
		names = append(names, quoted(realRole(s, name)))
	}
	return []string{
		closeToPublic(db), "GRANT CONNECT ON DATABASE " + db + " TO " + strings.Join(names, ", "),
		"ALTER DATABASE " + db + " ALLOW_CONNECTIONS true",
	}
}

// newDatabase makes a database that is closed to everybody still.
func (p *Platform) newDatabase(ctx context.Context, admin *pgx.Conn, db, owner string, copied copies) error {
	if did, err := copied(ctx, admin); did || err != nil {
		return err
	}
	// Nobody connects before it is closed, or the roles of other sets would find for a moment that they can, and stop.
	_, err := admin.Exec(ctx, "CREATE DATABASE "+db+" OWNER "+quoted(owner)+" TEMPLATE template0 ALLOW_CONNECTIONS false")
	return err
}

// closeToPublic is the statements after which nobody gets to a database who isn't named, nor to the server's own. Of several at once, in
// transactions of theirs, one waits for the other: PostgreSQL fails whoever changes a database's privileges while another does.
func closeToPublic(db string) string {
	const lock = "SELECT pg_advisory_xact_lock(1630760820)"
	return lock + "; REVOKE ALL ON DATABASE " + db + ", postgres, template1 FROM PUBLIC"
}

// migrateWithin is how long the migrations of a release may take.
const migrateWithin = 10 * time.Minute

// Migrate implements platform.Platform: once for each release.
func (p *Platform) Migrate(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil || len(d.Migrate.Command) == 0 || p.State.Migrated()[s.Name()] == r.String() {
		return false, nil
	}
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), Release: r.String(), LogLevel: p.Settings.LogLevel,
		OwnerURL: p.urlFile(s, ownerRole), RoleNames: map[string]string{}}
	for name := range d.Roles {
		facts.RoleNames[name] = realRole(s, name)
	}
	env, err := facts.Environ(d.Migrate.Env)
	if err != nil {
		return false, err
	}
	if err := p.HandOver(ctx, s); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateWithin)
	defer cancel()
	if last, err := p.once(ctx, s, r, migrator, d.Migrate.Command, env); err != nil {
		return false, fmt.Errorf("migrate database %s: %w: %s", databaseName(s), err, last)
	}
	return true, p.State.SetMigrated(s.Name(), r.String())
}

// once runs the artefact to its end, as whom a component runs, and answers the last line of what it said.
func (p *Platform) once(ctx context.Context, s platform.Set, r platform.Release, component string, args, env []string) (last string, err error) {
	user, err := p.user(ctx, s, component)
	if err != nil {
		return "", err
	}
	return p.onceAs(ctx, s.Blueprint, r, user, args, env)
}

func (p *Platform) onceAs(ctx context.Context, b *blueprint.Blueprint, r platform.Release, user *supervise.User, args, env []string) (last string, err error) {
	program, err := p.program(b, r)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the artefact is ours, and so is what it is told
	cmd.Env, cmd.Dir = env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user.Credential()}
	out, err := supervise.Output(cmd)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], err
}

// holder is the component that logs in as a role.
func holder(b *blueprint.Blueprint, role string) string {
	for _, c := range b.Components {
		if slices.Contains(c.Needs.Database, role) {
			return c.Name
		}
	}
	return migrator
}

// literal quotes text for SQL that takes no parameters. The server's own settings make backslashes plain.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
