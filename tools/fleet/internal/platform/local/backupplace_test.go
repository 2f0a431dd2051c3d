package local_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// The disk of backups drops off, or isn't mounted after a start: what is left is its mount point, empty, on the disk whose loss backups are for. None is
// made there, nor does a tenant's removal pass for one of its backups, until the disk is back or somebody said that it won't be.
func TestNoBackupIsMadeWhereTheDiskOfBackupsIsNotMounted(t *testing.T) {
	k := backedUpSet(t)
	k.p.Settings.BackupDir = filepath.Join(t.TempDir(), "mnt")
	dir, aside := k.p.Settings.BackupDir, k.p.Settings.BackupDir+".aside"
	b, _ := k.backUp(t)
	away := func(empty bool) {
		t.Helper()
		err := os.Rename(dir, aside)
		if empty {
			err = errors.Join(err, os.Mkdir(dir, 0o700))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	back := func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(dir), os.Rename(aside, dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, empty := range []bool{true, false} {
		away(empty)
		if _, err := k.p.BackUp(t.Context(), k.set); err == nil || !strings.Contains(err.Error(), "is its disk mounted?") {
			t.Errorf("with an empty mount point (%v) a backup says %v", empty, err)
		}
		if _, err := k.p.Clear(k.set); err == nil || !strings.Contains(err.Error(), "is its disk mounted?") {
			t.Errorf("with an empty mount point (%v) what a set leaves is removed without its backups: %v", empty, err)
		}
		if left, err := os.ReadDir(dir); len(left) > 0 || empty == errors.Is(err, fs.ErrNotExist) {
			t.Errorf("in the mount point are %v (%v)", left, err)
		}
		back()
	}
	k.backUp(t)
	if _, err := os.Stat(b.Dir); err != nil {
		t.Error(err)
	}
	// The disk is lost, and another one takes its place.
	away(true)
	if err := k.p.AcceptBackups(k.p.Backups()); err != nil {
		t.Fatal(err)
	}
	k.backUp(t)
}

// A plane whose backups were made before directories were marked, or that came to this machine with a copy of them, has its directory marked where it
// holds some; and the plane is told to keep them elsewhere at any time, in a new directory or in what it had before, moved or copied there.
func TestDirectoryOfBackupsIsRecognisedAndMayBeAnother(t *testing.T) {
	k := backedUpSet(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	k.p.Settings.BackupDir = dir
	marked := func() bool {
		t.Helper()
		is, err := k.p.Backups().Marked(k.p.State.ID)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	recognise := func() bool {
		t.Helper()
		if err := k.p.RecogniseBackups(); err != nil {
			t.Fatal(err)
		}
		return marked()
	}
	if recognise() {
		t.Error("a directory that isn't there is marked")
	}
	if err := os.MkdirAll(k.p.Backups().Path(k.p.Own.Name(), "20260901T030000Z-k3f5q2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if !recognise() {
		t.Error("a directory with the plane's own backup in it is not marked")
	}
	b, _ := k.backUp(t)

	// On purpose: an empty directory, the one of before under another name, and a copy of it.
	k.p.Settings.BackupDir = filepath.Join(t.TempDir(), "new")
	k.backUp(t)
	moved := backup.Store{Dir: dir + ".moved"}
	if err := os.Rename(dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	copied := backup.Store{Dir: filepath.Join(t.TempDir(), "copy")}
	if err := os.CopyFS(copied.Dir, os.DirFS(moved.Dir)); err != nil {
		t.Fatal(err)
	}
	for _, store := range []backup.Store{moved, copied} {
		k.p.Settings.BackupDir = store.Dir
		k.backUp(t)
		k.open(t, b.Manifest.Name)
	}
	// Back in its place, by another road.
	if err := os.Rename(copied.Dir, dir); err != nil {
		t.Fatal(err)
	}
	k.p.Settings.BackupDir = dir
	k.backUp(t)
}

// Whoever takes a tenant away need not be in the shell in which its backups were made, nor is it the last directory that they were made in: all of them go,
// and the sealed copies of their key, or it is said that some would be left.
func TestBackupsOfWhoLeftGoWhereverTheyWereMade(t *testing.T) {
	k := backedUpSet(t)
	public, err := os.Create(k.p.RecoveryPublic())
	if err != nil {
		t.Fatal(err)
	}
	whose, err := k.p.Whose()
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := backup.NewRecovery(whose.Plane, whose.ID, whose.ManifestKey)
	if err == nil {
		_, err = public.WriteString(key)
	}
	if err = errors.Join(err, public.Close()); err != nil {
		t.Fatal(err)
	}
	typed, dir := k.p.Settings.BackupDir, t.TempDir()
	var of []string
	for _, name := range []string{"first", "later"} {
		k.p.Settings.BackupDir = filepath.Join(dir, name)
		b, _ := k.backUp(t)
		of = append(of, filepath.Dir(b.Dir))
	}
	// What the plane was brought up with, by an earlier fleet, which marked no directory.
	told := backup.Store{Dir: filepath.Join(dir, "told")}
	if err := errors.Join(os.CopyFS(told.Path(k.set.Name(), ""), os.DirFS(of[0])),
		os.WriteFile(settings.File(k.p.Settings.Home), []byte(`{"BackupDir": "`+told.Dir+`"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	of = append(of, told.Path(k.set.Name(), ""))
	k.p.Settings.BackupDir = typed

	left := func() (files []string) {
		t.Helper()
		kept, err := k.p.Kept(t.Context(), k.set)
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range kept {
			if file, is := strings.CutPrefix(what, "file "+dir+"/"); is {
				files = append(files, file)
			}
		}
		slices.Sort(files)
		return files
	}
	name := k.set.Name()
	if found := left(); !slices.Equal(found, []string{"first/" + name, "later/" + name, "told/" + name}) {
		t.Errorf("of its backups are found %q", found)
	}
	// A disk of before is in a drawer.
	aside := filepath.Join(dir, "aside")
	if err := os.Rename(filepath.Join(dir, "first"), aside); err != nil {
		t.Fatal(err)
	}
	if _, err := k.p.Clear(k.set); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "first")) {
		t.Errorf("while a disk with backups of it is away it is cleared away with %v", err)
	}
	if _, err := k.p.Kept(t.Context(), k.set); err == nil {
		t.Error("while a disk with backups of it is away, nothing else remains")
	}
	if err := os.Rename(aside, filepath.Join(dir, "first")); err != nil {
		t.Fatal(err)
	}
	if _, err := k.p.Clear(k.set); err != nil {
		t.Fatal(err)
	}
	for _, of := range of {
		if _, err := os.Lstat(of); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is still %s (%v)", of, err)
		}
	}
	if found := left(); len(found) > 0 {
		t.Errorf("of its backups are found still %q", found)
	}
}

// A disk of before that is no more, whatever looking there says now, keeps nobody from the end for ever.
func TestDirectoryOfBackupsThatIsNoMoreIsForgotten(t *testing.T) {
	k := backedUpSet(t)
	before := filepath.Join(t.TempDir(), "mnt", "backups")
	k.p.Settings.BackupDir = before
	k.backUp(t)
	k.p.Settings.BackupDir = filepath.Join(t.TempDir(), "now")
	k.backUp(t)
	// A file has taken the mount point's place.
	if err := errors.Join(os.RemoveAll(filepath.Dir(before)), os.WriteFile(filepath.Dir(before), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.p.Clear(k.set); err == nil || !strings.Contains(err.Error(), "fleet backup accept-directory --gone "+before) {
		t.Errorf("what is left where nobody can look is passed over: %v", err)
	}
	if err := k.p.ForgetBackups(backup.Store{Dir: before}); err != nil {
		t.Error(err)
	}
	if _, err := k.p.Clear(k.set); err != nil {
		t.Errorf("a directory that is no more is not forgotten: %v", err)
	}
	if err := k.p.ForgetBackups(backup.Store{Dir: before}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("one that was none is forgotten: %v", err)
	}
}

// Where backups lie in the root of a disk, whoever isn't root can't look into lost+found, nor need they: what remains of a tenant is seen without it.
func TestRemainsAreSeenBesideWhatIsSomebodyElses(t *testing.T) {
	home, disk := t.TempDir(), t.TempDir()
	st, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	s := platform.Set{Blueprint: &blueprint.Blueprint{}, Tenant: id.NewTenant()}
	p := &local.Platform{Settings: settings.Settings{Home: home, BackupDir: disk}, State: st}
	for _, dir := range []string{"lost+found", ".unfinished-" + s.Name(), s.Name() + "/20260901T030000Z-k3f5q2"} {
		if err := os.MkdirAll(filepath.Join(disk, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(disk, "lost+found"), 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, home, disk)
	if _, err := os.ReadDir(filepath.Join(disk, "lost+found")); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("it can be looked into (%v)", err)
	}
	kept, err := p.Kept(t.Context(), s)
	if want := []string{"file " + filepath.Join(disk, ".unfinished-"+s.Name()), "file " + filepath.Join(disk, s.Name())}; err != nil || !slices.Equal(kept, want) {
		t.Errorf("what remains is %q (%v), want %q", kept, err, want)
	}
}

// A tenant isn't gone while a recovery key opens its backups: from a disk that nothing can be removed from they stay, and so the step isn't done. It says what to do.
func TestBackupsThatCannotBeRemovedAreNamed(t *testing.T) {
	home, disk := t.TempDir(), t.TempDir()
	st, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	s := platform.Set{Blueprint: &blueprint.Blueprint{}, Tenant: id.NewTenant()}
	p := &local.Platform{Settings: settings.Settings{Home: home, BackupDir: disk}, State: st}
	if err := os.MkdirAll(filepath.Join(disk, s.Name()), 0o755); err != nil { //nolint:gosec // of a test
		t.Fatal(err)
	}
	asNobody(t, home, disk)
	if os.Geteuid() != 0 {
		if err := os.Chmod(filepath.Join(disk, s.Name()), 0o555); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
	}
	_, err = p.Clear(s)
	if err == nil {
		t.Fatal("they are removed")
	}
	for _, word := range []string{disk, s.Name(), "fleet operation resume", "fleet backup accept-directory --gone " + disk} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("it doesn't say %q: %v", word, err)
		}
	}
}

// asNobody has root's test see files as somebody who isn't root does, to whom some directories are given; the rest of the test alone.
func asNobody(t *testing.T, dirs ...string) {
	t.Helper()
	const nobody = 65534
	if os.Geteuid() != 0 {
		return
	}
	for _, dir := range dirs {
		for ; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // of a test
				t.Fatal(err)
			}
		}
	}
	runtime.LockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}
