package local_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/backup"
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
