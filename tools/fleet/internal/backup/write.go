package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// Writer writes one backup. It has no name to others until Commit.
type Writer struct {
	// Manifest is its caller's to fill in, but for the name, the parts and the key.
	Manifest *Manifest
	// Room, where it is set, is asked before anything is written, and again each few MiB: its error ends the part.
	Room func() error

	store Store
	dir   string
	aead  tink.StreamingAEAD
	open  []*partWriter
	// granted is how many bytes may be written until Room is asked again.
	granted int
}

// Begin begins a backup of m.Set. The caller holds the set's lock until Commit or Abandon.
func (s Store) Begin(key Key, m *Manifest, now time.Time) (*Writer, error) {
	if err := s.Clear(m.Set); err != nil {
		return nil, fmt.Errorf("clear away an unfinished backup: %w", err)
	}
	m.Form, m.Name = form, newName(now)
	aead, err := key.newPartsKey(m)
	if err != nil {
		return nil, err
	}
	w := &Writer{Manifest: m, store: s, dir: s.Path(m.Set, unfinished+m.Name), aead: aead}
	if err := os.Mkdir(w.dir, private); err != nil {
		return nil, fmt.Errorf("begin the backup: %w", err)
	}
	return w, nil
}

// Part begins the next part. It counts once it is closed without an error.
func (w *Writer) Part(name string) (io.WriteCloser, error) {
	file, err := os.OpenFile(filepath.Join(w.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, secretMode)
	if err != nil {
		return nil, fmt.Errorf("write part %s: %w", name, err)
	}
	p := &partWriter{w: w, name: name, file: file, sum: sha256.New()}
	if p.seal, err = w.aead.NewEncryptingWriter(io.MultiWriter(rationed{w}, file, p.sum, &p.size), w.Manifest.bound("part "+name)); err != nil {
		return nil, errors.Join(fmt.Errorf("encrypt part %s: %w", name, err), file.Close())
	}
	w.open = append(w.open, p)
	return p, nil
}

// Ration is how many bytes of a backup are written, at most, from one question for room to the next.
const Ration = 4 << 20

// rationed stands before the file: what there is no room for isn't written.
type rationed struct{ w *Writer }

// Write implements io.Writer.
func (r rationed) Write(p []byte) (int, error) {
	if r.w.granted < len(p) && r.w.Room != nil {
		if err := r.w.Room(); err != nil {
			return 0, err
		}
		r.w.granted = max(Ration, len(p))
	}
	r.w.granted -= len(p)
	return len(p), nil
}

type counter int64

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

type partWriter struct {
	w    *Writer
	name string
	file *os.File
	seal io.WriteCloser
	sum  hash.Hash
	size counter
}

// Write implements io.Writer.
func (p *partWriter) Write(b []byte) (int, error) { return p.seal.Write(b) }

// Close writes the last segment, without which the part is refused as cut short.
func (p *partWriter) Close() error {
	err := p.seal.Close()
	if err == nil {
		err = p.file.Sync()
	}
	if err = errors.Join(err, p.file.Close()); err != nil {
		return fmt.Errorf("write part %s: %w", p.name, err)
	}
	p.w.open = slices.DeleteFunc(p.w.open, func(o *partWriter) bool { return o == p })
	p.w.Manifest.Parts = append(p.w.Manifest.Parts, Part{Name: p.name, Size: int64(p.size), SHA256: hex.EncodeToString(p.sum.Sum(nil))})
	return nil
}

// Commit signs the manifest, and gives the backup its name when everything is on disk.
func (w *Writer) Commit(ctx context.Context, signKey string, now time.Time) error {
	if len(w.open) > 0 {
		return errors.New("a part of the backup is not closed")
	}
	w.Manifest.EndedAt = now
	payload, err := json.MarshalIndent(w.Manifest, "", " ")
	if err != nil {
		return err
	}
	signed, err := sign(ctx, payload, signKey)
	if err != nil {
		return err
	}
	to := w.store.Path(w.Manifest.Set, w.Manifest.Name)
	err = errors.Join(writeSynced(filepath.Join(w.dir, manifestFile), signed), syncDir(w.dir))
	if err == nil {
		err = os.Rename(w.dir, to)
	}
	if err == nil {
		err = syncDir(filepath.Dir(to))
	}
	if err != nil {
		return fmt.Errorf("finish the backup: %w", err)
	}
	return nil
}

// Abandon removes what was written.
func (w *Writer) Abandon() error {
	for _, p := range w.open {
		_ = p.file.Close()
	}
	return os.RemoveAll(w.dir)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, secretMode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
