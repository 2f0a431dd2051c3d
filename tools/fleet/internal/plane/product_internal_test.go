package plane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
)

// ofBefore is a blueprint that releases were made by, and that new ones may not be.
func ofBefore(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "deploy", "blueprint", "testdata", "kept", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A plane that is there goes on by the file that it was brought up by, however strict a later fleet is; what it never had is held to every rule.
func TestPlaneGoesOnByTheFileThatItHad(t *testing.T) {
	home, file := t.TempDir(), filepath.Join(t.TempDir(), "notes.yaml")
	if err := os.WriteFile(file, ofBefore(t, "notes-sample.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	choose := func() error {
		t.Helper()
		s, err := state.Open(home)
		if err != nil {
			t.Fatal(err)
		}
		return (&Plane{state: s, Settings: settings.Settings{Home: home, Blueprint: file}}).chooseProduct()
	}
	const says = `"sample" is the name of`
	if err := choose(); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("for a new plane: %v", err)
	}
	s, err := state.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	s.Product = &state.Product{Name: "notes", File: file}
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if err := choose(); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("for a plane that never had it: %v", err)
	}
	b, err := local.TakenBefore(file, ofBefore(t, "notes-sample.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := (&local.Platform{Settings: settings.Settings{Home: home}}).KeepBlueprint(b); err != nil {
		t.Fatal(err)
	}
	if err := choose(); err != nil {
		t.Errorf("for the plane that had it: %v", err)
	}
	if err := os.WriteFile(file, append(ofBefore(t, "notes-sample.yaml"), "# another line\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := choose(); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("changed to another that is wrong as well: %v", err)
	}
}
