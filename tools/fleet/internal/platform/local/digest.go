package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Digest is what a file was read to have, and what the kernel said of the file then. Whoever changes a file changes its ctime, which nobody
// can set back, and has it read anew.
type Digest struct {
	Dev    uint64 `json:"dev"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime"`
	CTime  int64  `json:"ctime"`
	SHA256 string `json:"sha256"`
}

// digests are those of files that were read already, by path: a program is tens of megabytes, and is asked for again and again, by each
// command that changes something.
var digests struct {
	sync.Mutex
	known map[string]Digest
	// file keeps them for the next command; empty for nowhere.
	file string
}

// RememberDigests has digests kept in a home, which is as much its owner's alone as the programs themselves are, from now on. What can't be
// read there is read anew from the programs.
func RememberDigests(home string) {
	digests.Lock()
	defer digests.Unlock()
	file := filepath.Join(home, "digests.json")
	if digests.file == file {
		return
	}
	digests.file, digests.known = file, map[string]Digest{}
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&^0o600 != 0 {
		return
	}
	if text, err := os.ReadFile(file); err != nil || json.Unmarshal(text, &digests.known) != nil {
		digests.known = map[string]Digest{}
	}
}

// takeDigests takes what another process of this plane read.
func takeDigests(known map[string]Digest) {
	digests.Lock()
	defer digests.Unlock()
	digests.known = known
}

// digestsOf are what is known of files.
func digestsOf(paths ...string) map[string]Digest {
	digests.Lock()
	defer digests.Unlock()
	out := map[string]Digest{}
	for _, path := range paths {
		if d, ok := digests.known[path]; ok {
			out[path] = d
		}
	}
	return out
}

// digestOf is the SHA-256 of a file, as releases name it.
func digestOf(path string) (string, error) {
	src, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer src.Close()
	before, err := described(src)
	if err != nil {
		return "", err
	}
	digests.Lock()
	known := digests.known[path]
	digests.Unlock()
	if before.SHA256 = known.SHA256; known == before && known.SHA256 != "" {
		return known.SHA256, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, src); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	after, err := described(src)
	if err != nil {
		return "", err
	}
	before.SHA256 = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	after.SHA256 = before.SHA256
	// The clock that times are taken from has steps: what changed a moment ago may change again within the same one.
	const settled = time.Second
	if after == before && time.Since(time.Unix(0, before.CTime)) > settled {
		if err := rememberDigest(path, before); err != nil {
			return "", fmt.Errorf("keep the digest of %s for the next command: %w", path, err)
		}
	}
	return before.SHA256, nil
}

// described is what the kernel says of an open file.
func described(f *os.File) (Digest, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Digest{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return Digest{Dev: uint64(st.Dev), Inode: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}, nil //nolint:gosec,unconvert // its type differs between systems
}

func rememberDigest(path string, d Digest) error {
	digests.Lock()
	defer digests.Unlock()
	if digests.known == nil {
		digests.known = map[string]Digest{}
	}
	digests.known[path] = d
	if digests.file == "" {
		return nil
	}
	for path := range digests.known {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			delete(digests.known, path)
		}
	}
	text, err := json.MarshalIndent(digests.known, "", "  ")
	if err != nil {
		return err
	}
	err = renameio.WriteFile(digests.file, append(text, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(digests.file)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // the plane is not made yet, or another user's: they are read anew the next time
	}
	return err
}
