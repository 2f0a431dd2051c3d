package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/dump"
	"a3os.app/tools/fleet/internal/platform"
)

// Export implements platform.Platform: the database as SQL, and every object.
func (p *Platform) Export(ctx context.Context, s platform.Set, dir string) (changed bool, err error) {
	return p.ExportWith(ctx, s, dir, func(name, to string) error { return os.CopyFS(to, written{os.DirFS(p.store(s, name))}) })
}

// written is a store without what was never written to its end.
type written struct{ fs.FS }

// ReadDir implements fs.ReadDirFS.
func (w written) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(w.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return unwritten(path.Join(name, e.Name())) }), err
}

// unwritten says of a path below a store that what lies there was begun to be written, and is nobody's object yet.
func unwritten(rel string) bool { return rel == "tmp" }

// ExportWith exports a set whose stores objects exports each to a directory that isn't there.
func (p *Platform) ExportWith(ctx context.Context, s platform.Set, dir string, objects func(name, to string) error) (changed bool, err error) {
	done := filepath.Join(dir, "complete")
	if _, err := os.Stat(done); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("make the directory of the export: %w", err)
	}
	if s.Blueprint.Database != nil {
		if err := p.exportDatabase(ctx, s, filepath.Join(dir, "database.sql")); err != nil {
			return false, err
		}
	}
	for name, store := range s.Blueprint.Stores {
		if store.Kind != blueprint.StoreBlob {
			continue
		}
		to := filepath.Join(dir, "stores", name)
		if err := os.RemoveAll(to); err != nil {
			return false, err
		}
		if err := objects(name, to); err != nil {
			return false, fmt.Errorf("export store %s: %w", name, err)
		}
	}
	// All that the tenant has is in it: whoever made it reads it, and nobody else.
	if err := closeTree(dir); err != nil {
		return false, fmt.Errorf("close the export to others: %w", err)
	}
	return true, os.WriteFile(done, nil, 0o600)
}

// exportDatabase writes the whole database as SQL. The owner doesn't see the rows of workspaces, for row-level security is forced on it
// too, and what the owner wrote must not run with the superuser's power: a login reads it that can do nothing else.
func (p *Platform) exportDatabase(ctx context.Context, s platform.Set, file string) error {
	url, done, err := p.reader(ctx, s)
	if err != nil {
		return err
	}
	write := func() error {
		snapshot, err := dump.Begin(ctx, url)
		if err != nil {
			return err
		}
		return errors.Join(snapshot.SQL(ctx, p.programs(), file), snapshot.Close(ctx))
	}
	if err := errors.Join(write(), done()); err != nil {
		return fmt.Errorf("export the database of %s: %w", s.Name(), err)
	}
	return nil
}

// closeTree leaves what is below a directory to its owner alone.
func closeTree(dir string) error {
	return filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(at, 0o700) //nolint:gosec // a directory that its owner walks
		case d.Type().IsRegular():
			return os.Chmod(at, 0o600) //nolint:gosec // nobody else can get into the directory
		}
		return fmt.Errorf("%s is neither file nor directory", at)
	})
}
