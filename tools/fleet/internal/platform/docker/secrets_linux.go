package docker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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

// The tmpfs of a directory that a container writes into itself: a keypair and what is being written beside it, or a socket.
const (
	ownSize   = 1 << 20
	ownInodes = 64
)

// mountOwn mounts a tmpfs on a directory that a container may write into, so that whoever fills it fills nobody else's, and makes it the
// user's. What a container of an earlier release keeps there, without a tmpfs, is taken along.
func mountOwn(dir string, uid, gid, mode uint32) error {
	if mounted(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, os.FileMode(mode)); err != nil {
		return err
	}
	was, err := plainFiles(dir)
	if err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=%o,uid=%d,gid=%d", ownSize, ownInodes, mode, uid, gid)
	err = unix.Mount("a3-own", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount("a3-own", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs on %s for what a container writes there: %w", dir, err)
	}
	for name, text := range was {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, text, 0o400), os.Lchown(path, int(uid), int(gid))); err != nil {
			return err
		}
	}
	return nil
}

// plainFiles are the small files of a directory that its user fills as they like: no link of theirs is followed.
func plainFiles(dir string) (map[string][]byte, error) {
	const most, small = ownInodes / 2, 64 << 10
	out := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		fd, err := unix.Open(filepath.Join(dir, e.Name()), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // a link, or gone
		}
		file := os.NewFile(uintptr(fd), e.Name())
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Size() <= small && len(out) < most && ownSize/2 > len(out)*small {
			if text, err := io.ReadAll(io.LimitReader(file, small)); err == nil {
				out[e.Name()] = text
			}
		}
		_ = file.Close()
	}
	return out, nil
}

func unmount(dir string) error {
	for mounted(dir) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}
