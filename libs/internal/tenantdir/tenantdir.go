// Package tenantdir keeps files in a directory that belongs to one tenant and says so: a file `MARK` at its root names the tenant,
// and a directory with another mark, or none, is not opened. No name leads out of it (os.Root), a file is replaced whole or not at
// all, and nobody but its owner can read it, unless the platform gives the directory a group (setgid): then that group can read,
// which is how one user writes what another reads. It relies on its callers for the form of names, and on the file system for
// durability of what was synced.
package tenantdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"a3os.app/libs/id"
)

// MarkName is the file that says whose a directory is.
const MarkName = "MARK"

const (
	// tmpDir holds files that are being written; it lies in the same file system, so that they can be moved into place.
	tmpDir = "tmp"
	// mostMark bounds the mark that is read, in bytes.
	mostMark = 256
	// staleAfter is when a file that was never finished belongs to no living writer.
	staleAfter = time.Hour
)

// Errors that say a directory must not be used.
var (
	// ErrForeign says that a directory carries the mark of another tenant.
	ErrForeign = errors.New("it belongs to another tenant")
	// ErrUnmarked says that nothing tells whose a directory is.
	ErrUnmarked = errors.New("it carries no tenant's mark")
	// ErrOpenToOthers says that other users of the machine could read or change a directory.
	ErrOpenToOthers = errors.New("it is open to other users")
)

// Dir is an open directory of one tenant. It is safe for use by many goroutines, and by many processes.
type Dir struct {
	root     *os.Root
	tenant   id.Tenant
	fileMode fs.FileMode
	dirMode  fs.FileMode
}

// Create makes the directory, mode 0700, and marks it. On one that carries this tenant's mark already it changes nothing; one that
// carries another's is refused with [ErrForeign], and one that holds something without a mark with [ErrUnmarked].
func Create(name string, tenant id.Tenant) error {
	if tenant.IsZero() {
		return fmt.Errorf("directory %s can't be marked without a tenant", name)
	}
	if err := os.MkdirAll(name, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", tenant, err)
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return fmt.Errorf("make the directory of %s: %w", tenant, err)
	}
	defer root.Close()
	d, err := newDir(root, tenant)
	if err != nil {
		return fmt.Errorf("directory %s can't be used: %w", name, err)
	}
	switch err := d.checkMark(name); {
	case err == nil:
		return nil
	case !errors.Is(err, ErrUnmarked):
		return err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("look into %s: %w", name, err)
	}
	for _, e := range entries {
		if e.Name() != tmpDir {
			return fmt.Errorf("directory %s holds %q and no %s, so nobody knows whose it is: name an empty directory: %w", name, e.Name(), MarkName, ErrUnmarked)
		}
	}
	return d.Write(MarkName, strings.NewReader(tenant.String()+"\n"))
}

// Open opens the directory of tenant. A directory with another mark is refused with [ErrForeign], one without a mark with
// [ErrUnmarked], one that others can enter with [ErrOpenToOthers].
func Open(name string, tenant id.Tenant) (*Dir, error) {
	if tenant.IsZero() {
		return nil, fmt.Errorf("directory %s can't be opened without a tenant", name)
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("open the directory of %s: %w", tenant, err)
	}
	d, err := newDir(root, tenant)
	if err == nil {
		err = d.checkMark(name)
	}
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("directory %s can't be used: %w", name, err)
	}
	return d, nil
}

// newDir takes the modes of what will be written from the root's own.
func newDir(root *os.Root, tenant id.Tenant) (*Dir, error) {
	info, err := root.Stat(".")
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, tenant: tenant, fileMode: 0o600, dirMode: 0o700}
	mode := info.Mode()
	if mode&fs.ModeSetgid != 0 {
		d.fileMode, d.dirMode = 0o640, fs.ModeSetgid|0o750
	}
	if open := mode.Perm() &^ d.dirMode.Perm(); open != 0 {
		return nil, fmt.Errorf("its mode is %04o: chmod 700, or 2750 where a group is to read it: %w", mode.Perm(), ErrOpenToOthers)
	}
	return d, nil
}

func (d *Dir) checkMark(name string) error {
	f, err := d.root.Open(MarkName)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no file %s, this set is %s: check which directory this role was given: %w", name, MarkName, d.tenant, ErrUnmarked)
	}
	if err != nil {
		return fmt.Errorf("read the mark of %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostMark))
	if err != nil {
		return fmt.Errorf("read the mark of %s: %w", name, err)
	}
	found, err := id.ParseTenant(strings.TrimSuffix(string(b), "\n"))
	if err != nil {
		return fmt.Errorf("the mark in %s is unreadable: %w: %w", name, err, ErrUnmarked)
	}
	if found != d.tenant {
		return fmt.Errorf("%s carries the mark of tenant %s, this set is %s: check which directory this role was given: %w", name, found, d.tenant, ErrForeign)
	}
	return nil
}

// Tenant is whose directory it is.
func (d *Dir) Tenant() id.Tenant { return d.tenant }

// Close lets the directory go.
func (d *Dir) Close() error { return d.root.Close() }

// FS reads the directory. Names can't lead out of it.
func (d *Dir) FS() fs.FS { return d.root.FS() }

// Open opens a file for reading; an absent one is fs.ErrNotExist.
func (d *Dir) Open(name string) (*os.File, error) { return d.root.Open(name) }

// Stat looks at a file; an absent one is fs.ErrNotExist.
func (d *Dir) Stat(name string) (fs.FileInfo, error) { return d.root.Stat(name) }

// Write puts what content gives in the place of the file, whole: a reader sees the old content or the new, and when Write returns
// without error the new survives a loss of power. On error the old content is as it was.
func (d *Dir) Write(name string, content io.Reader) (err error) {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrInvalid}
	}
	if err := d.mkdir(tmpDir); err != nil {
		return err
	}
	tmp := path.Join(tmpDir, rand.Text())
	f, err := d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, d.fileMode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = d.root.Remove(tmp)
		}
	}()
	if err := fill(f, content, d.fileMode); err != nil {
		return err
	}
	dir := path.Dir(name)
	if err := d.mkdir(dir); err != nil {
		return err
	}
	if err := d.root.Rename(tmp, name); err != nil {
		return err
	}
	return d.sync(dir)
}

// fill writes and syncs the file, and closes it in any case.
func fill(f *os.File, content io.Reader, mode fs.FileMode) error {
	_, err := io.Copy(f, content)
	if err == nil {
		// The process's umask has narrowed the mode that the file was made with.
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Remove takes a file away; an absent one is no error.
func (d *Dir) Remove(name string) error {
	switch err := d.root.Remove(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return d.sync(path.Dir(name))
}

// Sweep takes away what writers that died left unfinished.
func (d *Dir) Sweep() error {
	entries, err := fs.ReadDir(d.root.FS(), tmpDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if info, statErr := e.Info(); statErr == nil && time.Since(info.ModTime()) > staleAfter {
			err = errors.Join(err, d.root.Remove(path.Join(tmpDir, e.Name())))
		}
	}
	return err
}

// mkdir makes a directory and those above it, each with the mode of this Dir whatever the umask, and syncs where one was made.
func (d *Dir) mkdir(name string) error {
	if name == "." {
		return nil
	}
	if info, err := d.root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	parent := path.Dir(name)
	if err := d.mkdir(parent); err != nil {
		return err
	}
	switch err := d.root.Mkdir(name, d.dirMode.Perm()); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	if err := d.root.Chmod(name, d.dirMode); err != nil {
		return err
	}
	return d.sync(parent)
}

// sync makes the entries of a directory durable.
func (d *Dir) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
