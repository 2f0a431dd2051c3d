// Package backup is the form in which a set is kept: parts that are encrypted under a key of that one backup, and a signed manifest that
// names them. It promises that what isn't whole doesn't look like a backup, that a part which was changed, cut short, exchanged, or is of
// another backup, set or plane is refused, that nothing is held in memory but a segment, and that a backup can't be opened once its set's
// backup key is destroyed (see key.go for who else may hold one). What is in the parts is its caller's affair.
//
// On disk a backup is DIR/<set>/<name>/ with manifest.json (DSSE, Ed25519) and a file for each part (Tink streaming AEAD,
// AES256-GCM-HKDF, segments of 1 MiB).
package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"

	"a3os.app/libs/id"
)

const (
	// form of the manifest.
	form = 1
	// manifestFile is written last.
	manifestFile = "manifest.json"
	// unfinished begins the name of what is being written; lockFile is held meanwhile, and by whoever removes.
	unfinished = ".unfinished-"
	lockFile   = ".lock"
	// verifiedFile holds the names of the backups that were restored for trial, one a line; of a release before, the newest alone.
	verifiedFile = ".verified"
	private      = 0o700
	secretMode   = 0o600
)

// ErrRefused is of a backup that can't be believed, or isn't for whom it was asked: the message says why.
var ErrRefused = errors.New("the backup is refused")

// ErrBusy is of a set whose backups another command works on: it says nothing of them.
var ErrBusy = errors.New("another command works on the backups")

func refuse(text string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(text, args...))
}

// Table is a table of the database and how many rows it had.
type Table struct {
	// Name with its schema.
	Name string `json:"name"`
	// Rows in it.
	Rows int64 `json:"rows"`
}

// Part is one encrypted file.
type Part struct {
	// Name of it, and of its file.
	Name string `json:"name"`
	// Size of the file in bytes, encrypted.
	Size int64 `json:"size"`
	// SHA256 of the file, hex.
	SHA256 string `json:"sha256"`
}

// Copied is the backup of another set that one was made of, so that it can be restored to this.
type Copied struct {
	// Set and Slug of that other tenant.
	Set  string `json:"set"`
	Slug string `json:"slug,omitempty"`
	// Backup by its name.
	Backup string `json:"backup"`
}

// Manifest says what a backup is.
type Manifest struct {
	// Form of the manifest.
	Form int `json:"form"`
	// Name of the backup: the time in UTC, and six characters, which are the nanosecond (random ones, in a backup of a release before).
	Name string `json:"name"`
	// Plane is dev or prod, and PlaneID which one.
	Plane   string `json:"plane"`
	PlaneID string `json:"plane_id"`
	// Set is `tnt_…`, or `plane`; Slug the tenant's slug.
	Set  string `json:"set"`
	Slug string `json:"slug,omitempty"`
	// Copied says what it was made of, where that is a backup of another set.
	Copied *Copied `json:"copied,omitempty"`
	// Blueprint of the set, and the release that it ran.
	Blueprint string `json:"blueprint"`
	Release   string `json:"release"`
	// TakenAt is the moment that the database is as of; what was committed before is in it.
	TakenAt time.Time `json:"taken_at"`
	// EndedAt is when everything was on disk.
	EndedAt time.Time `json:"ended_at"`
	// Postgres is the server's major version.
	Postgres int `json:"postgres,omitempty"`
	// Database is its name, and Tables what was in it.
	Database string  `json:"database,omitempty"`
	Tables   []Table `json:"tables,omitempty"`
	// DatabaseBytes is what it took on its server's disk; 0 in a backup of a release that didn't say.
	DatabaseBytes int64 `json:"database_bytes,omitempty"`
	// Checkpoint is the newest of the set's log at that moment, a signed note; empty where it has none.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Stores are what was in each of the set's; empty in a backup of a release that didn't say.
	Stores []Contents `json:"stores,omitempty"`
	// Elsewhere are the set's stores that are not in it, of a release that left those that the platform keeps where they are.
	Elsewhere []string `json:"elsewhere,omitempty"`
	// Gone are files that were removed while they were copied.
	Gone int `json:"gone,omitempty"`
	// Parts in the order in which they were written.
	Parts []Part `json:"parts"`
	// Key is the key of the parts, wrapped by the set's backup key.
	Key []byte `json:"key"`
}

