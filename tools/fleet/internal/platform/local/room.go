package local

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
)

const (
	// reservedShare of a disk, and reservedMost bytes at most, are left free by backups and their trials: what serves people writes there as well, and is
	// refused on a disk that is full.
	reservedShare = 10
	reservedMost  = 1 << 30
	// newServer is what a server takes before there is anything in it, its log with it.
	newServer = 256 << 20
)

// ErrNoRoom is of a backup, or the trial of one, that a disk has no room for. Nothing was written.
var ErrNoRoom = errors.New("there is no room")

// hasRoom refuses to write so many bytes below a directory where too little would be left for others.
func hasRoom(dir, what string, bytes int64) error {
	disk, _, err := diskOf(dir)
	if err != nil {
		return err
	}
	need, reserved := uint64(max(bytes, 0)), min(disk.Total/reservedShare, reservedMost)
	if disk.Free >= need+reserved {
		return nil
	}
	return fmt.Errorf("%w for %s, which may take %d MiB: the disk of %s has %d MiB free, of which %d are for the databases and whatever else is there",
		ErrNoRoom, what, need>>20, dir, disk.Free>>20, reserved>>20)
}

// roomToBackUp refuses a backup that the disk of backups has no room for. What it will take at most is what the set has; where there is a backup, as
// much as that one and by how much the set has grown.
func (p *Platform) roomToBackUp(s platform.Set, database int64) error {
	var stores int64
	for name := range p.storesHere(s) {
		n, err := sizeOf(p.store(s, name))
		if err != nil {
			return fmt.Errorf("see how much store %s has: %w", name, err)
		}
		stores += n
	}
	store, need := p.Backups(), database+stores
	names, err := store.Names(s.Name())
	if err != nil {
		return err
	}
	if len(names) > 0 {
		last, err := backup.Claimed(store.Path(s.Name(), names[len(names)-1]))
		if err == nil && last.DatabaseBytes > 0 {
			need = last.Size() + max(0, database-last.DatabaseBytes) + max(0, stores-last.PartSize(partStores))
		}
	}
	return hasRoom(store.Dir, "a backup", need)
}

// roomToRehearse refuses to unpack a backup where the disk below has no room for all that the set had.
func roomToRehearse(dir string, m *backup.Manifest) error {
	need := m.PartSize(partFiles) + m.PartSize(partStores)
	if database := m.PartSize(partDatabase); database > 0 {
		need += newServer + max(database, m.DatabaseBytes)
	}
	return hasRoom(dir, "a trial of the backup", need)
}

// sizeOf is how many bytes the files below a directory have. What goes while it looks is none.
func sizeOf(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				n += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return n, err
}
