package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Standing is a digest of how the files of an image stand on this machine, 64 hexadecimal digits, without reading them: which they are, how
// long, and when each was last changed in any way (st_ctim, which nobody sets back). It is another one after each change of theirs; of the same
// bytes written anew as well.
func (s Spec) Standing() (string, error) {
	sum := sha256.New()
	for _, to := range slices.Sorted(maps.Keys(s.Files)) {
		var is unix.Stat_t
		if err := unix.Stat(s.Files[to], &is); err != nil {
			return "", fmt.Errorf("%s: %w", s.Files[to], err)
		}
		fmt.Fprintf(sum, "%q %q %d %d %d %d.%09d\n", to, s.Files[to], is.Dev, is.Ino, is.Size, is.Ctim.Sec, is.Ctim.Nsec)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