// Size of all parts.
func (m *Manifest) Size() int64 {
	var n int64
	for _, p := range m.Parts {
		n += p.Size
	}
	return n
}

// PartSize is the size of a part's file in bytes, encrypted; 0 where there is no such part.
func (m *Manifest) PartSize(name string) int64 {
	for _, p := range m.Parts {
		if p.Name == name {
			return p.Size
		}
	}
	return 0
}

// bound is what the wrapped key and every part are tied to: taken to another backup, they don't open.
func (m *Manifest) bound(what string) []byte {
	return []byte(strings.Join([]string{"a3os backup v1", m.Plane, m.PlaneID, m.Set, m.Name, what}, "\x00"))
}

// Store is a directory of backups, of any number of sets.
type Store struct {
	// Dir is absolute. Whoever makes backups owns it.
	Dir string
}

var nameForm = regexp.MustCompile(`^\d{8}T\d{6}Z-[a-z2-7]{6}$`)

// nameTime begins a name, and the nanosecond within that second ends it, so that names are sorted by time: of two backups of one second, too, the newest is
// the one that is kept and shown.
const nameTime = "20060102T150405Z"

// nameDigits are those of nameForm, sorted as characters are: six of them count to 2³⁰, which is more than there are nanoseconds in a second.
const nameDigits = "234567abcdefghijklmnopqrstuvwxyz"

func newName(now time.Time) string {
	var digits [6]byte
	for i, n := len(digits)-1, now.Nanosecond(); i >= 0; i, n = i-1, n/len(nameDigits) {
		digits[i] = nameDigits[n%len(nameDigits)]
	}
	return now.UTC().Format(nameTime) + "-" + string(digits[:])
}

// Path of a backup.
func (s Store) Path(set, name string) string { return filepath.Join(s.Dir, set, name) }

// Lock makes the caller the only one who writes or removes backups of a set. One who comes second is told, and does not wait.
func (s Store) Lock(set string) (unlock func(), err error) {
	dir := filepath.Join(s.Dir, set)
	if err := errors.Join(os.MkdirAll(dir, private), os.Chmod(s.Dir, private), os.Chmod(dir, private)); err != nil {
		return nil, fmt.Errorf("make the directory of backups: %w: name another with A3_BACKUP_DIR", err)
	}
	l := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(secretMode))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the backups of %s: %w", set, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w of %s: wait until it has ended", ErrBusy, set)
	}
	return func() { _ = l.Close() }, nil
}

