// Package notestest lays the other product beside its blueprint, as a product is delivered, for tests of whichever platform.
package notestest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const program = "a3os.app/tools/systemtest/notes"

// Product lays the program and its blueprint side by side in a new directory, and answers the blueprint's file; the program is `notes` beside it.
func Product(t testing.TB) (file string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "product")
	Build(t, filepath.Join(dir, "notes"), "")
	file = filepath.Join(dir, "notes.yaml")
	if err := os.WriteFile(file, []byte(Blueprint(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Blueprint is the text of the product's blueprint.
func Blueprint(t testing.TB) string {
	t.Helper()
	dir := command(t, "list", "-f", "{{.Dir}}", program)
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(dir), "notes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Build builds the program, of a later release where that knows a setting more, which later is the name of.
func Build(t testing.TB, file, later string) {
	t.Helper()
	command(t, "build", "-ldflags", "-X main.later="+later, "-o", file, program)
}

// command runs go, and answers what it printed. What it builds runs where there is nothing else.
func command(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=", "CGO_ENABLED=0")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, said.String())
	}
	return string(out)
}
