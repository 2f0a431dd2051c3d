package supervise

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/gofrs/flock"

	"a3os.app/tools/fleet/internal/process"
)

// Dir is the directory of one supervisor, absolute: its lock, its control socket and what it wrote down.
type Dir string

// mostSocketPath is what sockaddr_un leaves for a path on every system.
const mostSocketPath = 100

// Socket is the control socket. Where the directory's own path is too long for one, the socket is in a directory of this user's alone,
// named by the directory: in /run where root has one, and else in /tmp, whatever the environment of who asks names.
func (d Dir) Socket() string {
	s := filepath.Join(string(d), "control.sock")
	if len(s) <= mostSocketPath {
		return s
	}
	sum := sha256.Sum256([]byte(d))
	return filepath.Join(places(), "a3-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(sum[:8]), "control.sock")
}

func places() string {
	const roots, everybodys = "/run", "/tmp"
	if info, err := os.Stat(roots); os.Getuid() == 0 && err == nil && info.IsDir() {
		return roots
	}
	return everybodys
}

// place is the directory of a control socket that is in none of the supervisor's own; empty where it is in that.
func (d Dir) place() string {
	if dir := filepath.Dir(d.Socket()); dir != filepath.Clean(string(d)) {
		return dir
	}
	return ""
}

// makePlace makes the directory of the control socket, where it has one, and fails as ownPlace does.
func (d Dir) makePlace() error {
	if d.place() == "" {
		return nil
	}
	if err := os.Mkdir(d.place(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the directory of the control socket: %w", err)
	}
	return d.ownPlace()
}

// ownPlace refuses a directory of the control socket that isn't this user's alone. Its name is known to everybody and may be anybody's to make: who
// owns it can put a socket of their own there, to which the control key would be said. It fails with fs.ErrNotExist where there is none.
func (d Dir) ownPlace() error {
	place := d.place()
	if place == "" {
		return nil
	}
	info, err := os.Lstat(place)
	if err != nil {
		return fmt.Errorf("look at the directory of the control socket: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int64(st.Uid) != int64(os.Getuid()) || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a directory of this user's alone, and the control socket would be there, for %s is too long for one: somebody else may have made it; remove it, or choose a shorter A3_HOME", place, d)
	}
	return nil
}

// removeSocket removes the control socket, and its directory where it has one that is this user's.
func (d Dir) removeSocket() error {
	switch err := d.ownPlace(); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if err := remove(d.Socket()); err != nil || d.place() == "" {
		return err
	}
	return remove(d.place())
}

func (d Dir) lockFile() string      { return filepath.Join(string(d), "supervisor.lock") }
func (d Dir) watcherLock() string   { return filepath.Join(string(d), "watcher.lock") }
func (d Dir) daemonFile() string    { return filepath.Join(string(d), "supervisor.json") }
func (d Dir) watcherFile() string   { return filepath.Join(string(d), "watcher.json") }
func (d Dir) unitsFile() string     { return filepath.Join(string(d), "units.json") }
func (d Dir) processesFile() string { return filepath.Join(string(d), "processes.json") }

// take makes this process the one of the directory that holds a lock file. It fails with errTaken.
func (d Dir) take(lock string) (release func(), err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("make the supervisor's directory: %w", err)
	}
	l := flock.New(lock, flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the supervisor's directory: %w", err)
	}
	if !ok {
		return nil, errTaken
	}
	return func() { _ = l.Close() }, nil
}

var errTaken = errors.New("another supervisor runs already")

// Daemon is the supervisor that took the directory last; the zero ID where none did, or it ended in good order.
func (d Dir) Daemon() (process.ID, error) {
	var id process.ID
	return id, read(d.daemonFile(), &id)
}

// Watcher is who starts the supervisor again; the zero ID where there is none.
func (d Dir) Watcher() (process.ID, error) {
	var id process.ID
	return id, read(d.watcherFile(), &id)
}

// Processes is what the supervisor started and had not seen end.
func (d Dir) Processes() (map[string]process.ID, error) {
	out := map[string]process.ID{}
	return out, read(d.processesFile(), &out)
}

// Wanted says that there is something to keep: a supervisor which isn't there ended without being asked to.
func (d Dir) Wanted() bool {
	_, err := os.Stat(d.unitsFile())
	return err == nil
}

func (d Dir) units() ([]Unit, error) {
	var out []Unit
	return out, read(d.unitsFile(), &out)
}

// read reads JSON; a file that isn't there leaves the value as it is.
func read(path string, into any) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Forget removes what a supervisor wrote down, when nothing of it runs any longer.
func (d Dir) Forget() error {
	return errors.Join(remove(d.unitsFile(), d.processesFile(), d.daemonFile(), d.watcherFile()), d.removeSocket())
}
