package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
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
