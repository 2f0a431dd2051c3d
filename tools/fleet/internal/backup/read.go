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

	"github.com/tink-crypto/tink-go/v2/tink"
)

// Backup is one whose manifest was believed.
type Backup struct {
	// Manifest of it.
	Manifest *Manifest
	// Dir it lies in.
	Dir string
	// Digest is the SHA-256 of the manifest as it was signed, `sha256:…`: of another backup under the same name it is another.
	Digest string

	aead tink.StreamingAEAD
}

// Whose is the plane that a backup has to be of.
type Whose struct {
	// Plane is dev or prod, and ID which one.
	Plane, ID string
	// ManifestKey verifies its manifests.
	ManifestKey string
}

// Open reads a backup's manifest and holds it to the plane that asks: one that isn't signed by it is refused, as is one of another plane
// or under another name. The parts are held to the manifest as they are read, or by Check.
func Open(ctx context.Context, dir string, whose Whose) (*Backup, error) {
	payload, err := signedManifest(ctx, dir, whose)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(payload, m); err != nil {
		return nil, refuse("the manifest in %s can't be read: %w", dir, err)
	}
	switch {
	case m.Form != form:
		return nil, refuse("the manifest in %s has form %d and this program knows %d: use the program that wrote it", dir, m.Form, form)
	case m.Plane != whose.Plane || m.PlaneID != whose.ID:
		return nil, refuse("%s is of plane %s (%s), and this is %s (%s)", dir, m.Plane, m.PlaneID, whose.Plane, whose.ID)
	case m.Name != filepath.Base(dir) || !nameForm.MatchString(m.Name):
		return nil, refuse("%s holds backup %s: a backup keeps its name, since that is what it was made under", dir, m.Name)
	}
	sum := sha256.Sum256(payload)
	return &Backup{Manifest: m, Dir: dir, Digest: "sha256:" + hex.EncodeToString(sum[:])}, nil
}

// Unlock has the parts be read with the set's backup key.
func (b *Backup) Unlock(key Key) (err error) {
	b.aead, err = key.partsKey(b.Manifest)
	return err
}

// Check holds every part to the manifest, without any key.
func (b *Backup) Check(ctx context.Context) error {
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		return fmt.Errorf("look into backup %s: %w", b.Manifest.Name, err)
	}
	for _, e := range entries {
		if e.Name() != manifestFile && !slices.ContainsFunc(b.Manifest.Parts, func(p Part) bool { return p.Name == e.Name() }) {
			return refuse("%s holds %s, which its manifest doesn't name", b.Dir, e.Name())
		}
	}
	for _, p := range b.Manifest.Parts {
		f, err := b.open(p)
		if err != nil {
			return err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, reader{ctx, f})
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read part %s: %w", p.Name, err)
		}
		if err := p.match(sum); err != nil {
			return err
		}
	}
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context //nolint:containedctx // it is as long as the read
	r   io.Reader
}

// Read implements io.Reader.
func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (p Part) match(sum hash.Hash) error {
	if have := hex.EncodeToString(sum.Sum(nil)); have != p.SHA256 {
		return refuse("part %s has the digest %s, and the manifest says %s: it was changed or damaged", p.Name, have, p.SHA256)
	}
	return nil
}

func (b *Backup) open(p Part) (*os.File, error) {
	if filepath.Base(p.Name) != p.Name {
		return nil, refuse("%q is no name of a part", p.Name)
	}
	f, err := os.Open(filepath.Join(b.Dir, p.Name))
	if err != nil {
		return nil, refuse("part %s can't be read: %w", p.Name, err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != p.Size) {
		err = refuse("part %s has %d bytes, and the manifest says %d: it was cut short or exchanged", p.Name, info.Size(), p.Size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Has says whether there is a part of a name.
func (b *Backup) Has(name string) bool {
	return slices.ContainsFunc(b.Manifest.Parts, func(p Part) bool { return p.Name == name })
}

// Part reads a part. Each segment is authentic when it is read; whether it is the last one shows at the end, so that nothing may be made
// of what was read before io.EOF.
func (b *Backup) Part(ctx context.Context, name string) (io.ReadCloser, error) {
	i := slices.IndexFunc(b.Manifest.Parts, func(p Part) bool { return p.Name == name })
	if i < 0 || b.aead == nil {
		return nil, refuse("there is no part %s in %s, or it wasn't unlocked", name, b.Dir)
	}
	f, err := b.open(b.Manifest.Parts[i])
	if err != nil {
		return nil, err
	}
	plain, err := b.aead.NewDecryptingReader(reader{ctx, f}, b.Manifest.bound("part "+name))
	if err != nil {
		return nil, errors.Join(refuse("part %s can't be opened: %w", name, err), f.Close())
	}
	return &partReader{plain: plain, file: f, name: name}, nil
}

type partReader struct {
	plain io.Reader
	file  *os.File
	name  string
}

// Read implements io.Reader.
func (p *partReader) Read(b []byte) (int, error) {
	n, err := p.plain.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = refuse("part %s is not what was encrypted: %w", p.name, err)
	}
	return n, err
}

// Close implements io.Closer.
func (p *partReader) Close() error { return p.file.Close() }
