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

// ErrNoRoom is of a backup, or the trial of one, that a disk has no room for. Nothing is left of it.
var ErrNoRoom = errors.New("there is no room")

// reservedOf is what is left free of a disk.
func reservedOf(d platform.Disk) uint64 { return min(d.Total/reservedShare, reservedMost) }

// hasRoom refuses to write so many bytes below a directory where too little would be left for others; what is urgent may take all that is free.
func hasRoom(dir, what string, bytes int64, urgent bool) error {
	disk, _, err := diskOf(dir)
	if err != nil {
		return err
	}
	need, reserved, others := uint64(max(bytes, 0)), uint64(0), ""
	if !urgent {
		reserved = reservedOf(disk)
		others = fmt.Sprintf(", of which %d are for the databases and whatever else is there", reserved>>20)
	}
	if disk.Free >= need+reserved {
		return nil
	}
	return fmt.Errorf("%w for %s, which may take %d MiB: the disk of %s has %d MiB free%s", ErrNoRoom, what, need>>20, dir, disk.Free>>20, others)
}

// moreRoom refuses to write on where too little would be left for others.
func moreRoom(dir string) error {
	disk, _, err := diskOf(dir)
	if err != nil {
		return err
	}
	reserved := reservedOf(disk)
	if disk.Free >= backup.Ration+reserved {
		return nil
	}
	return fmt.Errorf("%w for the whole of a backup: while it was written the disk of %s had %d MiB left, of which %d are for the databases and whatever else is there; what was written is removed",
		ErrNoRoom, dir, disk.Free>>20, reserved>>20)
}

// roomToBackUp refuses a backup that the disk of backups has no room for, by the newest that there is: as much as that one, and by how much stores have
// grown. How large a database is, or by how much it has grown, says little of its backup, which is compressed and has no indexes: what takes more than
// the one before, or has none to go by, is begun, and ends where room does.
func (p *Platform) roomToBackUp(s platform.Set) error {
	var stores int64
	for name := range p.storesHere(s) {
		n, err := sizeOf(p.store(s, name))
		if err != nil {
			return fmt.Errorf("see how much store %s has: %w", name, err)
		}
		stores += n
	}
	store := p.Backups()
	names, err := store.Names(s.Name())
	if err != nil || len(names) == 0 {
		return err
	}
	last, err := backup.Claimed(store.Path(s.Name(), names[len(names)-1]))
	if err != nil {
		return nil //nolint:nilerr // it says nothing, and is told as damaged elsewhere
	}
	return hasRoom(store.Dir, "a backup", last.Size()+max(0, stores-last.PartSize(partStores)), false)
}

// roomToRehearse refuses to unpack a backup where the disk below has no room for all that the set had.
func roomToRehearse(dir string, m *backup.Manifest, urgent bool) error {
	need := m.PartSize(partFiles) + m.PartSize(partStores)
	if database := m.PartSize(partDatabase); database > 0 {
		need += newServer + max(database, m.DatabaseBytes)
	}
	return hasRoom(dir, "a trial of the backup", need, urgent)
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
