package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
)

// A spare is a database that was copied from a release's template before anybody asked for it, and that belongs to roles of its own which log
// nobody in. To make it a tenant's is a matter of names: one transaction renames it and its roles, and lets them in. Before that nothing of
// it is a tenant's, and nobody connects to it; after a cut it is either a spare still or the tenant's whole.
const (
	spareName = "spare_a3"
	// wholeSpare begins a spare's comment, which is written last; its template's name follows.
	wholeSpare = "a3 spare, whole, of "
	// spareLock is held by who makes spares, or takes one. Whoever finds it held does without.
	spareLock = 1630760821
)

// spareRole is a role of a spare, as a tenant's are named.
func spareRole(spare, role string) string { return spare + "_" + role }

// takeSpare makes a spare of the release a new set's database, with the set's roles; where there is none it does nothing, as for a set that has
// a database or roles already.
func (p *Platform) takeSpare(ctx context.Context, s platform.Set, r platform.Release) (took bool, err error) {
	template, err := templateOf(s.Blueprint, r)
	if err != nil {
		return false, err
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return false, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	tx, err := admin.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// In a statement of its own: one that also looked would look with a snapshot from before it had the lock, and find what another just took.
	var mine bool
	if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", spareLock).Scan(&mine); err != nil || !mine {
		return false, err
	}
	var spare string
	err = tx.QueryRow(ctx, `SELECT datname::text FROM pg_database d WHERE shobj_description(d.oid, 'pg_database') = $1 AND starts_with(datname, $2)
		AND NOT EXISTS (SELECT FROM pg_database WHERE datname = $3) AND NOT EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname, $3 || '_')) LIMIT 1`,
		wholeSpare+template, spareName+"_", databaseName(s)).Scan(&spare)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a spare database: %w", err)
	}
	statements, err := p.spareBecomes(spare, s)
	if err != nil {
		return false, err
	}
	if err := batch(ctx, admin, statements...); err != nil {
		return false, fmt.Errorf("make the spare %s database %s: %w", spare, databaseName(s), err)
	}
	if err := tx.Commit(ctx); err != nil {
		return false, fmt.Errorf("make the spare %s database %s: %w", spare, databaseName(s), err)
	}
	return true, errors.Join(p.State.SetMigrated(s.Name(), r.String()), p.HandOver(ctx, s))
}

// spareBecomes is the statements that make a spare a set's database.
func (p *Platform) spareBecomes(spare string, s platform.Set) (statements []string, err error) {
	roles := databaseRoles(s.Blueprint.Database)
	names := slices.Sorted(maps.Keys(roles))
	made := make([][]string, len(names))
	// At once, for each password is on disk before it is used.
	var all errgroup.Group
	for i, name := range names {
		all.Go(func() (err error) {
			if made[i], _, err = p.role(s, name, roles[name], true); err != nil {
				return fmt.Errorf("make role %s: %w", realRole(s, name), err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	for i, name := range names {
		statements = append(statements, "ALTER ROLE "+quoted(spareRole(spare, name))+" RENAME TO "+quoted(realRole(s, name)))
		statements = append(statements, made[i]...)
	}
	db := quoted(databaseName(s))
	statements = append(statements, "ALTER DATABASE "+quoted(spare)+" RENAME TO "+db, "COMMENT ON DATABASE "+db+" IS NULL")
	return append(statements, opened(s, s.Blueprint.Database)...), nil
}

// KeepSpare sees that there is one spare of what new tenants of a blueprint are copied from, where there is such a template, and none that was
// cut off or is of another.
func (p *Platform) KeepSpare(ctx context.Context, b *blueprint.Blueprint) (changed bool, err error) {
	if b.Database == nil || p.Places != nil {
		return false, nil
	}
	admin, err := p.connect(ctx, platform.Set{}, "postgres")
	if err != nil {
		return false, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	var mine bool
	// The lock is the session's, and ends with it.
	if err := admin.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", spareLock).Scan(&mine); err != nil || !mine {
		return false, err
	}
	var template string
	err = admin.QueryRow(ctx, "SELECT coalesce(max(datname), '') FROM pg_database d WHERE shobj_description(d.oid, 'pg_database') = $1", wholeTemplate(b)).Scan(&template)
	if err != nil {
		return false, fmt.Errorf("look for a template: %w", err)
	}
	if there, err := removeSpares(ctx, admin, wholeSpare+template); err != nil || there || template == "" {
		return false, err
	}
	name := spareName + "_" + strings.ToLower(rand.Text()[:16])
	if err := p.makeSpare(ctx, admin, b, template, name); err != nil {
		return true, fmt.Errorf("make a spare of %s: %w", template, err)
	}
	return true, nil
}

func (p *Platform) makeSpare(ctx context.Context, admin *pgx.Conn, b *blueprint.Blueprint, template, name string) error {
	roles := map[string]string{}
	var made []string
	for role := range databaseRoles(b.Database) {
		roles[role] = spareRole(name, role)
		made = append(made, "CREATE ROLE "+quoted(roles[role])+" NOLOGIN NOINHERIT")
	}
	if err := batch(ctx, admin, made...); err != nil {
		return err
	}
	if err := p.copyTo(ctx, admin, template, platform.Set{}, name, roles); err != nil {
		return err
	}
	// PostgreSQL gives a copy its place on the disk when it is written back, which may be minutes later: on a disk that is full by then no checkpoint
	// would come to its end, and who reads from another database would fail for want of a buffer.
	if _, err := admin.Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("have the copy written: %w", err)
	}
	return batch(ctx, admin, "ALTER DATABASE "+quoted(name)+" ALLOW_CONNECTIONS false", "COMMENT ON DATABASE "+quoted(name)+" IS "+literal(wholeSpare+template))
}

// removeSpares removes all spares but one with a comment, and roles of spares whose database is gone; there says that one is left.
func removeSpares(ctx context.Context, admin *pgx.Conn, but string) (there bool, err error) {
	rows, err := admin.Query(ctx, "SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1", spareName+"_")
	if err != nil {
		return false, err
	}
	var keep, name, comment string
	var remove []string
	if _, err := pgx.ForEachRow(rows, []any{&name, &comment}, func() error {
		if keep == "" && comment == but {
			keep = name
		} else {
			remove = append(remove, name)
		}
		return nil
	}); err != nil {
		return false, fmt.Errorf("look for spare databases: %w", err)
	}
	for _, name := range remove {
		if _, err := admin.Exec(ctx, "DROP DATABASE "+quoted(name)+" WITH (FORCE)"); err != nil {
			return false, fmt.Errorf("remove the spare %s: %w", name, err)
		}
	}
	rows, err = admin.Query(ctx, "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1) AND ($2 = '' OR NOT starts_with(rolname, $2 || '_'))", spareName+"_", keep)
	if err != nil {
		return false, err
	}
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("look for roles of spare databases: %w", err)
	}
	for i := range roles {
		roles[i] = quoted(roles[i])
	}
	if len(roles) > 0 {
		if _, err := admin.Exec(ctx, "DROP ROLE "+strings.Join(roles, ", ")); err != nil {
			return false, fmt.Errorf("remove the roles of spares that are gone: %w", err)
		}
	}
	return keep != "", nil
}
