// Package tenantdir keeps files in a directory that belongs to one tenant and says so: a file `MARK` at its root is the tenant's mark
// (package binding), and a directory with another mark, or none, is not opened. No name leads out of it (os.Root), a file is replaced
// whole or not at all, and nobody but its owner can read it, unless the platform gives the directory a group (setgid): then that
// group can read, which is how one user writes what another reads. It relies on its callers for the form of names, and on the file
// system for durability of what was synced.
package tenantdir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"a3os.app/libs/binding"
	"a3os.app/libs/id"
)

// MarkName is the file that says whose a directory is.
const MarkName = "MARK"

const (
	// tmpDir holds files that are being written; it lies in the same file system, so that they can be moved into place.
	tmpDir = "tmp"
	// staleAfter is when a file that was never finished belongs to no living writer.
	staleAfter = time.Hour
)

// Dir is an open directory of one tenant. It is safe for use by many goroutines, and by many processes.
type Dir struct {
	root     *os.Root
	tenant   id.Tenant
	fileMode fs.FileMode
	dirMode  fs.FileMode
	// owner, want and place are what the mark is held to.
	owner *binding.Owner
	want  binding.Mark
	place binding.Place
}

// Create makes the directory, mode 0700, and puts the mark on it. On one that carries this very mark already it changes nothing, and an
// earlier mark of the same tenant gives way to it. One that carries another's is refused with [binding.ErrForeign], and one that
// holds something without a mark with [binding.ErrUnmarked].
func Create(name string, signer *binding.Signer, m binding.Mark) (changed bool, err error) {
	if m.Tenant.IsZero() {
		return false, fmt.Errorf("directory %s can't be marked without a tenant", name)
	}
	mark, err := signer.Sign(m)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(name, 0o700); err != nil {
		return false, fmt.Errorf("make the directory of %s: %w", m.Tenant, err)
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return false, fmt.Errorf("make the directory of %s: %w", m.Tenant, err)
	}
	defer root.Close()
	d := &Dir{root: root, tenant: m.Tenant, place: binding.Place{What: "directory " + name}}
	if err := d.modes(); err != nil {
		return false, err
	}
	found, err := d.readMark()
	if err != nil {
		return false, err
	}
	switch found {
	case mark:
		return false, nil
	case "":
		if err := d.empty(); err != nil {
			return false, err
		}
	default:
		if whose := claimed(found); whose != m.Tenant.String() {
			return false, binding.Refuse(binding.ErrForeign, "directory %s carries the mark of %s, and not of %s: name an empty directory", name, whose, m.Tenant)
		}
	}
	return true, d.Write(MarkName, strings.NewReader(mark))
}

// claimed is whose a mark says a directory is. Marks of the first form were a tenant's id and nothing else.
func claimed(mark string) string {
	if first, err := id.ParseTenant(strings.TrimSuffix(mark, "\n")); err == nil {
		return first.String()
	}
	m, err := binding.Claimed(mark)
	if err != nil || m.Tenant.IsZero() {
		return "nobody"
	}
	return m.Tenant.String()
}

// empty fails where the directory holds anything.
func (d *Dir) empty() error {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("look into %s: %w", d.place.What, err)
	}
	for _, e := range entries {
		if e.Name() != tmpDir {
			return binding.Refuse(binding.ErrUnmarked, "%s holds %q and no %s, so nobody knows whose it is: name an empty directory", d.place.What, e.Name(), MarkName)
		}
	}
	return nil
}

// Open opens the directory of owner, which holds it from then on. want is the mark that the directory has to carry; setting is the
// variable that named it. One with another mark, with none, or open to others is refused with an error of package binding.
func Open(name string, owner *binding.Owner, want binding.Mark, setting string) (*Dir, error) {
	if owner == nil || owner.Tenant().IsZero() {
		return nil, fmt.Errorf("directory %s can't be opened without a tenant", name)
	}
	place := binding.Place{What: "directory " + name, Setting: setting}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("open the directory of %s: %w: check %s", owner, err, setting)
	}
	d := &Dir{root: root, tenant: owner.Tenant(), owner: owner, want: want, place: place}
	if err := d.Prove(context.Background()); err != nil {
		_ = root.Close()
		return nil, err
	}
	owner.Hold(d)
	return d, nil
}

// Prove implements binding.Resource: the mark is the owner's, nobody else can enter, and nothing of another tenant lies in it.
func (d *Dir) Prove(context.Context) error {
	if err := d.modes(); err != nil {
		return err
	}
	mark, err := d.readMark()
	if err != nil {
		return err
	}
	if err := d.owner.Check(d.want, mark, d.place); err != nil {
		return err
	}
	spaces, err := fs.Glob(d.root.FS(), "*/tnt_*")
	if err != nil {
		return fmt.Errorf("look into %s: %w", d.place.What, err)
	}
	for _, space := range spaces {
		if path.Base(space) != d.tenant.String() && path.Dir(space) != tmpDir {
			return binding.Refuse(binding.ErrReach, "%s holds %s, which is another tenant's, and this set is %s: check %s", d.place.What, space, d.tenant, d.place.Setting)
		}
	}
	return nil
}

// modes takes the modes of what will be written from the root's own, and refuses a root that others can enter.
func (d *Dir) modes() error {
	info, err := d.root.Stat(".")
	if err != nil {
		return fmt.Errorf("look at %s: %w", d.place.What, err)
	}
	d.fileMode, d.dirMode = 0o600, 0o700
	mode := info.Mode()
	if mode&fs.ModeSetgid != 0 {
		d.fileMode, d.dirMode = 0o640, fs.ModeSetgid|0o750
	}
	if open := mode.Perm() &^ d.dirMode.Perm(); open != 0 {
		return binding.Refuse(binding.ErrReach, "%s is open to other users of the machine, its mode is %04o: chmod 700, or 2750 where a group is to read it", d.place.What, mode.Perm())
	}
	return nil
}

// readMark is what the file says; empty where there is none.
func (d *Dir) readMark() (string, error) {
	f, err := d.root.Open(MarkName)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the mark of %s: %w", d.place.What, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, binding.MostBytes+1))
	if err != nil {
		return "", fmt.Errorf("read the mark of %s: %w", d.place.What, err)
	}
	return string(b), nil
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
	if err := d.give(f); err != nil {
		return errors.Join(err, f.Close())
	}
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

// give makes a file that root writes, as a mark that takes the place of an earlier one, the directory's owner's: all that is in it is.
func (d *Dir) give(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
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
