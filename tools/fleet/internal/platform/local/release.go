package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Release is what sets run.
type Release struct {
	// Name is version and digest.
	Name string
	// Artefact is the program, absolute.
	Artefact string
}

// executable is the mode of a program: it holds no secret, and users who own nothing of the plane run it.
const executable = 0o755

// Install copies a program to where the processes of sets run it from.
func (p *Platform) Install(program string) (Release, error) {
	return Install(program, p.served("releases"))
}

// Install copies a program below dir under its own digest, so that what runs is what was started even when the program is built anew.
// Releases that nothing refers to any longer are removed, but for the one before.
func Install(program, dir string) (Release, error) {
	src, err := os.Open(program)
	if errors.Is(err, os.ErrNotExist) {
		return Release{}, fmt.Errorf("there is no program %s: build it with make build", program)
	}
	if err != nil {
		return Release{}, fmt.Errorf("open the program: %w", err)
	}
	defer src.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, src); err != nil {
		return Release{}, fmt.Errorf("read %s: %w", program, err)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	const short = 16
	home := filepath.Join(dir, digest[:short])
	r := Release{Name: "dev+sha256:" + digest[:short], Artefact: filepath.Join(home, filepath.Base(program))}
	if err := errors.Join(os.MkdirAll(home, walkable), os.Chmod(dir, walkable), os.Chmod(home, walkable)); err != nil {
		return Release{}, fmt.Errorf("make the directory of the release: %w", err)
	}
	if _, err := os.Stat(r.Artefact); err == nil {
		return r, os.Chmod(r.Artefact, executable)
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return Release{}, err
	}
	return r, errors.Join(copyProgram(src, r.Artefact), removeOld(dir, home))
}

func copyProgram(src io.Reader, to string) error {
	part := to + ".part"
	dst, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, executable)
	if err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy the program: %w", err), os.Remove(part))
	}
	return errors.Join(os.Chmod(part, executable), os.Rename(part, to))
}

// removeOld keeps the present release and the newest other one.
func removeOld(dir, present string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var newest string
	var others []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if path == present {
			continue
		}
		others = append(others, path)
		if newest == "" || newer(path, newest) {
			newest = path
		}
	}
	for _, path := range others {
		if path != newest {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

func newer(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && x.ModTime().After(y.ModTime())
}
