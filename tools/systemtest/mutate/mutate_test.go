package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// So that a change of the code that a mutation no longer fits is seen at once, and not by whoever next runs them all.
func TestEveryMutationFitsTheCode(t *testing.T) {
	here := &tree{dir: filepath.Join("..", "..", "..")}
	all := mutations()
	const atLeast = 25
	if len(all) < atLeast {
		t.Errorf("only %d mutations, want at least %d", len(all), atLeast)
	}
	seen := map[string]bool{}
	for _, m := range all {
		if err := here.fits(m); err != nil {
			t.Error(err)
		}
		if seen[m.name] || len(m.looks) == 0 {
			t.Errorf("%s stands there twice, or says nowhere to look", m.name)
		}
		seen[m.name] = true
	}
}

// trial is a module with one guarded thing, run by the real go.
func trial(t *testing.T) *tree {
	t.Helper()
	t.Setenv("GOWORK", "off")
	dir := filepath.Join(t.TempDir(), "libs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":        "module trial.test/libs\n\ngo 1.26\n",
		"guard.go":      "package libs\n\nfunc Guard(n int) bool { return n > 0 }\n\nfunc Idle() int { return 1 }\n",
		"guard_test.go": "package libs\n\nimport \"testing\"\n\nfunc TestGuard(t *testing.T) {\n\tif Guard(-1) {\n\t\tt.Fail()\n\t}\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &tree{filepath.Dir(dir)}
}

func TestWhoNoticesIsNamedAndWhatNobodyNoticesSurvives(t *testing.T) {
	tree, look := trial(t), in("libs", ".")
	by, err := tree.try(t.Context(), one("the guard", "libs/guard.go", "n > 0", "true", look))
	if err != nil || by != "TestGuard" {
		t.Errorf("the guard gone: caught by %q, %v", by, err)
	}
	by, err = tree.try(t.Context(), one("idleness", "libs/guard.go", "return 1", "return 2", look))
	if err != nil || by != "" {
		t.Errorf("what nobody looks at: caught by %q, %v", by, err)
	}
	if _, err := tree.try(t.Context(), one("sense", "libs/guard.go", "return 1", "return none", look)); !errors.Is(err, errDoesNotBuild) {
		t.Errorf("what doesn't build counts as noticed: %v", err)
	}
	if err := tree.fits(one("the guard", "libs/guard.go", "n > 0", "", look)); err != nil {
		t.Errorf("it was not put back: %v", err)
	}
	if err := tree.fits(one("the past", "libs/guard.go", "n > 1", "", look)); err == nil {
		t.Error("what no longer fits is taken")
	}
	if err := verdict([]outcome{{Name: "the guard", CaughtBy: "TestGuard"}, {Name: "idleness"}}); err == nil || !strings.Contains(err.Error(), "idleness") {
		t.Errorf("a survivor is no failure: %v", err)
	}
}
