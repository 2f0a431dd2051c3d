package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/settings"
)

// Disks implements platform.Disks.
func (p *Platform) Disks() ([]platform.Disk, error) { return DisksOf(p.Settings) }

// DisksOf are the disks that a plane on this machine writes to: its home's, its database servers' and that of its backups, each once.
func DisksOf(s settings.Settings) ([]platform.Disk, error) {
	servers, err := ServerPlace(s.Home, "postgres")
	if err != nil {
		return nil, err
	}
	var out []platform.Disk
	seen := map[uint64]bool{}
	for _, dir := range []string{s.Home, servers, s.BackupDir} {
		disk, device, err := diskOf(dir)
		if err != nil {
			return nil, err
		}
		if !seen[device] {
			seen[device], out = true, append(out, disk)
		}
	}
	return out, nil
}

// DiskOf is the disk on which a directory is.
func DiskOf(dir string) (platform.Disk, error) {
	disk, _, err := diskOf(dir)
	return disk, err
}

// diskOf is the disk on which a directory is, or will be made.
func diskOf(dir string) (d platform.Disk, device uint64, err error) {
	info, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	var room syscall.Statfs_t
	if err == nil {
		err = syscall.Statfs(dir, &room)
	}
	if err != nil {
		return d, 0, fmt.Errorf("ask for the free space in %s: %w", dir, err)
	}
	size := uint64(room.Bsize) //nolint:gosec // a block's size is small and positive
	d = platform.Disk{Path: dir, Free: room.Bavail * size, Total: (room.Blocks - room.Bfree + room.Bavail) * size}
	return d, uint64(info.Sys().(*syscall.Stat_t).Dev), nil //nolint:unconvert // its size differs between systems
}
