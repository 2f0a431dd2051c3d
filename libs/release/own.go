package release

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
)

// Own is the release that this process is: the version that it was told, and the digest of the program that it runs as, which it reads
// from the kernel's own link to it. The version is a word for people that somebody chose; whoever decides something compares digests.
func Own(told string) (Name, error) {
	digest, err := ownDigest()
	if err != nil {
		return Name{}, err
	}
	version, _, _ := strings.Cut(told, "@")
	if !isVersion(version) {
		version = Development
	}
	return Name{Version: version, Digest: digest}, nil
}

// ownDigest reads the program once: a process stays what it is.
var ownDigest = sync.OnceValues(func() (string, error) {
	path := "/proc/self/exe"
	if runtime.GOOS != "linux" {
		var err error
		if path, err = os.Executable(); err != nil {
			return "", fmt.Errorf("find the program of this process: %w", err)
		}
	}
	// On Linux the link leads to the file that runs, also when it was replaced or removed on disk meanwhile.
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open the program of this process: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("read the program of this process: %w", err)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
})

// Same says whether two names, as their owners write them, are of one program. Versions don't count: they are words. What is no name is
// the same as nothing but itself.
func Same(a, b string) bool {
	x, errX := ParseName(a)
	y, errY := ParseName(b)
	if errX != nil || errY != nil {
		return a == b
	}
	return x.Digest == y.Digest
}
