package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/release"
)

// Keep takes a registered release's artefact into the store that sets run theirs from, under its digest. It says whether it was not there
// yet. One that is kept stays: a set somewhere may go back to it.
func (p *Platform) Keep(artefact, file, digest string) (changed bool, err error) {
	got, err := digestOf(file)
	if err != nil {
		return false, err
	}
	if got != digest {
		return false, fmt.Errorf("%s has the digest %s, and the release says %s: it is another program", file, got, digest)
	}
	dir := p.releaseDir(digest)
	if err := os.Remove(filepath.Join(dir, built)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if have, err := onlyProgram(dir); err == nil {
		if got, err := digestOf(have); err != nil || got == digest {
			return false, err
		}
		return false, fmt.Errorf("%s is not what it was when it was kept: somebody changed it; take it away and register the release again", have)
	}
	if err := errors.Join(os.MkdirAll(dir, walkable), os.Chmod(filepath.Dir(dir), walkable), os.Chmod(dir, walkable)); err != nil {
		return false, fmt.Errorf("make the directory of the release: %w", err)
	}
	return true, copyProgram(file, filepath.Join(dir, artefact), digest)
}

// ReleaseSigner signs releases that are built here.
func (p *Platform) ReleaseSigner() (*release.Signer, error) {
	name, err := p.ownKey(blueprint.KeyRelease)
	if err != nil {
		return nil, err
	}
	key, err := p.secretFile(p.keyFile(p.Own, name))
	if err != nil {
		return nil, err
	}
	return release.NewSigner(p.State.Plane, key.Reveal())
}

// ReleaseKeys are what releases are verified with: the plane's own key, and those that the settings name.
func (p *Platform) ReleaseKeys() (string, error) {
	name, err := p.ownKey(blueprint.KeyRelease)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(p.publicFile(p.Own, name))
	if err != nil {
		return "", fmt.Errorf("read the key that releases are verified with: %w: make up makes it", err)
	}
	keys := strings.TrimSpace(string(text))
	if p.Settings.ReleaseKeys != "" {
		keys += "," + p.Settings.ReleaseKeys
	}
	return keys, nil
}

// ReleaseVerifier opens releases that the plane trusts.
func (p *Platform) ReleaseVerifier() (*release.Verifier, error) {
	keys, err := p.ReleaseKeys()
	if err != nil {
		return nil, err
	}
	return release.NewVerifier(p.State.Plane, keys)
}
