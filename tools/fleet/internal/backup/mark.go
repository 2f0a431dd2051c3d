package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// markOf begins the name of the file that says whose backups a directory holds; the plane's id follows. It is on the disk that they are on: where
// that isn't mounted, it isn't there.
const markOf = ".backups-of-"

// Marked says whether the directory is one that this plane's backups are kept in, by [Store.Mark].
func (s Store) Marked(plane string) (bool, error) {
	_, err := os.Stat(filepath.Join(s.Dir, markOf+plane))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look whether backups are kept in %s: %w", s.Dir, err)
	}
	return true, nil
}

// Mark has the directory say that a plane's backups are kept in it, and makes it where it isn't there. A copy of the directory says so too.
func (s Store) Mark(plane string) error {
	marked, err := s.Marked(plane)
	if err != nil || marked {
		return err
	}
	if err := errors.Join(os.MkdirAll(s.Dir, private), os.Chmod(s.Dir, private)); err != nil {
		return fmt.Errorf("make the directory of backups: %w: name another with A3_BACKUP_DIR", err)
	}
	text := "Backups of plane " + plane + " are kept here. By this file fleet sees that the disk is mounted which they are on.\n"
	if err := renameio.WriteFile(filepath.Join(s.Dir, markOf+plane), []byte(text), secretMode); err != nil {
		return fmt.Errorf("mark the directory of backups: %w: name another with A3_BACKUP_DIR", err)
	}
	return nil
}
