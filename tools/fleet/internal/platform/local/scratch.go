package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/platform"
)

// A scratch directory of a set lies below scratchDir, is called scratchPrefix, the set's name and a few characters, and has beside it a file
// of the same name and scratchLock, which is locked while somebody uses it.
const (
	scratchDir    = "rehearsals"
	scratchPrefix = "of-"
	scratchLock   = ".lock"
)

// scratch is a directory of this user's own, which the server's user can walk through, for as long as this process lives: what one that
// was killed left in such a directory, keys among it, is removed first. It is called by the set that it is of.
func (p *Platform) scratch(of string) (dir string, done func() error, err error) {
	base, err := pgserver.DirFor(p.home(scratchDir), "")
	if err != nil {
		return "", nil, err
	}
	if err := errors.Join(os.MkdirAll(base, walkable), os.Chmod(base, walkable)); err != nil {
		return "", nil, err
	}
	if _, err := clearScratch(filepath.Join(base, scratchPrefix+"*")); err != nil {
		return "", nil, err
	}
	dir = filepath.Join(base, scratchPrefix+of+"-"+strings.ToLower(rand.Text()[:10]))
	// Before the directory is there: whoever clears away takes one that nobody holds for one that was left.
	l := flock.New(dir+scratchLock, flock.SetPermissions(0o600))
	if err := l.Lock(); err != nil {
		return "", nil, err
	}
	done = func() error { return errors.Join(os.RemoveAll(dir), os.Remove(dir+scratchLock), l.Close()) }
	if err := errors.Join(os.Mkdir(dir, walkable), os.Chmod(dir, walkable)); err != nil {
		return "", nil, errors.Join(err, done())
	}
	return dir, done, nil
}

// ClearScratch removes what killed commands left in scratch directories of a home, keys among it.
func ClearScratch(home string) error {
	base, err := pgserver.DirFor(filepath.Join(home, scratchDir), "")
	if err == nil {
		_, err = clearScratch(filepath.Join(base, scratchPrefix+"*"))
	}
	return err
}

// ClearScratchOf is ClearScratch of one set; one that is used is an error, for what is in it would be left.
func (p *Platform) ClearScratchOf(s platform.Set) (changed bool, err error) {
	pattern, err := p.scratchOf(s)
	if err != nil {
		return false, err
	}
	if changed, err = clearScratch(pattern); err != nil {
		return changed, err
	}
	if held, err := filepath.Glob(pattern + scratchLock); err != nil || len(held) > 0 {
		return changed, errors.Join(err, fmt.Errorf("another command tries a backup of %s out, which holds its keys: wait until it has ended", s.Name()))
	}
	return changed, nil
}

// scratchOf matches the scratch directories of a set, and their locks.
func (p *Platform) scratchOf(s platform.Set) (pattern string, err error) {
	base, err := pgserver.DirFor(p.home(scratchDir), "")
	return filepath.Join(base, scratchPrefix+s.Name()+"-*"), err
}

func clearScratch(pattern string) (changed bool, err error) {
	locks, err := filepath.Glob(pattern + scratchLock)
	if err != nil {
		return false, err
	}
	for _, path := range locks {
		l := flock.New(path, flock.SetPermissions(0o600))
		if ok, _ := l.TryLock(); !ok {
			continue // it is somebody's
		}
		changed = true
		if os.RemoveAll(strings.TrimSuffix(path, scratchLock)) == nil {
			err = errors.Join(err, os.Remove(path))
		} // else a server in it is about to end: its turn comes with the next one
		err = errors.Join(err, l.Close())
	}
	return changed, err
}
