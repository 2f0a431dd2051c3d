// Package image makes container images without a registry or a build daemon: from files of this machine, FROM scratch, and the same bytes
// for the same files, wherever and whenever it is done. An image is known by its id, the digest of its configuration, which covers every
// byte of its layers; names and tags are never used. It relies on its caller for which files belong in.
package image

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Spec is what an image holds.
type Spec struct {
	// Files by their absolute path in the image: where each is on this machine. A link on the way is followed.
	Files map[string]string
	// Volumes are directories that who runs it writes into, whatever is mounted there: an engine that mounts an empty volume gives it the
	// owner and mode that the directory has in the image.
	Volumes []string
	// Entrypoint is the program, and Env what it is told by the image.
	Entrypoint []string
	Env        []string
	// User is whom it runs as where nobody says otherwise, numeric.
	User string
	// Architecture is what its programs are for, as Go calls it; empty for this machine's.
	Architecture string
}

// Modes of what is in an image: readable for whoever runs there, and changeable for nobody.
const (
	fileMode = 0o444
	execMode = 0o555
	ownMode  = 0o700
)

// Image is an image that was made.
type Image struct{ image v1.Image }

// Build makes an image. Times, owners, order and compression are fixed, so that its id depends on paths and bytes alone.
func Build(s Spec) (Image, error) {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return s.stream(), nil }, tarball.WithCompressionLevel(gzip.NoCompression))
	if err != nil {
		return Image{}, fmt.Errorf("make the layer: %w", err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer})
	if err != nil {
		return Image{}, fmt.Errorf("make the image: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return Image{}, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Author, file.History = "linux", cmp.Or(s.Architecture, runtime.GOARCH), "", nil
	file.Config = v1.Config{Entrypoint: s.Entrypoint, Env: s.Env, User: s.User, WorkingDir: "/"}
	for _, dir := range s.Volumes {
		if file.Config.Volumes == nil {
			file.Config.Volumes = map[string]struct{}{}
		}
		file.Config.Volumes[dir] = struct{}{}
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return Image{}, fmt.Errorf("configure the image: %w", err)
	}
	return Image{image: img}, nil
}

// ID is `sha256:` and 64 hexadecimal digits: what an engine calls the image.
func (i Image) ID() (string, error) {
	h, err := i.image.ConfigName()
	return h.String(), err
}

// Manifest is what a registry calls the image: the digest of its manifest.
func (i Image) Manifest() (string, error) {
	h, err := i.image.Digest()
	return h.String(), err
}

// Push puts the image into a repository of a registry, under its digest and under no tag.
func (i Image) Push(ctx context.Context, repository string, auth authn.Authenticator) (changed bool, err error) {
	digest, err := i.Manifest()
	if err != nil {
		return false, err
	}
	ref, err := name.NewDigest(repository + "@" + digest)
	if err != nil {
		return false, err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuth(auth)}
	if _, err := remote.Head(ref, options...); err == nil {
		return false, nil
	}
	return true, remote.Write(ref, i.image, options...)
}

// Write writes the image in the form that `docker load` takes, without any name.
func (i Image) Write(w io.Writer) error {
	digest, err := i.image.Digest()
	if err != nil {
		return err
	}
	ref, err := name.NewDigest("image@" + digest.String())
	if err != nil {
		return err
	}
	return tarball.Write(ref, i.image, w)
}

// stream is the layer as a tar.
func (s Spec) stream() io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		out := tar.NewWriter(w)
		w.CloseWithError(errors.Join(s.write(out), out.Close()))
	}()
	return r
}

func (s Spec) write(out *tar.Writer) error {
	entries := map[string]string{}
	for to, from := range s.Files {
		if !path.IsAbs(to) || path.Clean(to) != to {
			return fmt.Errorf("%q is not the absolute path of a file in an image", to)
		}
		entries[to] = from
	}
	for _, dir := range s.Volumes {
		entries[dir] = ""
	}
	for to := range maps.Clone(entries) {
		for dir := path.Dir(to); dir != "/"; dir = path.Dir(dir) {
			if entries[dir] != "" {
				return fmt.Errorf("%s is a file in the image and can't hold %s", dir, to)
			}
			entries[dir] = ""
		}
	}
	for _, to := range slices.Sorted(maps.Keys(entries)) {
		if err := s.writeEntry(out, to, entries[to]); err != nil {
			return fmt.Errorf("put %s into the image: %w", to, err)
		}
	}
	return nil
}

// writeEntry writes a directory, where from is empty, or a file.
func (s Spec) writeEntry(out *tar.Writer, to, from string) error {
	header := &tar.Header{Name: strings.TrimPrefix(to, "/"), Format: tar.FormatUSTAR}
	if slices.Contains(s.Volumes, to) {
		// The user is numeric, as in "65534:65534".
		if _, err := fmt.Sscanf(s.User, "%d:%d", &header.Uid, &header.Gid); err != nil {
			return fmt.Errorf("whose a volume is, %q, is no user and group: %w", s.User, err)
		}
		header.Name, header.Typeflag, header.Mode = header.Name+"/", tar.TypeDir, ownMode
		return out.WriteHeader(header)
	}
	if from == "" {
		header.Name, header.Typeflag, header.Mode = header.Name+"/", tar.TypeDir, execMode
		return out.WriteHeader(header)
	}
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", from)
	}
	header.Typeflag, header.Size, header.Mode = tar.TypeReg, info.Size(), fileMode
	if info.Mode()&0o111 != 0 {
		header.Mode = execMode
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(out, file)
	return err
}

// AddTree adds the files below a directory of this machine, at the same paths; skip says what stays out.
func (s *Spec) AddTree(dir string, skip func(path string) bool) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case skip != nil && skip(p) && d.IsDir():
			return filepath.SkipDir
		case skip != nil && skip(p), d.IsDir():
			return nil
		}
		if info, err := os.Stat(p); err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // a link to nowhere, or to a directory that is walked elsewhere
		}
		s.Add(p)
		return nil
	})
}

// Add adds a file of this machine at the same path.
func (s *Spec) Add(file string) {
	if s.Files == nil {
		s.Files = map[string]string{}
	}
	s.Files[file] = cmp.Or(s.Files[file], file)
}
