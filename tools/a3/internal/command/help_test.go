package command

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func TestEveryCommandExplainsItself(t *testing.T) {
	a := &app{now: time.Now}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if len(c.Short) == 0 || len(c.Short) > 100 || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its short description is %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, "a3 ") {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(a.root())
}

func TestCommandsHaveTheNamesThatScriptsRelyOn(t *testing.T) {
	a := &app{now: time.Now}
	root := a.root()
	for group, names := range map[string]string{
		"": "login token whoami", "profile": "list", "workspace": "list create get transfer", "member": "list add remove set-role",
		"user": "list invite reinvite deactivate", "service-account": "create list delete", "integration": "list add test get remove",
		"discovery": "run status list cancel", "access": "list who why show", "audit": "list verify", "key": "list rotate",
	} {
		for name := range strings.FieldsSeq(names) {
			path := strings.Fields(group + " " + name)
			if c, rest, err := root.Find(path); err != nil || len(rest) != 0 || c.Name() != name {
				t.Errorf("there is no command %q (%v)", path, err)
			}
		}
	}
}
