package command

import (
	"path/filepath"
	"testing"

	"a3os.app/tools/internal/advice"
)

// What errors, help and documents tell people to type can be typed.
func TestEveryCommandThatIsToldCanBeTyped(t *testing.T) {
	lines, err := advice.Find(filepath.Join("..", "..", "..", ".."), "a3", "tools", "services", "libs")
	const some = 50
	if err != nil || len(lines) < some {
		t.Fatalf("%d commands of a3 are told: %v", len(lines), err)
	}
	for _, l := range lines {
		if err := l.Check((&app{}).root()); err != nil {
			t.Errorf("%s says %v", l.Where, err)
		}
	}
}
