package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"a3os.app/libs/binding"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/tenantdir"
)

// leaf ends the name of a file that is an object. No key holds it, so `a` and `a/b` can both be objects.
const leaf = "@"

// setting is the variable by which every role is told of the store.
const setting = "A3_BLOB_DIR"

// CreateLocal makes and marks the directory of a tenant's objects, mode 0700; on one that carries the mark it changes nothing.
func CreateLocal(dir string, signer *binding.Signer, tenant id.Tenant) (changed bool, err error) {
	if changed, err = tenantdir.Create(dir, signer, binding.Mark{Tenant: tenant, Kind: binding.Objects}); err != nil {
		return false, fmt.Errorf("make the object store: %w", err)
	}
	return changed, nil
}

func open(dir string, owner *binding.Owner) (*tenantdir.Dir, error) {
	d, err := tenantdir.Open(dir, owner, binding.Mark{Kind: binding.Objects}, setting)
	if err != nil {
		return nil, fmt.Errorf("open the object store: %w", err)
	}
	return d, nil
}

// LocalReader reads from a directory.
type LocalReader struct{ dir *tenantdir.Dir }

// OpenLocalReader opens the object store of owner for reading. A directory without the owner's mark is refused.
func OpenLocalReader(dir string, owner *binding.Owner) (*LocalReader, error) {
	d, err := open(dir, owner)
	if err != nil {
		return nil, err
	}
	return &LocalReader{dir: d}, nil
}

// Close lets the directory go.
func (r *LocalReader) Close() error { return r.dir.Close() }

// Get implements Reader.
func (r *LocalReader) Get(ctx context.Context, key string) (io.ReadCloser, Info, error) {
	if err := errors.Join(ctx.Err(), CheckKey(key)); err != nil {
		return nil, Info{}, err
	}
	f, err := r.dir.Open(fileOf(r.dir.Tenant(), key))
	if err != nil {
		return nil, Info{}, readError(key, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, Info{}, errors.Join(readError(key, err), f.Close())
	}
	return f, infoOf(key, info), nil
}

// List implements Reader.
func (r *LocalReader) List(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := r.walk(ctx, "", yield); err != nil && !errors.Is(err, errStopped) {
			yield(Info{}, err)
		}
	}
}

var errStopped = errors.New("the caller has seen enough")

// walk yields what lies under the segments in prefix, in the order of keys.
func (r *LocalReader) walk(ctx context.Context, prefix string, yield func(Info, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(r.dir.FS(), path.Join(Space(r.dir.Tenant()), prefix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the objects under %q: %w", prefix, err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(orderOf(a), orderOf(b)) })
	for _, e := range entries {
		if e.IsDir() {
			if err := r.walk(ctx, path.Join(prefix, e.Name()), yield); err != nil {
				return err
			}
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the directory was read
		}
		if err != nil {
			return fmt.Errorf("list the objects under %q: %w", prefix, err)
		}
		if !yield(infoOf(path.Join(prefix, strings.TrimSuffix(e.Name(), leaf)), info), nil) {
			return errStopped
		}
	}
	return nil
}

// orderOf makes a directory and a file compare as the keys do that they stand for.
func orderOf(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return strings.TrimSuffix(e.Name(), leaf)
}

// LocalWriter writes into a directory. Many processes may: of two Puts at once, one stands.
type LocalWriter struct {
	dir  *tenantdir.Dir
	most int64
}

// OpenLocalWriter opens the object store of owner for writing objects of at most mostBytes. A directory without the owner's mark is
// refused.
func OpenLocalWriter(dir string, owner *binding.Owner, mostBytes int64) (*LocalWriter, error) {
	if mostBytes <= 0 {
		return nil, fmt.Errorf("open the object store: a bound of %d bytes lets nothing in", mostBytes)
	}
	d, err := open(dir, owner)
	if err != nil {
		return nil, err
	}
	if err := d.Sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("clean the object store: %w", err), d.Close())
	}
	return &LocalWriter{dir: d, most: mostBytes}, nil
}

// Close lets the directory go.
func (w *LocalWriter) Close() error { return w.dir.Close() }

// Put implements Writer.
func (w *LocalWriter) Put(ctx context.Context, key string, content io.Reader) (Info, error) {
	if err := errors.Join(ctx.Err(), CheckKey(key)); err != nil {
		return Info{}, err
	}
	name := fileOf(w.dir.Tenant(), key)
	bounded := Bounded(ctx, content, w.most)
	if err := w.dir.Write(name, bounded); err != nil {
		if why := bounded.Err(); why != nil {
			return Info{}, why
		}
		return Info{}, fmt.Errorf("store the object %s: %w", key, err)
	}
	info, err := w.dir.Stat(name)
	if err != nil {
		return Info{}, fmt.Errorf("look at the stored object %s: %w", key, err)
	}
	return infoOf(key, info), nil
}

// Delete implements Writer.
func (w *LocalWriter) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), CheckKey(key)); err != nil {
		return err
	}
	if err := w.dir.Remove(fileOf(w.dir.Tenant(), key)); err != nil {
		return fmt.Errorf("delete the object %s: %w", key, err)
	}
	return nil
}

func readError(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return fmt.Errorf("read the object %s: %w", key, err)
}

func infoOf(key string, info fs.FileInfo) Info {
	return Info{Key: key, Size: info.Size(), Modified: info.ModTime()}
}

// Space is where in the directory of a store the objects of a tenant are.
func Space(tenant id.Tenant) string { return "objects/" + tenant.String() }

func fileOf(tenant id.Tenant, key string) string { return Space(tenant) + "/" + key + leaf }

// KeyOf is the key of an object by its file in a tenant's store that is a directory, or in a backup of one that isn't; false of a file that no
// key has.
func KeyOf(tenant id.Tenant, file string) (string, bool) {
	if key, is := strings.CutPrefix(file, Space(tenant)+"/"); is {
		return strings.CutSuffix(key, leaf)
	}
	return strings.CutPrefix(file, "objects/")
}
