package docker

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const secretsSize = "size=64m,mode=0711"

// mountSecrets mounts the plane's tmpfs, once. Where the kernel can keep it out of swap, it does.
func (p *Platform) mountSecrets() error {
	dir := p.SecretsDir()
	const walkable = 0o711
	if err := os.MkdirAll(dir, walkable); err != nil {
		return err
	}
	var have unix.Statfs_t
	if err := unix.Statfs(dir, &have); err != nil {
		return err
	}
	if have.Type == unix.TMPFS_MAGIC && mounted(dir) {
		return nil
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("a3-secrets", dir, "tmpfs", flags, secretsSize+",noswap")
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("a3-secrets", dir, "tmpfs", flags, secretsSize)
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs on %s for the secrets of containers: %w", dir, err)
	}
	return nil
}

// mounted says whether something is mounted on dir: its device is another than its parent's.
func mounted(dir string) bool {
	var in, above unix.Stat_t
	return unix.Stat(dir, &in) == nil && unix.Stat(dir+"/..", &above) == nil && in.Dev != above.Dev
}

func unmount(dir string) error {
	for mounted(dir) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}
