package command

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"a3os.app/tools/internal/advice"
)

// What errors, help and documents tell people to type can be typed.
func TestEveryCommandThatIsToldCanBeTyped(t *testing.T) {
	lines, err := advice.Find(filepath.Join("..", "..", "..", ".."), "fleet", "tools", "services", "libs")
	const some = 50
	if err != nil || len(lines) < some {
		t.Fatalf("%d commands of fleet are told: %v", len(lines), err)
	}
	for _, l := range lines {
		if err := l.Check((&app{}).root()); err != nil {
			t.Errorf("%s says %v", l.Where, err)
		}
	}
}

// What stands between backquotes in a flag's help is shown as its value.
func TestHelpShowsNoWordAsTheValueOfAFlag(t *testing.T) {
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if strings.Contains(f.Usage, "`") {
				t.Errorf("--%s of %s: %s", f.Name, c.CommandPath(), f.Usage)
			}
		})
		for _, below := range c.Commands() {
			look(below)
		}
	}
	look((&app{}).root())
}
