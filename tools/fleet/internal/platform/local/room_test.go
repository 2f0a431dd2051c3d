package local_test

import (
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
	k.query(t, k.set.Name(), "INSERT INTO tiny.notes SELECT repeat(md5(n::text), 34) FROM generate_series(1, "+rows+") n")
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
	refused()
	copied := k.p.Backups().Path(k.set.Name(), b.Manifest.Name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.CopyFS(copied, os.DirFS(b.Dir))); err != nil {
		t.Fatal(err)
	}
	refused()
	k.query(t, k.set.Name(), "TRUNCATE tiny.notes")
	k.backUp(t)
}
