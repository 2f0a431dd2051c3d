package pgserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating system user that the server runs as. The zero ids with other == false mean this process's own.
type account struct {
	name     string
	uid, gid uint32
	other    bool
}

func serverAccount(name string) (account, error) {
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("look up this process's user: %w", err)
		}
		if name != "" && name != me.Username {
			return account{}, fmt.Errorf("PostgreSQL can't run as %s when this process runs as %s: start it as root, or leave the user unset", name, me.Username)
		}
		return accountOf(me)
	}
	candidates := []string{"postgres", "nobody"}
	if name != "" {
		candidates = []string{name}
	}
	for _, candidate := range candidates {
		u, err := user.Lookup(candidate)
		if errors.As(err, new(user.UnknownUserError)) {
			continue
		}
		if err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", candidate, err)
		}
		acc, err := accountOf(u)
		if err != nil {
			return account{}, err
		}
		if acc.uid == 0 {
			return account{}, fmt.Errorf("PostgreSQL refuses to run as root and %s has user id 0: name another user", candidate)
		}
		acc.other = true
		return acc, nil
	}
	return account{}, fmt.Errorf("PostgreSQL refuses to run as root and none of the users %q exists: create one, or work as an ordinary user", candidates)
}

// runsAs is the user of the server itself.
func (s *Server) runsAs() account {
	if s.cfg.UID == 0 || !s.account.other {
		return s.account
	}
	return account{uid: s.cfg.UID, gid: s.cfg.UID, other: true}
}

// handOver gives the data to the user of the server, where another one made them.
func (s *Server) handOver(data string) error {
	to := s.runsAs()
	if to == s.account {
		return nil
	}
	return filepath.WalkDir(data, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, to.own(path))
	})
}

func accountOf(u *user.User) (account, error) {
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return account{}, fmt.Errorf("read the ids of user %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

func (a account) credential() *syscall.Credential {
	if !a.other {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own gives a path to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// makeDir makes a directory of the account's own, or leaves one that exists as it is.
func (a account) makeDir(path string, mode os.FileMode) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil { // the umask may have taken bits away
		return err
	}
	return a.own(path)
}

// reaches says whether the account can walk to path: whether it may search every directory above it that exists.
func (a account) reaches(path string) bool {
	for dir := filepath.Dir(resolve(path)); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !a.searches(info) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// guarded says whether nobody but root and the account can exchange path: each directory above it that exists belongs to one of them,
// and is writable for nobody else, or sticky as /tmp is.
func (a account) guarded(path string) bool {
	const others = 0o022
	for dir := filepath.Dir(resolve(path)); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil {
			stat, ok := info.Sys().(*syscall.Stat_t)
			if !ok || stat.Uid != 0 && stat.Uid != a.uid || info.Mode().Perm()&others != 0 && info.Mode()&os.ModeSticky == 0 {
				return false
			}
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func (a account) searches(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	mode := info.Mode().Perm()
	switch {
	case stat.Uid == a.uid:
		return mode&0o100 != 0
	case stat.Gid == a.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// resolve follows the links in as much of an absolute path as there is, so that a path has one answer before and after it is made.
func resolve(path string) string {
	if followed, err := filepath.EvalSymlinks(path); err == nil {
		return followed
	}
	if path == filepath.Dir(path) {
		return path
	}
	return filepath.Join(resolve(filepath.Dir(path)), filepath.Base(path))
}

// DirFor is where what the server must reach can live when one would like it at dir (absolute): dir itself, unless this
// process is root and the user that the server then runs as (see Config.User) can't walk there, as with a checkout under
// /root or in a home directory of mode 0700, or somebody else could exchange a directory on the way. Then it is /var/lib/a3/<name>-<hash of dir>: outside every home, kept over
// restarts, and the same for the same dir each time. Whoever removes dir removes that too.
func DirFor(dir, userName string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("directory %q is not absolute: give the full path", dir)
	}
	acc, err := serverAccount(userName)
	if err != nil {
		return "", err
	}
	if !acc.other {
		return dir, nil
	}
	return acc.placeFor(dir), nil
}

// PlaceForOthers is where data lie that could not lie where they were wished.
const PlaceForOthers = "/var/lib/a3"

// DirForOthers is DirFor for users who own nothing on the way to dir (absolute), whoever they are.
func DirForOthers(dir string) string {
	const nobodys = 1<<32 - 2
	return account{uid: nobodys, gid: nobodys, other: true}.placeFor(dir)
}

// placeFor is dir, or where it can be instead.
func (a account) placeFor(dir string) string {
	if a.reaches(dir) && a.guarded(dir) {
		return dir
	}
	dir = resolve(dir)
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(PlaceForOthers, filepath.Base(dir)+"-"+hex.EncodeToString(sum[:6]))
}
