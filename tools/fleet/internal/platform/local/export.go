package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
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
	dump := func() error {
		cmd := exec.CommandContext(ctx, filepath.Join(p.binaries().Dir, "pg_dump"), "--no-owner", "--no-privileges", "--file", file) //nolint:gosec // both are the plane's own
		// The connection string is a secret, and a command line isn't one.
		if cmd.Env, err = libpq(url.Reveal()); err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("export the database of %s: %w: %s", s.Name(), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return errors.Join(dump(), done())
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

// libpq is a connection string as PostgreSQL's own programs take it from their environment.
func libpq(url string) ([]string, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the owner's file holds no connection string")
	}
	return append(dump.TLS(config.NewSecret(url)), "PGHOST="+cfg.Host, fmt.Sprintf("PGPORT=%d", cfg.Port), "PGUSER="+cfg.User, "PGPASSWORD="+cfg.Password,
		"PGDATABASE="+cfg.Database, "LC_ALL=C"), nil
}
