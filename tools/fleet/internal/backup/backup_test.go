package backup_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"a3os.app/libs/config"
	"a3os.app/tools/fleet/internal/backup"
)

// world is a plane's keys and its directory of backups.
type world struct {
	store         backup.Store
	whose         backup.Whose
	signKey       string
	key, otherKey backup.Key
}

func newKey(t *testing.T) backup.Key {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	key, err := backup.ParseKey(config.NewSecret(base64.StdEncoding.EncodeToString(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newWorld(t *testing.T) *world {
	t.Helper()
	private, public, err := backup.NewManifestKey("dev")
	if err != nil {
		t.Fatal(err)
	}
	return &world{store: backup.Store{Dir: filepath.Join(t.TempDir(), "backups")}, whose: backup.Whose{Plane: "dev", ID: "one", ManifestKey: public},
		signKey: private, key: newKey(t), otherKey: newKey(t)}
}

const set = "tnt_a"

// content is longer than two segments of the encryption.
var content = bytes.Repeat([]byte("what a tenant has "), 150_000)

// write makes a backup of two parts and answers its directory.
func (w *world) write(t *testing.T, of string) string {
	t.Helper()
	unlock, err := w.store.Lock(of)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	wr, err := w.store.Begin(w.key, &backup.Manifest{Plane: w.whose.Plane, PlaneID: w.whose.ID, Set: of}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"database", "stores"} {
		part, err := wr.Part(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(append([]byte(name), content...)); err != nil {
			t.Fatal(err)
		}
		if err := part.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := wr.Commit(t.Context(), w.signKey, time.Now()); err != nil {
		t.Fatal(err)
	}
	return w.store.Path(of, wr.Manifest.Name)
}

// read reads a backup to its end, as a restore does.
func (w *world) read(t *testing.T, dir string, key backup.Key) error {
	t.Helper()
	b, err := backup.Open(t.Context(), dir, w.whose)
	if err != nil {
		return err
	}
	if err := b.Unlock(key); err != nil {
		return err
	}
	checked := b.Check(t.Context())
	for _, p := range b.Manifest.Parts {
		r, err := b.Part(t.Context(), p.Name)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
		if !bytes.Equal(got, append([]byte(p.Name), content...)) {
			t.Errorf("part %s reads as something else, without an error", p.Name)
		}
	}
	return checked
}

func TestBackupReadsAsItWasWritten(t *testing.T) {
	w := newWorld(t)
	if err := w.read(t, w.write(t, set), w.key); err != nil {
		t.Fatal(err)
	}
}

// What was changed, cut short, exchanged, or is somebody else's, is refused, and each by a sentence that says what it is.
func TestWhatIsNotTheBackupIsRefused(t *testing.T) {
	file := func(dir, name string) string { return filepath.Join(dir, name) }
	flip := func(t *testing.T, path string, at int) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			at += len(text)
		}
		text[at] ^= 1
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T, w *world, dir string) string
		says string
	}{
		"a byte of a part changed":    {func(t *testing.T, _ *world, dir string) string { flip(t, file(dir, "database"), 1<<20); return dir }, "not what was encrypted"},
		"last byte of a part changed": {func(t *testing.T, _ *world, dir string) string { flip(t, file(dir, "database"), -1); return dir }, "not what was encrypted"},
		"a part cut short": {func(t *testing.T, _ *world, dir string) string {
			if err := os.Truncate(file(dir, "stores"), 1<<20); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "cut short"},
		"a part gone": {func(t *testing.T, _ *world, dir string) string {
			if err := os.Remove(file(dir, "stores")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "can't be read"},
		"two parts exchanged": {func(t *testing.T, _ *world, dir string) string {
			for _, move := range [][2]string{{"stores", "x"}, {"database", "stores"}, {"x", "database"}} {
				if err := os.Rename(file(dir, move[0]), file(dir, move[1])); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}, "manifest says"},
		"a part of another backup": {func(t *testing.T, w *world, dir string) string {
			other := w.write(t, set)
			if err := os.Rename(file(other, "stores"), file(dir, "stores")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "not what was encrypted"},
		"a file too many": {func(t *testing.T, _ *world, dir string) string {
			if err := os.WriteFile(file(dir, "more"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "doesn't name"},
		"a byte of the manifest changed": {func(t *testing.T, _ *world, dir string) string {
			text, err := os.ReadFile(file(dir, "manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			// Base64 that decodes to something else.
			i := bytes.Index(text, []byte(`"payload": "`)) + len(`"payload": "`) + 40
			text[i] ^= 1
			if err := os.WriteFile(file(dir, "manifest.json"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "changed since it was signed"},
		"no manifest": {func(t *testing.T, _ *world, dir string) string {
			if err := os.Remove(file(dir, "manifest.json")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "holds no backup"},
		"another name": {func(t *testing.T, _ *world, dir string) string {
			to := filepath.Join(filepath.Dir(dir), "20990101T000000Z-aaaaaa")
			if err := os.Rename(dir, to); err != nil {
				t.Fatal(err)
			}
			return to
		}, "keeps its name"},
		"another plane's": {func(t *testing.T, w *world, _ string) string {
			other := newWorld(t)
			dir := other.write(t, set)
			w.key = other.key
			return dir
		}, "another plane"},
		"signed by this plane and made for another one": {func(t *testing.T, w *world, _ string) string {
			mine := w.whose
			w.whose.ID = "two"
			dir := w.write(t, set)
			w.whose = mine
			return dir
		}, "is of plane"},
		"the key of another set": {func(_ *testing.T, w *world, dir string) string { w.key = w.otherKey; return dir }, "does not open with the backup key"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir := c.do(t, w, w.write(t, set))
			err := w.read(t, dir, w.key)
			if !errors.Is(err, backup.ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it is answered by %v, want a refusal that says %q", err, c.says)
			}
		})
	}
}

// A backup that was not finished has no name, the next one clears it away, and what is there before stays.
func TestUnfinishedBackupIsNone(t *testing.T) {
	w := newWorld(t)
	w.write(t, set)
	wr, err := w.store.Begin(w.key, &backup.Manifest{Plane: "dev", PlaneID: "one", Set: set}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	part, err := wr.Part("database")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := wr.Commit(t.Context(), w.signKey, time.Now()); err == nil {
		t.Error("a backup with an open part can be finished")
	}
	if names, err := w.store.Names(set); err != nil || len(names) != 1 {
		t.Errorf("there are the backups %q (%v), want the one that was finished", names, err)
	}
	w.write(t, set)
	entries, err := os.ReadDir(filepath.Join(w.store.Dir, set))
	if err != nil {
		t.Fatal(err)
	}
	const lockAndTwo = 3
	if len(entries) != lockAndTwo {
		t.Errorf("%d things lie beside the two backups and the lock: what was unfinished is not cleared away", len(entries)-lockAndTwo)
	}
}

// Backups of one second have an order, too: the one that was made last is the one that is kept and shown.
func TestBackupsOfOneSecondHaveTheirOrder(t *testing.T) {
	w := newWorld(t)
	unlock, err := w.store.Lock(set)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	second := time.Date(2026, 9, 1, 3, 0, 0, 0, time.UTC)
	var made []string
	for _, after := range []time.Duration{0, 1, 31, 32, time.Microsecond, time.Millisecond, 2 * time.Millisecond, 40 * time.Millisecond, time.Second / 2, time.Second - 1} {
		m := &backup.Manifest{Plane: "dev", PlaneID: "one", Set: set}
		b, err := w.store.Begin(w.key, m, second.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(t.Context(), w.signKey, second.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		made = append(made, m.Name)
	}
	if names, err := w.store.Names(set); err != nil || !slices.Equal(names, made) {
		t.Errorf("made in this order:\n%q\nand listed, the oldest first (%v):\n%q", made, err, names)
	}
}

func TestOldestBackupsGoFirst(t *testing.T) {
	w := newWorld(t)
	var dirs []string
	for range 3 {
		dirs = append(dirs, filepath.Base(w.write(t, set)))
	}
	before, err := w.store.Names(set)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := w.store.Keep(set, 2)
	if err != nil || len(gone) != 1 || gone[0] != before[0] {
		t.Errorf("of %q the backups %q are removed (%v), want the oldest", dirs, gone, err)
	}
}

// However many there are that nobody tried, or that could not be restored: one that is known to be good stays.
func TestNewestBackupThatWasTriedOutStays(t *testing.T) {
	w := newWorld(t)
	for range 4 {
		w.write(t, set)
	}
	names, err := w.store.Names(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, told := range []struct {
		name string
		well bool
		want string
	}{{names[0], true, names[0]}, {names[1], true, names[1]}, {names[0], true, names[1]}, {names[2], false, names[1]}} {
		if err := w.store.SetVerified(set, told.name, told.well); err != nil {
			t.Fatal(err)
		}
		if got, err := w.store.Verified(set); err != nil || got != told.want {
			t.Errorf("of %q, after the trial of %s (%v) the newest good one is %q (%v), want %s", names, told.name, told.well, got, err, told.want)
		}
	}
	gone, err := w.store.Keep(set, 1)
	if err != nil || !slices.Equal(gone, []string{names[0], names[2]}) {
		t.Errorf("of %q, the second of which was tried out, %q are removed (%v)", names, gone, err)
	}
	if err := w.store.SetVerified(set, names[1], false); err != nil {
		t.Fatal(err)
	}
	if gone, err = w.store.Keep(set, 1); err != nil || !slices.Equal(gone, []string{names[1]}) {
		t.Errorf("found bad at last, it is kept: removed are %q (%v)", gone, err)
	}
	if err := errors.Join(w.store.SetVerified(set, names[3], true), w.store.Discard(set, names[3])); err != nil {
		t.Fatal(err)
	}
	if got, err := w.store.Verified(set); err != nil || got != "" {
		t.Errorf("one that is not there passes for the newest good one: %q (%v)", got, err)
	}
}

// Where the newest backup turns out to be bad, the one before, which was good, is the newest good one: it is not removed, nor is another one due for want
// of any.
func TestBackupBeforeTheOneThatTurnsOutBadIsTheNewestGoodOne(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.write(t, set)
	}
	names, err := w.store.Names(set)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.store.SetVerified(set, names[0], true), w.store.SetVerified(set, names[1], true), w.store.SetVerified(set, names[1], false))
	if got, verified := w.store.Verified(set); err != nil || verified != nil || got != names[0] {
		t.Errorf("the newest good one of %q is %q (%v, %v), want the first", names, got, err, verified)
	}
	if gone, err := w.store.Keep(set, 1); err != nil || !slices.Equal(gone, names[1:2]) {
		t.Errorf("of %q, the first of which is good, %q are removed (%v)", names, gone, err)
	}
}

// A clock that once ran ahead leaves backups from a time to come. They put off nothing, and what is made after them takes their place.
func TestBackupFromATimeToComeIsNotTheNewest(t *testing.T) {
	w := newWorld(t)
	unlock, err := w.store.Lock(set)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, at := range []time.Time{time.Now().AddDate(1, 0, 0), time.Now()} {
		m := &backup.Manifest{Plane: "dev", PlaneID: "one", Set: set, TakenAt: at}
		b, err := w.store.Begin(w.key, m, at)
		if err = errors.Join(err, b.Commit(t.Context(), w.signKey, at)); err != nil {
			t.Fatal(err)
		}
		names = append(names, m.Name)
	}
	unlock()
	for i, want := range []string{"", names[1]} {
		if err := w.store.SetVerified(set, names[i], true); err != nil {
			t.Fatal(err)
		}
		if got, err := w.store.Verified(set); err != nil || got != want {
			t.Errorf("after the trial of %s of %q the newest good one is %q (%v), want %q", names[i], names, got, err, want)
		}
	}
}

func TestOneBackupIsDiscardedAlsoTwice(t *testing.T) {
	w := newWorld(t)
	bad, good := filepath.Base(w.write(t, set)), filepath.Base(w.write(t, set))
	for range 2 {
		if err := w.store.Discard(set, bad); err != nil {
			t.Fatal(err)
		}
		if left, err := w.store.Names(set); err != nil || len(left) != 1 || left[0] != good {
			t.Errorf("of %s and %s are left %q: %v", bad, good, left, err)
		}
	}
}

func TestSecondCommandIsToldOfTheFirst(t *testing.T) {
	w := newWorld(t)
	unlock, err := w.store.Lock(set)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Lock(set); !errors.Is(err, backup.ErrBusy) || !strings.Contains(err.Error(), "another command") {
		t.Errorf("a second command gets %v, want to be told of the first", err)
	}
	unlock()
	if unlock, err = w.store.Lock(set); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// The recovery key opens the sealed copy of the set that it was made for, and of no other; nothing but the recovery key does.
func TestRecoveryKeyOpensWhatWasSealedToIt(t *testing.T) {
	w := newWorld(t)
	r, public, err := backup.NewRecovery("dev", "one", w.whose.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := backup.NewRecovery("dev", "one", w.whose.ManifestKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := w.write(t, set)
	sealed, err := backup.SealKey(public, w.key, "dev", "one", set)
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.Release(sealed, set)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.read(t, dir, key); err != nil {
		t.Errorf("the key that the recovery key released does not open the backup: %v", err)
	}
	if _, err := r.Release(sealed, "tnt_b"); !errors.Is(err, backup.ErrRefused) {
		t.Errorf("a copy sealed for one set opens for another: %v", err)
	}
	if _, err := stranger.Release(sealed, set); !errors.Is(err, backup.ErrRefused) {
		t.Errorf("another recovery key opens it: %v", err)
	}
	elsewhere := r
	elsewhere.PlaneID = "two"
	if _, err := elsewhere.Release(sealed, set); !errors.Is(err, backup.ErrRefused) {
		t.Errorf("a copy sealed at one plane opens for another: %v", err)
	}
}

// A store's process is not believed: what it could put there to have another's file read is refused.
func TestTreeTakesNothingButFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of root"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(dir string) error{
		"a link to a file outside":      func(dir string) error { return os.Symlink(secret, filepath.Join(dir, "x")) },
		"a link to a directory outside": func(dir string) error { return os.Symlink(filepath.Dir(secret), filepath.Join(dir, "x")) },
		"a pipe":                        func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "x"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := plant(dir); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := backup.NewTree(&out).Dir(t.Context(), "store", dir, nil); err == nil || strings.Contains(out.String(), "of root") {
				t.Errorf("it is packed, %v", err)
			}
		})
	}
}

// Packed twice, a directory is in the tar as it was at either time.
func TestTreePackedTwiceHasBoth(t *testing.T) {
	dir, out := t.TempDir(), &bytes.Buffer{}
	put := func(name, text string) {
		t.Helper()
		// A file is replaced whole, as stores do.
		part := filepath.Join(dir, ".new")
		if err := errors.Join(os.WriteFile(part, []byte(text), 0o600), os.Rename(part, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	put("goes", "1")
	put("stays", "1")
	put("changes", "1")
	tree := backup.NewTree(out)
	if err := tree.Dir(t.Context(), "s", dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "goes")); err != nil {
		t.Fatal(err)
	}
	put("changes", "2")
	put("comes", "2")
	if err := errors.Join(tree.Dir(t.Context(), "s", dir, nil), tree.Close()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "s/stays"); n != 1 {
		t.Errorf("a file that didn't change is packed %d times", n)
	}
	to := t.TempDir()
	if err := backup.Unpack(bytes.NewReader(out.Bytes()), to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"goes": "1", "stays": "1", "changes": "2", "comes": "2"} {
		if got, err := os.ReadFile(filepath.Join(to, "s", name)); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
}

// What is removed while it is written would be left by whoever writes it.
func TestBackupsAreNotRemovedWhileOneIsMade(t *testing.T) {
	store := backup.Store{Dir: filepath.Join(t.TempDir(), "backups")}
	unlock, err := store.Lock("acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Remove("acme"); err == nil || !strings.Contains(err.Error(), "another command works") {
		t.Errorf("removed while one is made: %v, want a refusal", err)
	}
	unlock()
	if changed, err := store.Remove("acme"); err != nil || !changed {
		t.Errorf("removed afterwards: %v, %v", changed, err)
	}
	if left, err := os.ReadDir(store.Dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
