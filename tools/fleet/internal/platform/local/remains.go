package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
)

// Remains implements platform.Platform: it looks at the supervisor, at the server's catalogue, below every directory of the plane for
// a name that has the tenant's id in it, and at what the plane remembers.
func (p *Platform) Remains(ctx context.Context, s platform.Set) ([]string, error) {
	if s.Tenant.IsZero() {
		return nil, errors.New("the plane's own set is removed with the plane")
	}
	units, err := p.units(ctx, s)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, u := range units {
		out = append(out, "process "+u.Name)
	}
	kept, err := p.Kept(ctx, s)
	return append(out, kept...), err
}

// Kept is what is left of a set in its database server, among the plane's files and in what is remembered.
func (p *Platform) Kept(ctx context.Context, s platform.Set) (out []string, err error) {
	if p.hasOwnServer(s) {
		dir, err := p.ownServerDir(s)
		if err != nil {
			return nil, err
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			out = append(out, "database server "+dir)
		}
	} else if s.Blueprint.Database != nil {
		admin, err := p.connect(ctx, s, "postgres")
		if err != nil {
			return nil, err
		}
		defer admin.Close(context.WithoutCancel(ctx))
		databases, roles, err := p.catalogue(ctx, admin, s)
		if err != nil {
			return nil, err
		}
		for _, d := range databases {
			out = append(out, "database "+d)
		}
		for _, r := range roles {
			out = append(out, "role "+r)
		}
	}
	scratch, err := pgserver.DirFor(p.home(scratchDir), "")
	if err != nil {
		return nil, err
	}
	for _, root := range []string{p.served("tenants"), p.home("log"), p.home("run"), p.home("restoring"), scratch} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if strings.Contains(filepath.Base(path), s.Name()) {
				out = append(out, "file "+path)
				if d != nil && d.IsDir() {
					return fs.SkipDir
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	places, err := p.everyBackupPlace()
	if err != nil {
		return nil, err
	}
	for _, store := range places {
		// What is another's there, as lost+found is where it is the root of a disk, is nobody's to look into.
		entries, err := os.ReadDir(store.Dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for backups of %s: %w", s.Name(), err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), s.Name()) {
				out = append(out, "file "+filepath.Join(store.Dir, e.Name()))
			}
		}
	}
	return append(out, p.State.Mentions(s.Name())...), nil
}

// Shared implements platform.Platform.
func (p *Platform) Shared(s platform.Set) []string {
	out := []string{
		"the registry keeps its id, names, labels and account, its licences, the checkpoints of its log, when backups of it were made and restored, and the history " +
			"of who did what when, and so do backups of the registry, which hold what it reported as well until the last of before is deleted",
		"the gateway holds, signed by the registry, that this id left, until it takes all routes anew",
		"the plane's own logs keep its id until they are rotated out", "the export is whole until whoever it was handed to has it and it is deleted here",
		"a copy of the backups that somebody made elsewhere opens with the recovery key, where one was made",
	}
	if s.Blueprint.Database != nil && !p.hasOwnServer(s) {
		out = append(out, "the catalogue of the database server that it shared, and its statistics, hold the names of its database and roles, which are its id, until they are written over",
			"the write-ahead log of the database server that it shared keeps what it wrote until those segments are recycled")
	}
	return out
}
