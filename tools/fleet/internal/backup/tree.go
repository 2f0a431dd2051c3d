package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Tree packs directories into one tar. A directory may be packed more than once: the second time it takes what is new or changed since,
// so that what was there at either time, and at any moment between, is in the tar.
type Tree struct {
	// Gone counts files that were removed while they were being packed.
	Gone int

	tar  *tar.Writer
	seen map[string]version
	sums Sums
}

// version is what a file that is replaced whole differs in.
type version struct {
	inode uint64
	size  int64
	mtime int64
	// sum is of what no moment tells apart.
	sum [sha256.Size]byte
}

// NewTree packs into w.
func NewTree(w io.Writer) *Tree {
	return &Tree{tar: tar.NewWriter(w), seen: map[string]version{}, sums: Sums{}}
}

// Close ends the tar.
func (t *Tree) Close() error { return t.tar.Close() }

// Below is what was packed below a prefix, of a file that was packed twice what was packed last.
func (t *Tree) Below(prefix string) Sums {
	out := Sums{}
	for name, sum := range t.sums {
		if rel, is := strings.CutPrefix(name, prefix+"/"); is {
			out[rel] = sum
		}
	}
	return out
}

// put packs one file of a size.
func (t *Tree) put(h *tar.Header, content io.Reader) error {
	h.Typeflag, h.Mode = tar.TypeReg, secretMode
	if err := t.tar.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(t.tar, sum), io.LimitReader(content, h.Size))
	if err == nil && n != h.Size {
		err = fmt.Errorf("%s grew shorter while it was read", h.Name)
	}
	t.sums[path.Clean(h.Name)] = [sha256.Size]byte(sum.Sum(nil))
	return err
}

// Bytes packs one file of the caller's own making.
func (t *Tree) Bytes(name string, content []byte) error {
	return t.put(&tar.Header{Name: name, Size: int64(len(content))}, bytes.NewReader(content))
}

// Content packs a file that is whole in memory, unless it was packed before and is the same.
func (t *Tree) Content(name string, content []byte) error {
	sum := sha256.Sum256(content)
	v := version{size: int64(len(content)), sum: sum}
	if t.seen[name] == v {
		return nil
	}
	t.seen[name] = v
	return t.Bytes(name, content)
}

// Object packs one that is read from elsewhere, of a size and changed last at a moment, unless that was packed before. Where it is gone open
// answers nil.
func (t *Tree) Object(name string, size int64, modified time.Time, open func() (io.ReadCloser, error)) error {
	v := version{size: size, mtime: modified.UnixNano()}
	if t.seen[name] == v {
		return nil
	}
	content, err := open()
	if err != nil {
		return err
	}
	if content == nil {
		t.Gone++
		return nil
	}
	defer content.Close()
	// A store tells moments in seconds, in one of which there may be two changes: what is younger than a minute is packed again.
	if time.Since(modified) > time.Minute {
		t.seen[name] = v
	}
	return t.put(&tar.Header{Name: name, Size: size, ModTime: modified}, content)
}

// Dir packs what lies in dir under a prefix. skip, if set, names directories, relative to dir, that aren't. The process that owns dir is not
// trusted: a link, a thing that is no file, or a file of another owner is an error and is not read.
func (t *Tree) Dir(ctx context.Context, prefix, dir string, skip func(rel string) bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	defer root.Close()
	top, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	err = fs.WalkDir(root.FS(), ".", func(rel string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed since its directory was read
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.IsDir() && rel != "." && skip != nil && skip(rel):
			return fs.SkipDir
		case d.IsDir():
			return t.dir(path.Join(prefix, rel))
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither file nor directory: no program of the set makes such a thing, look who did", rel)
		}
		return t.file(root, rel, path.Join(prefix, rel), owner(top))
	})
	if err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return nil
}

func (t *Tree) dir(name string) error {
	if _, packed := t.seen[name+"/"]; packed {
		return nil
	}
	t.seen[name+"/"] = version{}
	return t.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: private})
}

func (t *Tree) file(root *os.Root, rel, name string, of uint32) error {
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Gone++
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || owner(info) != of {
		return fmt.Errorf("%s is no file of the one who owns the directory: no program of the set makes such a thing, look who did", rel)
	}
	v := versionOf(info)
	if t.seen[name] == v {
		return nil
	}
	t.seen[name] = v
	return t.put(&tar.Header{Name: name, Size: info.Size(), ModTime: info.ModTime()}, f)
}

func owner(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

func versionOf(info fs.FileInfo) version {
	v := version{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		v.inode = st.Ino
	}
	return v
}

// Each hands the files of a tar of Tree on, in the order in which they were packed: of one that was packed twice the second is the newer one.
// It is an error where r isn't whole, and what was handed on then is not to be believed.
func Each(r io.Reader, file func(name string, content io.Reader) error) error {
	return entries(r, func(h *tar.Header, content io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		if err := file(path.Clean(h.Name), content); err != nil {
			return fmt.Errorf("take %s from the backup: %w", h.Name, err)
		}
		return nil
	})
}

// entries hands each entry of a tar on, and reads what follows its end too: only then is the part known to be whole.
func entries(r io.Reader, entry func(h *tar.Header, content io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return fmt.Errorf("read files from the backup: %w", err)
		}
		if err := entry(h, tr); err != nil {
			return err
		}
	}
}

// Unpack writes a tar of Tree below dir, which is made. No name leads out of it, and nothing but files and directories is made. only, if
// set, says which first segments are wanted.
func Unpack(r io.Reader, dir string, only ...string) error {
	if err := os.MkdirAll(dir, private); err != nil {
		return fmt.Errorf("unpack into %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack into %s: %w", dir, err)
	}
	defer root.Close()
	return entries(r, func(h *tar.Header, content io.Reader) error {
		first, _, _ := strings.Cut(h.Name, "/")
		if len(only) > 0 && !slices.Contains(only, first) {
			return nil
		}
		if err := unpackOne(root, h, content); err != nil {
			return fmt.Errorf("unpack %s into %s: %w", h.Name, dir, err)
		}
		return nil
	})
}

func unpackOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, private)
	case tar.TypeReg:
	default:
		return fmt.Errorf("it is neither file nor directory (%c)", h.Typeflag)
	}
	if err := root.MkdirAll(path.Dir(name), private); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NOFOLLOW, secretMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
