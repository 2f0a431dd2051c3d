package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/release"
)

// blueprintsDir is where the texts of blueprints lie, each by its digest. The registry has the signed digests alone.
const blueprintsDir = "blueprints"

// ErrNoBlueprint is a blueprint whose text isn't on this machine.
var ErrNoBlueprint = errors.New("its text is not on this machine")

func (p *Platform) blueprintFile(digest string) string { return blueprintFile(p.Settings.Home, digest) }

func blueprintFile(home, digest string) string {
	return filepath.Join(home, blueprintsDir, strings.TrimPrefix(digest, "sha256:")+".yaml")
}

// KeepsBlueprint says whether a home has the text with a digest, `sha256:…`: a fleet took it there before.
func KeepsBlueprint(home, digest string) bool {
	_, err := os.Stat(blueprintFile(home, digest))
	return err == nil
}

// KeepBlueprint keeps a blueprint's text, so that sets of a release that was made by it are started by it for as long as there are any.
func (p *Platform) KeepBlueprint(b *blueprint.Blueprint) error {
	if _, err := p.Blueprint(b.Digest); err == nil {
		return nil
	}
	return writeFile(p.blueprintFile(b.Digest), string(b.Text))
}

// Blueprint reads a blueprint that was kept by its digest, `sha256:…`, which the text is held against. It is read by TakenBefore. Without a text it is ErrNoBlueprint.
func (p *Platform) Blueprint(digest string) (*blueprint.Blueprint, error) {
	file := p.blueprintFile(digest)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoBlueprint
	}
	if err != nil {
		return nil, fmt.Errorf("read the blueprint %s: %w", digest, err)
	}
	if release.Digest(text) != digest {
		return nil, fmt.Errorf("%s is not what it was when it was kept, somebody changed it: have the blueprint of that release kept again, fleet release blueprint FILE", file)
	}
	return TakenBefore(file, text)
}

// TakenBefore reads a text that a fleet took before, where sets are started by it: as it was taken then (blueprint.ParseKept). file names it in errors.
func TakenBefore(file string, text []byte) (*blueprint.Blueprint, error) {
	b, err := blueprint.ParseKept(file, text)
	if err != nil {
		return nil, fmt.Errorf("this fleet is stricter than the one that took the blueprint %s, or knows less: put that one back, which carries out what it took:\n%w", release.Digest(text), err)
	}
	return b, nil
}

// blueprintsIn are the texts that lie in a directory, which may be missing, by what a backup calls them.
func blueprintsIn(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, blueprintsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range entries {
		if name := e.Name(); e.Type().IsRegular() && strings.HasSuffix(name, ".yaml") {
			out[blueprintsDir+"/"+name] = filepath.Join(dir, blueprintsDir, name)
		}
	}
	return out, nil
}
