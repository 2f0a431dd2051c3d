package local_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"a3os.app/tools/fleet/internal/platform/local"
)

// A set that a disk has no room for is neither backed up there nor is its backup tried out: both are told before anything is written, on what may be the
// disk of the databases that serve people, and what was not tried is not found bad.
func TestBackupAndItsTrialThatADiskHasNoRoomForWriteNothing(t *testing.T) {
	k := backedUpSet(t)
	b, _ := k.backUp(t)
	const rows, megabytes = "20000", 24
	const fill = "INSERT INTO tiny.notes SELECT repeat(md5(n::text), 34) FROM generate_series(1, " + rows + ") n"
	k.query(t, k.set.Name(), fill)
	mount := func(dir, size string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0711,size="+size); err != nil {
			t.Skipf("NOT PLAYED: a disk without room needs a mount, which needs root: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
	sizeable, _ := k.backUp(t)
	if sizeable.Manifest.DatabaseBytes < megabytes<<20 {
		t.Errorf("the database took %d bytes by its backup", sizeable.Manifest.DatabaseBytes)
	}
	mount(filepath.Join(k.p.Settings.Home, "rehearsals"), "270m")
	if _, err := k.p.Rehearse(t.Context(), k.set, k.r, sizeable); !errors.Is(err, local.ErrNotTried) || !errors.Is(err, local.ErrNoRoom) {
		t.Errorf("where there is no room a trial says %v", err)
	}
	// What the restore of a small set takes is there: only whoever's data are not lost leaves the databases' share alone.
	if _, err := k.p.Rehearse(t.Context(), k.set, k.r, b); !errors.Is(err, local.ErrNoRoom) {
		t.Errorf("a trial that would leave nothing to the databases says %v", err)
	}
	if _, err := k.p.RehearseToRestore(t.Context(), k.set, k.r, b); err != nil {
		t.Errorf("a backup can't be restored for a share of the disk that was free: %v", err)
	}
	if _, err := k.p.RehearseToRestore(t.Context(), k.set, k.r, sizeable); !errors.Is(err, local.ErrNotTried) || !errors.Is(err, local.ErrNoRoom) {
		t.Errorf("where there is no room the trial of a restore says %v", err)
	}
	// That is told before all of a backup is read.
	part := filepath.Join(sizeable.Dir, firstPart(t, sizeable.Dir))
	whole, err := os.ReadFile(part)
	if err := errors.Join(err, os.WriteFile(part, append([]byte("damaged"), whole...), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.p.Rehearse(t.Context(), k.set, k.r, sizeable); !errors.Is(err, local.ErrNoRoom) {
		t.Errorf("where there is no room the trial of a damaged backup says %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(k.p.Settings.Home, "rehearsals")); err != nil || len(left) > 0 {
		t.Errorf("of a trial is left %v (%v)", left, err)
	}

	// Elsewhere: a disk without a backup of before, and one that has a small one.
	k.p.Settings.BackupDir = filepath.Join(t.TempDir(), "small")
	mount(k.p.Settings.BackupDir, "8m")
	refused := func() {
		t.Helper()
		if _, err := k.p.BackUp(t.Context(), k.set); !errors.Is(err, local.ErrNoRoom) || !strings.Contains(err.Error(), "back up "+k.set.Name()) {
			t.Errorf("where there is no room a backup says %v", err)
		}
	}
	// What the database takes is three times the disk, and its backup a small part of it.
	first, _ := k.backUp(t)
	k.query(t, k.set.Name(), "CREATE TABLE tiny.dense AS SELECT (SELECT string_agg(md5(random()::text || (n + m)::text), '') FROM generate_series(1, 34) m) FROM generate_series(1, "+rows+") n")
	if err := os.RemoveAll(first.Dir); err != nil {
		t.Fatal(err)
	}
	refused()
	if left, err := filepath.Glob(k.p.Backups().Path(k.set.Name(), "*2*")); err != nil || len(left) > 0 {
		t.Errorf("of a backup that ended at the databases' share is left %q (%v)", left, err)
	}
	k.query(t, k.set.Name(), "DROP TABLE tiny.dense")
	copied := k.p.Backups().Path(k.set.Name(), b.Manifest.Name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.CopyFS(copied, os.DirFS(b.Dir))); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(k.p.Settings.BackupDir, "filler")
	if err := os.WriteFile(filler, make([]byte, 7<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	refused()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	// It has grown by more than there is room for, and its backup by less.
	last, _ := k.backUp(t)

	// An earlier fleet wrote the one that is there: it doesn't say what the database was.
	if err := os.RemoveAll(last.Dir); err != nil {
		t.Fatal(err)
	}
	withoutDatabaseBytes(t, copied)
	k.backUp(t)
}

// withoutDatabaseBytes has a backup's manifest be as an earlier fleet wrote it.
func withoutDatabaseBytes(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, "manifest.json")
	text, err := os.ReadFile(file)
	envelope, manifest := map[string]any{}, map[string]any{}
	if err == nil {
		err = json.Unmarshal(text, &envelope)
	}
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(envelope["payload"].(string))
	if err == nil {
		err = json.Unmarshal(payload, &manifest)
	}
	if _, has := manifest["database_bytes"]; !has {
		t.Fatalf("the manifest has no figure to take away (%v)", err)
	}
	delete(manifest, "database_bytes")
	if payload, err = json.Marshal(manifest); err == nil {
		envelope["payload"] = base64.StdEncoding.EncodeToString(payload)
		text, err = json.Marshal(envelope)
	}
	if err = errors.Join(err, os.WriteFile(file, text, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// firstPart is a file of a backup that isn't its manifest.
func firstPart(t *testing.T, dir string) string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Name() != "manifest.json" {
			return e.Name()
		}
	}
	t.Fatalf("there is no part in %s", dir)
	return ""
}
