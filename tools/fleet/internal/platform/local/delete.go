package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// Delete implements platform.Platform. A process that got the platform delegated removes what is in the set's directories, which is
// all that it reaches; the roles, the database and the directories themselves are for who holds the plane's power.
func (p *Platform) Delete(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Tenant.IsZero() {
		return false, errors.New("the plane's own set is removed with the plane")
	}
	if changed, err = p.dropUnits(ctx, s); err != nil {
		return changed, err
	}
	if p.delegated {
		did, err := Empty(p.dir(s), p.home("log", s.Name()))
		return changed || did, err
	}
	did, err := p.DropDatabase(ctx, s)
	if changed = changed || did; err != nil {
		return changed, err
	}
	did, err = p.Clear(s)
	return changed || did, err
}

// Clear removes what is a set's of the plane's files, its backups wherever they were made, and what trying them out left among them, and what is remembered of it.
func (p *Platform) Clear(s platform.Set) (changed bool, err error) {
	if changed, err = p.ClearScratchOf(s); err != nil {
		return changed, err
	}
	places, err := p.everyBackupPlace()
	if err != nil {
		return changed, fmt.Errorf("backups of %s would be left: %w", s.Name(), err)
	}
	for _, store := range places {
		did, err := store.Remove(s.Name())
		if changed = changed || did; errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
			// With a recovery key they open: it isn't gone before they are.
			return changed, fmt.Errorf("%w: the backups of %s in %s are left, and the sealed copy of their key, for nothing can be removed there: mount its disk to be written, and fleet operation resume ID goes on. "+
				"Where it never can be, destroy it, have backups kept elsewhere (A3_BACKUP_DIR, fleet plane up), and fleet backup accept-directory --gone %s", err, s.Name(), store.Dir, store.Dir)
		} else if err != nil {
			return changed, err
		}
	}
	for _, dir := range []string{p.dir(s), p.replacedDir(s), p.restoringFile(s), p.home("log", s.Name())} {
		if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		changed = true
		if err := os.RemoveAll(dir); err != nil {
			return changed, fmt.Errorf("remove the files of %s: %w", s.Name(), err)
		}
	}
	did, err := p.State.Forget(s.Name())
	return changed || did, err
}

// dropUnits has whatever the supervisor keeps of the set dropped, also what its blueprint names no longer.
func (p *Platform) dropUnits(ctx context.Context, s platform.Set) (changed bool, err error) {
	if changed, err = p.Stop(ctx, s); err != nil {
		return changed, err
	}
	units, err := p.units(ctx, s)
	if err != nil {
		return changed, err
	}
	var names []string
	for _, u := range units {
		names = append(names, u.Name)
	}
	did, err := p.Supervisor.Drop(ctx, names...)
	return changed || did, err
}

func (p *Platform) units(ctx context.Context, s platform.Set) ([]supervise.Status, error) {
	all, err := p.Supervisor.Status(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(u supervise.Status) bool { return !strings.HasPrefix(u.Name, s.Name()+"/") }), nil
}

// Empty removes what is in directories, and leaves them.
func Empty(dirs ...string) (changed bool, err error) {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return changed, err
		}
		for _, e := range entries {
			changed = true
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return changed, fmt.Errorf("remove %s: %w", filepath.Join(dir, e.Name()), err)
			}
		}
	}
	return changed, nil
}

// DropDatabase removes the set's database and its roles. What carries another's name is never touched: names are the tenant's id.
func (p *Platform) DropDatabase(ctx context.Context, s platform.Set) (changed bool, err error) {
	if s.Blueprint.Database == nil {
		return false, nil
	}
	if p.hasOwnServer(s) {
		return p.removeOwnServer(ctx, s)
	}
	admin, err := p.connect(ctx, s, "postgres")
	if err != nil {
		return false, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	databases, roles, err := p.catalogue(ctx, admin, s)
	if err != nil {
		return false, err
	}
	for _, d := range databases {
		if _, err := admin.Exec(ctx, "DROP DATABASE "+pgx.Identifier{d}.Sanitize()+" WITH (FORCE)"); err != nil {
			return changed, fmt.Errorf("remove database %s: %w", d, err)
		}
		changed = true
	}
	for _, r := range roles {
		if _, err := admin.Exec(ctx, "DROP ROLE "+pgx.Identifier{r}.Sanitize()); err != nil {
			return changed, fmt.Errorf("remove role %s: %w", r, err)
		}
		changed = true
	}
	return changed, nil
}

// catalogue is what a server knows of a set: its database and whatever begins with its name, and its roles.
func (p *Platform) catalogue(ctx context.Context, admin *pgx.Conn, s platform.Set) (databases, roles []string, err error) {
	names := func(sql string) (out []string, err error) {
		rows, err := admin.Query(ctx, sql, databaseName(s))
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if databases, err = names("SELECT datname FROM pg_database WHERE datname = $1 OR starts_with(datname, $1 || '_') ORDER BY 1"); err != nil {
		return nil, nil, fmt.Errorf("look for the databases of %s: %w", s.Name(), err)
	}
	if roles, err = names("SELECT rolname FROM pg_roles WHERE rolname = $1 OR starts_with(rolname, $1 || '_') ORDER BY 1"); err != nil {
		return nil, nil, fmt.Errorf("look for the roles of %s: %w", s.Name(), err)
	}
	return databases, roles, nil
}