// Names are the backups of a set, the oldest first; what isn't whole is none.
func (s Store) Names(set string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, set))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the backups of %s: %w", set, err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && nameForm.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// Sets are those that have backups: `plane`, and tenants' ids. What else is in the directory, as the root of a disk has it, is nobody's.
func (s Store) Sets() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && isSet(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// ownSet is what the plane's own set is called; every other one is called by its tenant's id.
const ownSet = "plane"

func isSet(name string) bool {
	_, err := id.ParseTenant(name)
	return err == nil || name == ownSet
}

// ahead is by how much the name of a backup may be ahead of this machine's clock.
const ahead = 10 * time.Minute

// Verified is the newest backup of a set that was restored for trial, of those that are there; empty where none was. One from a time to come, of a
// clock that once ran ahead, is none: it would pass for the newest until then.
func (s Store) Verified(set string) (string, error) {
	names, err := s.Tried(set)
	if err != nil || len(names) == 0 {
		return "", err
	}
	return names[len(names)-1], nil
}

// Tried are the backups of a set that were restored for trial and are there, as [Store.Verified] has them, the oldest first.
func (s Store) Tried(set string) ([]string, error) {
	fail := func(err error) error {
		return fmt.Errorf("look which backups of %s were restored for trial: %w", set, err)
	}
	text, err := os.ReadFile(s.Path(set, verifiedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fail(err)
	}
	var out []string
	for _, name := range strings.Fields(string(text)) {
		if !nameForm.MatchString(name) || name > time.Now().Add(ahead).UTC().Format(nameTime) {
			continue
		}
		_, err := os.Stat(s.Path(set, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fail(err)
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// SetVerified says that a backup of the set was restored for trial, or that it could not be: the newest one that could be before is
// the newest again then. The caller holds the lock.
func (s Store) SetVerified(set, name string, well bool) error {
	names, err := s.Tried(set)
	if err != nil {
		return err
	}
	now := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
	if well {
		now = append(now, name)
	}
	if slices.Sort(now); slices.Equal(now, names) {
		return nil
	}
	if err := renameio.WriteFile(s.Path(set, verifiedFile), []byte(strings.Join(now, "\n")+"\n"), secretMode); err != nil {
		return fmt.Errorf("keep in mind which backups of %s were restored for trial: %w", set, err)
	}
	return nil
}

// Keep removes all but the newest so many backups of a set, and answers the names of those that are gone. The newest that was restored for trial
// stays, however many there are that nobody tried. The caller holds the lock.
func (s Store) Keep(set string, keep int) (gone []string, err error) {
	names, err := s.Names(set)
	if err != nil || keep < 1 || len(names) <= keep {
		return nil, err
	}
	verified, err := s.Verified(set)
	if err != nil {
		return nil, err
	}
	for _, name := range names[:len(names)-keep] {
		if name == verified {
			continue
		}
		if err := s.Discard(set, name); err != nil {
			return gone, err
		}
		gone = append(gone, name)
	}
	return gone, nil
}

// Discard removes one backup, if it is there: its name is taken from it before its files go, so that half a backup never has one. The caller
// holds the lock.
func (s Store) Discard(set, name string) error {
	aside := s.Path(set, unfinished+name)
	if err := os.Rename(s.Path(set, name), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove backup %s: %w", name, err)
	}
	return os.RemoveAll(aside)
}

// Clear removes what a killed command left. The caller holds the lock.
func (s Store) Clear(set string) error {
	left, err := filepath.Glob(s.Path(set, unfinished+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Claimed reads what a backup says of itself. Nothing vouches for it: it is for lists.
func Claimed(dir string) (*Manifest, error) {
	payload, err := claimed(dir)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(payload, m); err != nil {
		return nil, refuse("the manifest in %s can't be read: %w", dir, err)
	}
	return m, nil
}

// escrowFile holds a set's backup key, sealed to the plane's recovery key.
const escrowFile = "backup-key.escrow"

// PutEscrow puts the sealed copy of a set's backup key beside its backups. The caller holds the lock.
func (s Store) PutEscrow(set string, sealed []byte) error {
	to := s.Path(set, escrowFile)
	part := s.Path(set, unfinished+escrowFile)
	err := writeSynced(part, sealed)
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		return fmt.Errorf("keep the sealed copy of the backup key: %w", err)
	}
	return nil
}

// SetEscrowAside keeps the sealed copy of a backup key, which another is made in the place of, beside the next one's. The caller holds the lock.
func (s Store) SetEscrowAside(set string, now time.Time) error {
	from := s.Path(set, escrowFile)
	if err := os.Rename(from, from+"."+newName(now)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the sealed copy of the backup key: %w", err)
	}
	return nil
}

// Escrows reads the sealed copies of a set's backup key, from the directory of a backup: the present one's first, and those of keys before it.
func Escrows(dir string) ([][]byte, error) {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(dir), escrowFile+"*"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, refuse("there is no sealed copy of the backup key beside %s: no recovery key had been made when it was taken", dir)
	}
	var out [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// Remove removes every backup of a set, and the sealed copy of its key first. It refuses while another command works on them: what that
// one writes would be left.
func (s Store) Remove(set string) (changed bool, err error) {
	if _, err := os.Stat(filepath.Join(s.Dir, set)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	unlock, err := s.Lock(set)
	if err != nil {
		return false, err
	}
	defer unlock()
	sealed, err := filepath.Glob(s.Path(set, escrowFile) + "*")
	for _, file := range sealed {
		err = errors.Join(err, os.Remove(file))
	}
	if err != nil {
		return false, fmt.Errorf("destroy the sealed copy of the backup key of %s: %w", set, err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, set)); err != nil {
		return true, fmt.Errorf("remove the backups of %s: %w", set, err)
	}
	return true, nil
}
