package profile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"a3os.app/libs/fault"
)

// ErrNone is returned for a profile that isn't there.
var ErrNone = fault.Declare(fault.NotFound, "NO_SUCH_PROFILE", "no such profile")

const (
	extension = ".json"
	lockEvery = 10 * time.Millisecond
)

// Store is a directory of profiles.
type Store struct {
	// Dir is the directory: `$A3_HOME/profiles`. It is made, for its owner alone, when the first profile is saved.
	Dir string
}

// In is the store of a home directory.
func In(home string) Store { return Store{Dir: filepath.Join(home, "profiles")} }

// Home is the directory that relative paths in a profile begin at.
func (s Store) Home() string { return filepath.Dir(s.Dir) }

// Path is a file that a profile names: absolute ones as they are, others below the home.
func (s Store) Path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.Home(), name)
}

// List is the names of the profiles, sorted; empty where there is no directory.
func (s Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the profiles: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), extension); ok && e.Type().IsRegular() && CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Load reads a profile. It fails with ErrNone where there is none of that name.
func (s Store) Load(name string) (*Profile, error) {
	if err := CheckName(name); err != nil {
		return nil, ErrNone.With("%s", err)
	}
	raw, err := os.ReadFile(filepath.Join(s.Dir, name+extension))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.none(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read profile %q: %w", name, err)
	}
	p := &Profile{}
	if err := json.Unmarshal(raw, p); err != nil {
		return nil, fmt.Errorf("profile %q can't be read, remove %s and sign in again with `a3 login`: %w", name, filepath.Join(s.Dir, name+extension), err)
	}
	p.Name = name
	return p, nil
}

func (s Store) none(name string) error {
	names, err := s.List()
	if err != nil || len(names) == 0 {
		return ErrNone.With("there is no profile %q in %s, nor any other: make one with `a3 --profile %s login`, or set A3_HOME", name, s.Dir, name)
	}
	return ErrNone.With("there is no profile %q, only %s: choose one with --profile", name, strings.Join(names, ", "))
}

// Save writes a profile: whoever reads it meanwhile sees the old one whole or the new one whole, also after a power cut. Hold the
// lock where what is saved rests on what was loaded.
func (s Store) Save(p *Profile) error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("write profile %q: %w", p.Name, err)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of profiles: %w", err)
	}
	if err := replace(s.Dir, p.Name+extension, append(raw, '\n')); err != nil {
		return fmt.Errorf("write profile %q: %w", p.Name, err)
	}
	return nil
}

// replace puts content in a file in one step. os.CreateTemp makes files of mode 0600.
func replace(dir, name string, content []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock keeps every other program, and every other call in this one, from the profile until unlock is called. It waits as long as
// the context does.
func (s Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of profiles: %w", err)
	}
	// The lock is on a file of its own: the profile's is replaced by every save.
	l := flock.New(filepath.Join(s.Dir, name+".lock"), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockEvery); err != nil {
		return nil, fmt.Errorf("wait for profile %q, which another program uses: %w", name, err)
	}
	return func() { _ = l.Unlock() }, nil
}

// Update loads a profile, lets change change it, and saves it, with nobody in between.
func (s Store) Update(ctx context.Context, name string, change func(*Profile) error) error {
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := s.Load(name)
	if err != nil {
		return err
	}
	if err := change(p); err != nil {
		return err
	}
	return s.Save(p)
}
