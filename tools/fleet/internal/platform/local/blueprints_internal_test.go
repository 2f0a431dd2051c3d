package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/settings"
)

// A blueprint is read as it was kept or not at all, and a plane's backup takes it along.
func TestBlueprintIsReadAsItWasKept(t *testing.T) {
	b, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	p := &Platform{Settings: settings.Settings{Home: t.TempDir()}}
	if _, err := p.Blueprint(b.Digest); !errors.Is(err, ErrNoBlueprint) {
		t.Errorf("one that was never kept: %v", err)
	}
	for range 2 {
		if err := p.KeepBlueprint(b); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Blueprint(b.Digest); err != nil || got.Digest != b.Digest || len(got.Components) != len(b.Components) {
		t.Fatalf("it was kept: %v", err)
	}
	texts, err := blueprintsIn(p.Settings.Home)
	name := blueprintsDir + "/" + strings.TrimPrefix(b.Digest, "sha256:") + ".yaml"
	if err != nil || len(texts) != 1 || texts[name] != p.blueprintFile(b.Digest) {
		t.Errorf("a backup takes %v along (%v)", texts, err)
	}
	if none, err := blueprintsIn(filepath.Join(p.Settings.Home, "elsewhere")); err != nil || len(none) != 0 {
		t.Errorf("of a plane of before a backup takes %v along (%v)", none, err)
	}
	for what, text := range map[string]string{"another": string(b.Text) + "# one line more\n", "no blueprint": "name: [", "nothing": ""} {
		if err := os.WriteFile(p.blueprintFile(b.Digest), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Blueprint(b.Digest); err == nil || !strings.Contains(err.Error(), "somebody changed it") {
			t.Errorf("%s is read as %v (%v)", what, got, err)
		}
	}
}

// What releases were made by is taken as it lies here, whatever new ones are held to by now; and one that can't be carried out says why, and what does.
func TestBlueprintOfBeforeIsTakenAsItWasKept(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "..", "deploy", "blueprint", "testdata", "kept", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no blueprints of before: %v", err)
	}
	p := &Platform{Settings: settings.Settings{Home: t.TempDir()}}
	keep := func(text []byte) string {
		t.Helper()
		digest := release.Digest(text)
		if KeepsBlueprint(p.Settings.Home, digest) {
			t.Errorf("%s is kept, and nobody did", digest)
		}
		if err := writeFile(p.blueprintFile(digest), string(text)); err != nil {
			t.Fatal(err)
		}
		if !KeepsBlueprint(p.Settings.Home, digest) {
			t.Errorf("%s is not kept", digest)
		}
		return digest
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		digest := keep(text)
		if b, err := p.Blueprint(digest); err != nil || b.Digest != digest {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if b, err := p.Blueprint(keep(append(text, "replicas: 3\n"...))); err == nil || !strings.Contains(err.Error(), "this fleet is stricter than the one that took") ||
		!strings.Contains(err.Error(), "replicas: there is no such field") {
		t.Errorf("one with a field of a later fleet is read as %v (%v)", b, err)
	}
}
