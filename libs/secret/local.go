package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/internal/tenantdir"
)

// setting is the variable by which every role is told of the store.
const setting = "A3_SECRET_DIR"

// CreateLocal makes and marks the directory of a tenant's secrets, mode 0700; on one that carries the mark it changes nothing. The
// mark names the key that the store is sealed to, so that a role with another's key is refused and does not find out one by one.
func CreateLocal(dir string, signer *binding.Signer, tenant id.Tenant, publicKey string) (changed bool, err error) {
	key, err := KeyID(publicKey)
	if err != nil {
		return false, err
	}
	if changed, err = tenantdir.Create(dir, signer, binding.Mark{Tenant: tenant, Kind: binding.Secrets, Key: key}); err != nil {
		return false, fmt.Errorf("make the secret store: %w", err)
	}
	return changed, nil
}

// openDir opens the directory as the store that is sealed to a key.
func openDir(dir string, owner *binding.Owner, publicKey string) (*tenantdir.Dir, error) {
	key, err := KeyID(publicKey)
	if err != nil {
		return nil, err
	}
	d, err := tenantdir.Open(dir, owner, binding.Mark{Kind: binding.Secrets, Key: key}, setting)
	if err != nil {
		return nil, fmt.Errorf("open the secret store: %w", err)
	}
	return d, nil
}

// LocalWriter writes into a directory. Many processes may: of two Puts at once, one stands.
type LocalWriter struct {
	dir  *tenantdir.Dir
	seal *Sealer
	put  sync.Mutex
}

// OpenLocalWriter opens the secret store of owner for writing, with the public half of its key. A directory without the owner's mark,
// or sealed to another key, is refused.
func OpenLocalWriter(dir string, owner *binding.Owner, publicKey string) (*LocalWriter, error) {
	seal, err := NewSealer(publicKey)
	if err != nil {
		return nil, err
	}
	d, err := openDir(dir, owner, publicKey)
	if err != nil {
		return nil, err
	}
	if err := d.Sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("clean the secret store: %w", err), d.Close())
	}
	return &LocalWriter{dir: d, seal: seal}, nil
}

// Close lets the directory go.
func (w *LocalWriter) Close() error { return w.dir.Close() }

// Put implements Writer.
func (w *LocalWriter) Put(ctx context.Context, path Path, value config.Secret) error {
	if err := errors.Join(ctx.Err(), path.Check(w.dir.Tenant()), CheckValue(value)); err != nil {
		return err
	}
	w.put.Lock()
	defer w.put.Unlock()
	last, err := w.version(path)
	if err != nil {
		return fmt.Errorf("store the secret of %s: %w", path, err)
	}
	// Versions are microseconds, so that they grow past a Delete and, but for a clock turned back, between processes.
	version := max(last+1, time.Now().UnixMicro())
	file, err := w.seal.Seal(path, version, value)
	if err != nil {
		return err
	}
	if err := w.dir.Write(fileOf(path), bytes.NewReader(file)); err != nil {
		return fmt.Errorf("store the secret of %s: %w", path, err)
	}
	return nil
}

// Delete implements Writer.
func (w *LocalWriter) Delete(ctx context.Context, path Path) error {
	if err := errors.Join(ctx.Err(), path.Check(w.dir.Tenant())); err != nil {
		return err
	}
	if err := w.dir.Remove(fileOf(path)); err != nil {
		return fmt.Errorf("delete the secret of %s: %w", path, err)
	}
	return nil
}

// version is that of what lies at path now; 0 where nothing, or nothing readable, does.
func (w *LocalWriter) version(path Path) (int64, error) {
	f, err := w.dir.Open(fileOf(path))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var header [headerSize]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return 0, nil //nolint:nilerr // a broken file is replaced, and the clock gives the version
	}
	v, ok := versionOf(header[:])
	// Nobody vouches for the number: one from the future would leave no room to count on.
	if !ok || v > time.Now().Add(time.Hour).UnixMicro() {
		return 0, nil
	}
	return v, nil
}

// LocalReader reads from a directory.
type LocalReader struct {
	dir  *tenantdir.Dir
	open *Opener
}

// OpenLocalReader opens the secret store of owner for reading, with the private half of its key. A directory without the owner's
// mark, or sealed to another key, is refused.
func OpenLocalReader(dir string, owner *binding.Owner, privateKey config.Secret) (*LocalReader, error) {
	open, err := NewOpener(privateKey)
	if err != nil {
		return nil, err
	}
	d, err := openDir(dir, owner, open.PublicKey())
	if err != nil {
		return nil, err
	}
	return &LocalReader{dir: d, open: open}, nil
}

// Close lets the directory go.
func (r *LocalReader) Close() error { return r.dir.Close() }

// Get implements Reader.
func (r *LocalReader) Get(ctx context.Context, path Path) (config.Secret, int64, error) {
	if err := errors.Join(ctx.Err(), path.Check(r.dir.Tenant())); err != nil {
		return config.Secret{}, 0, err
	}
	f, err := r.dir.Open(fileOf(path))
	if errors.Is(err, fs.ErrNotExist) {
		return config.Secret{}, 0, ErrNotFound
	}
	if err != nil {
		return config.Secret{}, 0, fmt.Errorf("read the secret of %s: %w", path, err)
	}
	defer f.Close()
	file, err := io.ReadAll(io.LimitReader(f, int64(mostFile)+1))
	if err != nil {
		return config.Secret{}, 0, fmt.Errorf("read the secret of %s: %w", path, err)
	}
	return r.open.Open(path, file)
}

// Where a store has its files, below its directory, and how their names end.
const (
	filesDir = "secrets/"
	fileEnd  = ".sealed"
)

func fileOf(p Path) string { return filesDir + p.String() + fileEnd }

// FileOf is where a store that is a directory has what is sealed for a path; PathOf the path by it.
func FileOf(p Path) string { return fileOf(p) }

// PathOf is false of a file that no path has.
func PathOf(file string) (Path, bool) {
	name, is := strings.CutPrefix(file, filesDir)
	name, ends := strings.CutSuffix(name, fileEnd)
	p, err := ParsePath(name)
	return p, is && ends && err == nil
}
