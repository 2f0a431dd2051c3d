package supervise

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"

	"a3os.app/tools/fleet/internal/process"
)

// Dir is the directory of one supervisor, absolute: its lock, its control socket and what it wrote down.
type Dir string

// mostSocketPath is what sockaddr_un leaves for a path on every system.
const mostSocketPath = 100

// Socket is the control socket. Where the directory's own path is too long for one, the socket is in a directory of this user's
// below the system's temporary one, named by the directory.
func (d Dir) Socket() string {
	s := filepath.Join(string(d), "control.sock")
	if len(s) <= mostSocketPath {
		return s
	}
	sum := sha256.Sum256([]byte(d))
	return filepath.Join(os.TempDir(), "a3-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(sum[:8]), "control.sock")
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
	return remove(d.unitsFile(), d.processesFile(), d.daemonFile(), d.watcherFile(), d.Socket())
}
