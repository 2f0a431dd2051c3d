package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
)

// Contents are the files of a store, as they were packed.
type Contents struct {
	// Store by its name.
	Store string `json:"store"`
	// Files in it.
	Files int `json:"files"`
	// SHA256 of their names and digests, in the order of their names; hex.
	SHA256 string `json:"sha256"`
}

// Sums are the digests of files by their names.
type Sums map[string][sha256.Size]byte

// SumsOf reads the files of a directory.
func SumsOf(dir fs.FS) (Sums, error) {
	out := Sums{}
	err := fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := dir.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		out[name] = [sha256.Size]byte(sum.Sum(nil))
		return nil
	})
	return out, err
}

// Contents is what a manifest says of a store with these files.
func (s Sums) Contents(store string) Contents {
	all := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(all, "%x %s\n", s[name], name)
	}
	return Contents{Store: store, Files: len(s), SHA256: hex.EncodeToString(all.Sum(nil))}
}
