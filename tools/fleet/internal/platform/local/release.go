package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/platform"
)

const (
	// executable is the mode of a program: it holds no secret, and users who own nothing of the plane run it.
	executable = 0o755
	// built marks the directory of a program that was built here and is no release that anybody registered: it goes when nothing runs
	// it any longer, and a later one was built.
	built = "built"
)

// releaseDir is where the artefact of a digest lies: processes run it from there, so that what runs is what was started even when the
// program is built anew.
func (p *Platform) releaseDir(digest string) string {
	return p.served("releases", strings.TrimPrefix(digest, "sha256:"))
}

// program is where the artefact of a release lies that was fetched.
func (p *Platform) program(b *blueprint.Blueprint, r platform.Release) (string, error) {
	digest, err := r.DigestOf(b.Artefact)
	if err != nil {
		return "", err
	}
	path, err := onlyProgram(p.releaseDir(digest))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("release %s is not on this machine: register it here, with the program that it was registered with: fleet release register --version %s --artefact %s=FILE", r, r.Version, b.Artefact)
	}
	if err != nil {
		return "", fmt.Errorf("find release %s: %w", r, err)
	}
	return path, nil
}

// Program is the artefact that a blueprint's components run, of a release that was fetched and is what it was then: what is started, or an image
// is made of, is what the plan named.
func (p *Platform) Program(b *blueprint.Blueprint, r platform.Release) (string, error) {
	want, err := r.DigestOf(b.Artefact)
	if err != nil {
		return "", err
	}
	program, err := p.program(b, r)
	if err != nil {
		return "", err
	}
	got, err := digestOf(program)
	if err == nil && got != want {
		err = changedBySomebody(program, got)
	}
	if err != nil {
		return "", err
	}
	return program, nil
}

var errChanged = errors.New("somebody changed it; take it away and fetch it again")

func changedBySomebody(program, digest string) error {
	return fmt.Errorf("%s has the digest %s: %w", program, digest, errChanged)
}

// Built is the release of a program that was built here: its version says that nobody released it.
func Built(program string) (platform.Release, error) {
	digest, err := digestOf(program)
	if errors.Is(err, os.ErrNotExist) {
		return platform.Release{}, fmt.Errorf("there is no program %s: build it with make build", program)
	}
	return platform.Release{Name: release.Name{Version: release.Development, Digest: digest}}, err
}

// Fetch implements platform.Platform: artefacts come from Programs, unless they are here already.
func (p *Platform) Fetch(_ context.Context, r platform.Release) (changed bool, err error) {
	digests := map[string]bool{r.Digest: len(r.Artefacts) == 0}
	for _, d := range r.Artefacts {
		digests[d] = true
	}
	for digest, wanted := range digests {
		if !wanted {
			continue
		}
		did, err := p.fetch(digest)
		if err != nil {
			return changed, fmt.Errorf("fetch release %s: %w", r, err)
		}
		changed = changed || did
	}
	if !changed {
		return false, nil
	}
	return true, p.removeOld(digests)
}

func (p *Platform) fetch(digest string) (changed bool, err error) {
	dir := p.releaseDir(digest)
	if have, err := onlyProgram(dir); err == nil {
		got, err := digestOf(have)
		if err != nil {
			return false, err
		}
		if got == digest {
			return false, chmod(have, executable)
		}
		return false, changedBySomebody(have, got)
	}
	for _, program := range p.Programs {
		if got, err := digestOf(program); err != nil || got != digest {
			continue
		}
		if err := errors.Join(os.MkdirAll(dir, walkable), os.Chmod(filepath.Dir(dir), walkable), os.Chmod(dir, walkable)); err != nil {
			return false, fmt.Errorf("make the directory of the release: %w", err)
		}
		return true, errors.Join(os.WriteFile(filepath.Join(dir, built), nil, 0o600), copyProgram(program, filepath.Join(dir, filepath.Base(program)), digest))
	}
	return false, fmt.Errorf("no program with the digest %s is on this machine: register the release here with fleet release register", digest)
}

// onlyProgram is the program of a release's directory.
func onlyProgram(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != built && !strings.HasSuffix(e.Name(), partial) {
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", os.ErrNotExist
}

// partial ends the name of a file that is being written.
const partial = ".part"

// copyProgram copies a program whose digest is known, whole or not at all; one that changed meanwhile is not taken.
func copyProgram(from, to, digest string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("open the program: %w", err)
	}
	defer src.Close()
	part := to + partial
	dst, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, executable)
	if err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(dst, sum), src)
	if err == nil && "sha256:"+hex.EncodeToString(sum.Sum(nil)) != digest {
		err = fmt.Errorf("%s changed while it was read", from)
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy the program: %w", err), os.Remove(part))
	}
	return errors.Join(os.Chmod(part, executable), os.Rename(part, to))
}

// removeOld removes programs that were built here and that no set runs, but for the present ones and the newest other one.
func (p *Platform) removeOld(present map[string]bool) error {
	entries, err := os.ReadDir(p.served("releases"))
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, name := range p.State.Runs() {
		if n, err := release.ParseName(name); err == nil {
			used[n.Digest] = true
		}
	}
	for _, program := range p.Programs {
		// Fetched, and started in a moment.
		if digest, err := digestOf(program); err == nil {
			used[digest] = true
		}
	}
	var newest string
	var others []string
	for _, e := range entries {
		// A release before this one named its directories by 16 digits.
		const earlier = 16
		path, digest := p.served("releases", e.Name()), "sha256:"+e.Name()
		if _, err := os.Stat(filepath.Join(path, built)); err != nil && len(e.Name()) != earlier || present[digest] || used[digest] {
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
