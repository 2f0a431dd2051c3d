package docker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/supervise"
)

// Where a container finds what it is given.
const (
	// secretsDir is read-only, certificateDir its own to renew, stateDir and storeDir keep what outlives it.
	secretsDir     = "/run/a3"
	certificateDir = secretsDir + "/certificate"
	stateDir       = "/var/lib/a3"
	storeDir       = "/stores/"
)

// runRoot holds the tmpfs of each plane, by its id.
const runRoot = "/run/a3"

// SecretsDir is the plane's tmpfs: what containers read of its secrets is in memory, and gone with the machine's power.
func (p *Platform) SecretsDir() string { return filepath.Join(runRoot, p.State.ID) }

// secrets are what one container reads: files that are its user's alone, in a directory that is root's.
type secrets struct {
	dir       string
	component string
	user      *supervise.User
	// files by their name below dir: what each holds.
	files map[string][]byte
	// from are files of the machine, by name.
	from map[string]string
	// certificate is the directory of the keypair on the machine; empty where it has none.
	certificate string
	// lent says that this process mounts nothing: who holds the plane's power has done it before.
	lent bool
}

func (p *Platform) secretsOf(s platform.Set, component string, user *supervise.User) (*secrets, error) {
	if err := p.mountSecrets(); err != nil {
		return nil, err
	}
	return p.secretsAt(s.Name(), component, user), nil
}

func (p *Platform) secretsAt(group, component string, user *supervise.User) *secrets {
	return &secrets{dir: filepath.Join(p.SecretsDir(), group, component), component: component, user: user, files: map[string][]byte{}, from: map[string]string{}, lent: p.door != nil}
}

// ownPlace is the directory of a container that it writes its renewed certificate into.
func (s *secrets) ownPlace() string { return filepath.Join(s.dir, ownName) }

const ownName = "certificate"

// mountPlace has the directory that a container may write into be a small tmpfs: in the plane's, whoever broke into one container could
// keep every other one from its next certificate.
func (s *secrets) mountPlace() error {
	if err := s.makeDir(s.dir); err != nil {
		return err
	}
	const private = 0o700
	return mountOwn(s.ownPlace(), s.user.UID, s.user.GID, private)
}

// unmountPlace takes it away with what is in it. It is for who holds the plane's power.
func unmountPlace(dir string) error {
	own := filepath.Join(dir, ownName)
	if _, err := os.Lstat(own); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmount(own); err != nil {
		return fmt.Errorf("take away %s, which its container wrote into: %w", own, err)
	}
	return errors.Join(os.RemoveAll(own), os.RemoveAll(filepath.Join(dir, given)))
}

// mountPlaces does so for each component of a set, before it is given anything.
func (p *Platform) mountPlaces(ctx context.Context, s platform.Set) error {
	if err := p.mountSecrets(); err != nil {
		return err
	}
	for _, c := range s.Blueprint.Components {
		user, err := p.Machine.User(ctx, s, c.Name)
		if err == nil {
			err = p.secretsAt(s.Name(), c.Name, user).mountPlace()
		}
		if err != nil {
			return fmt.Errorf("the place of what %s of %s reads: %w", c.Name, s.Name(), err)
		}
	}
	return nil
}

// takeAway removes what components of a set read, once their containers are gone. A process that got the platform delegated removes what
// is below it; what is mounted there was taken away by whom it had stop them.
func (p *Platform) takeAway(s platform.Set, components ...string) error {
	var errs []error
	for _, c := range components {
		dir := filepath.Join(p.secretsPlace(s), c)
		if p.door == nil {
			errs = append(errs, unmountPlace(dir))
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// file has a file of the machine be there under a name, and answers where the container finds it.
func (s *secrets) file(from, name string) string {
	s.from[name] = from
	return secretsDir + "/" + name
}

// text has a text be there under a name.
func (s *secrets) text(text, name string) { s.files[name] = []byte(text) }

// put writes what is not there as it should be. A file that changes is replaced whole, for whoever reads it may do so at that moment.
func (s *secrets) put() error {
	for name, from := range s.from {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		s.files[name] = text
	}
	if err := s.makeDir(s.dir); err != nil {
		return err
	}
	for name, text := range s.files {
		if err := s.write(filepath.Join(s.dir, name), text); err != nil {
			return err
		}
	}
	return s.putCertificate()
}

func (s *secrets) write(path string, text []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	if err := s.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return s.replace(path, text)
}

// makeDir makes a directory that is the user's to look into, and root's to change.
func (s *secrets) makeDir(dir string) error {
	const walkable, readable = 0o711, 0o750
	if err := os.MkdirAll(dir, walkable); err != nil {
		return err
	}
	return errors.Join(os.Lchown(dir, 0, int(s.user.GID)), os.Chmod(dir, readable))
}

func (s *secrets) replace(path string, text []byte) error {
	const readable = 0o400
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(readable))
	if err != nil {
		return err
	}
	defer func() { _ = file.Cleanup() }()
	if err := file.Chown(int(s.user.UID), int(s.user.GID)); err != nil {
		return err
	}
	if _, err := file.Write(text); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// given is a file of root's that says which keypair the container was given last.
const given = "certificate.given"

// putCertificate copies the keypair, where that is a newer one than was given last. What is in the directory by now is the container's
// own doing, and isn't read: it renews its certificate itself, and what is made for it anew lives longer than that.
func (s *secrets) putCertificate() error {
	if s.certificate == "" {
		return nil
	}
	pair, err := os.ReadFile(filepath.Join(s.certificate, "workload.pem"))
	if err != nil {
		return fmt.Errorf("the certificate that was made for it: %w", err)
	}
	sum := sha256.Sum256(pair)
	mark := []byte(hex.EncodeToString(sum[:]))
	if have, err := os.ReadFile(filepath.Join(s.dir, given)); err == nil && bytes.Equal(have, mark) {
		return nil
	}
	dir := s.ownPlace()
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) && !s.lent {
		if err := s.mountPlace(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(s.certificate)
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(s.certificate, e.Name()))
		if err == nil {
			err = s.replace(filepath.Join(dir, e.Name()), text)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(os.Lchown(dir, int(s.user.UID), int(s.user.GID)), os.WriteFile(filepath.Join(s.dir, given), mark, 0o400))
}

func (s *secrets) mounts() []container.Mount {
	out := []container.Mount{{From: s.dir, To: secretsDir, ReadOnly: true}}
	if s.certificate != "" {
		out = append(out, container.Mount{From: s.ownPlace(), To: certificateDir, Own: true})
	}
	return out
}

func (s *secrets) takeAway() error { return os.RemoveAll(s.dir) }

// secretsPlace holds what a set's containers read.
func (p *Platform) secretsPlace(s platform.Set) string {
	return filepath.Join(p.SecretsDir(), s.Name())
}

// forgetSecrets takes away what a set's containers read. The place of it is the plane's to remove.
func (p *Platform) forgetSecrets(s platform.Set) error {
	if p.door != nil {
		_, err := local.Empty(p.secretsPlace(s))
		return err
	}
	entries, err := os.ReadDir(p.secretsPlace(s))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := unmountPlace(filepath.Join(p.secretsPlace(s), e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(p.secretsPlace(s))
}

// Unmount takes the plane's tmpfs away with everything in it.
func (p *Platform) unmountSecrets() (changed bool, err error) {
	dir := p.SecretsDir()
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := unmount(dir); err != nil {
		return false, fmt.Errorf("take away the secrets of the plane's containers in %s: %w", dir, err)
	}
	return true, os.Remove(dir)
}
