package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
)

const placesDir = "backup-places"

// placeFile says that this plane's backups were kept in a directory, and so that what marks it was put there. Each has a file of its own, which
// whoever backs up in it writes alike: two commands that do at once need no lock.
func (p *Platform) placeFile(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return p.home(placesDir, hex.EncodeToString(sum[:8]))
}

func (p *Platform) keptBefore(dir string) (bool, error) {
	_, err := os.Stat(p.placeFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// BackupsThere refuses A3_BACKUP_DIR where this plane's backups were kept there and what marks it is gone: an empty mount point would take them, on
// the disk that they are to outlive, and all would be well until they are needed. A directory that none was made in yet is as good as any.
func (p *Platform) BackupsThere() error { return p.There(p.Backups()) }

// everyBackupPlace are the directories in which backups of this plane may be: where they were made from here, where the plane was told to, and where who
// works here is. Whoever takes a tenant away need not be in the shell in which its backups were made. One that isn't there is refused as
// [Platform.BackupsThere]: what is on its disk would be left.
func (p *Platform) everyBackupPlace() ([]backup.Store, error) {
	up, err := p.Settings.BroughtUp()
	if err != nil {
		return nil, err
	}
	dirs := []string{p.Settings.BackupDir, up.BackupDir}
	places, err := os.ReadDir(p.home(placesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("see where backups were kept: %w", err)
	}
	for _, e := range places {
		if strings.HasPrefix(e.Name(), ".") {
			continue // one that is just written
		}
		dir, err := os.ReadFile(p.home(placesDir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("see where backups were kept: %w", err)
		}
		dirs = append(dirs, string(dir))
	}
	slices.Sort(dirs)
	var out []backup.Store
	var away []error
	for _, dir := range slices.Compact(dirs) {
		if dir == "" {
			continue
		}
		store := backup.Store{Dir: dir}
		out, away = append(out, store), append(away, p.There(store))
	}
	return out, errors.Join(away...)
}

// There is [Platform.BackupsThere] of any directory.
func (p *Platform) There(store backup.Store) error {
	before, err := p.keptBefore(store.Dir)
	if err != nil || !before {
		return err
	}
	marked, err := store.Marked(p.State.ID)
	if marked {
		return nil
	}
	why := ""
	if err != nil {
		why = fmt.Sprintf(" (%v)", err)
	}
	return fmt.Errorf("%s is not the directory that this plane's backups were kept in, which had a mark: is its disk mounted?%s "+
		"Where another disk or an empty directory has taken its place, say so: fleet backup accept-directory %s; where it and all that was in it is no more: fleet backup accept-directory --gone %s",
		store.Dir, why, store.Dir, store.Dir)
}

// KeepBackupsHere marks A3_BACKUP_DIR as where this plane's backups are kept, unless it refuses it as [Platform.BackupsThere].
func (p *Platform) KeepBackupsHere() error {
	if err := p.BackupsThere(); err != nil {
		return err
	}
	return p.AcceptBackups(p.Backups())
}

// RecogniseBackups marks A3_BACKUP_DIR where it holds backups of the plane already, which were made before directories were marked, or on a machine
// that is lost.
func (p *Platform) RecogniseBackups() error {
	store := p.Backups()
	before, err := p.keptBefore(store.Dir)
	if err != nil || before {
		return err
	}
	names, err := store.Names(p.Own.Name())
	if err != nil || len(names) == 0 {
		return err
	}
	return p.AcceptBackups(store)
}

// ForgetBackups has a directory be none that this plane's backups are in: it is no more, nor what was in it. NotFound where none were.
func (p *Platform) ForgetBackups(store backup.Store) error {
	err := os.Remove(p.placeFile(store.Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "no backups of this plane were kept in %s, as far as this machine knows", store.Dir)
	}
	return err
}

// AcceptBackups has a directory be one that this plane's backups are kept in, whatever took its place before.
func (p *Platform) AcceptBackups(store backup.Store) error {
	if err := store.Mark(p.State.ID); err != nil {
		return err
	}
	// Last: a directory is held to the mark that it has.
	if before, err := p.keptBefore(store.Dir); err != nil || before {
		return err
	}
	return writeFile(p.placeFile(store.Dir), store.Dir)
}
