package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/state"
)

// planeFile is what a plane remembers of itself.
const planeFile = "plane.json"

// TakeUp has this machine take up a plane that was lost with another: who it is, its keys and its authorities, from a backup of its own that
// was unlocked. Until its registry and each of its tenants are restored, nothing of them is started or made anew. Killed anywhere, it is done
// again from the beginning: the key that vouches for backups is written last.
func (p *Platform) TakeUp(ctx context.Context, b *backup.Backup, key backup.Key, r Restoring) (err error) {
	dir, done, err := p.scratch(p.Own.Name())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := unpack(ctx, b, partFiles, dir); err != nil {
		return err
	}
	was, err := os.ReadFile(filepath.Join(dir, planeFile))
	if err != nil {
		return fmt.Errorf("read who the plane was: %w", err)
	}
	if err := p.clearStrays(); err != nil {
		return err
	}
	if err := p.State.TakeUp(was); err != nil {
		return err
	}
	if err := p.markRestoring(p.Own, r); err != nil {
		return err
	}
	for _, t := range p.State.Tenants() {
		if t.ID.IsZero() {
			continue // it never came to be
		}
		s := platform.Set{Tenant: t.ID, Slug: t.Slug}
		if err := p.awaitsRestore(s, r); err != nil {
			return err
		}
	}
	if err := errors.Join(p.State.Save(), p.Settle(ctx)); err != nil {
		return err
	}
	return p.layKeys(dir, key)
}

// clearStrays removes the authorities and certificates of a home that holds no plane, as somebody made there by a mistyped A3_HOME: what is put back has
// its own, and what was issued by others would be believed by nobody. The home of a plane is left as it is.
func (p *Platform) clearStrays() error {
	if state.Exists(p.Settings.Home) {
		return nil
	}
	dirs := []string{p.home("pki"), p.home("web")}
	for _, pattern := range []string{"certificate", "authority.pem"} {
		found, err := filepath.Glob(p.dir(p.Own, "components", "*", pattern))
		if err != nil {
			return err
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what a plane that isn't there left: %w: remove it, and restore again", err)
		}
	}
	return nil
}

// awaitsRestore keeps a tenant's set from being made anew, empty, before it is restored.
func (p *Platform) awaitsRestore(s platform.Set, r Restoring) error {
	names, err := p.Backups().Names(s.Name())
	if err != nil {
		return err
	}
	r.Backup, r.Dir = "", "BACKUP"
	if len(names) > 0 {
		r.Backup = names[len(names)-1]
		r.Dir = r.Backup
	}
	return p.markRestoring(s, r)
}

// layKeys lays the files of a plane's backup where the plane keeps them.
func (p *Platform) layKeys(from string, key backup.Key) error {
	vouches, err := p.ownKey(blueprint.KeyManifest)
	if err != nil {
		return err
	}
	files, last := p.kept(p.Own), "keys/"+vouches+".public"
	delete(files, planeFile)
	texts, err := blueprintsIn(from)
	if err != nil {
		return fmt.Errorf("look for the blueprints of releases: %w", err)
	}
	for name := range texts {
		files[name] = p.home(filepath.FromSlash(name))
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(name string) bool { return name == last })
	if err := writeFile(p.keyFile(p.Own, p.Own.Blueprint.Backup.Key), strings.TrimSpace(key.Text().Reveal())); err != nil {
		return err
	}
	for _, name := range append(names, last) {
		text, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a key without a public half, a plane with a certificate of its owner's
		}
		if err == nil {
			err = writeFile(files[name], string(text))
		}
		if err != nil {
			return fmt.Errorf("put %s back: %w", name, err)
		}
	}
	return nil
}
