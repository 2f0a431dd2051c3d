package command

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"a3os.app/tools/fleet/internal/settings"
)

// form is what an argument is like. The registry would refuse another one by its own pattern, which tells a person nothing of what they pasted.
type form struct {
	like *regexp.Regexp
	// is what it is called, with an example, and where those there are can be seen.
	is, see string
	// begins is what may be left out of its beginning.
	begins string
}

// idOf is the form of ids that begin with a word.
func idOf(word string) *regexp.Regexp {
	return regexp.MustCompile(`^` + word + `_[0-7][0-9a-hjkmnp-tv-z]{25}$`)
}

// forms are those of arguments by their name, or by their command's group and their name.
var forms = map[string]form{
	"HASH":          {regexp.MustCompile(`^sha256:[0-9a-f]{12,64}$`), "a plan's hash, as sha256:9f2c41d07ab3, 12 to 64 digits of it", "fleet plan list", "sha256:"},
	"operation ID":  {idOf("opr"), "an operation's id, which is opr_ and 26 characters", "fleet operation list", ""},
	"rollout ID":    {idOf("rol"), "a rollout's id, which is rol_ and 26 characters", "fleet rollout list", ""},
	"operator NAME": {settings.OperatorName, "an operator's name: 1 to 23 lower-case letters, digits and hyphens, a letter or a digit first and last", "fleet operator list", ""},
}

// exactly refuses any other number of arguments than the names say, with how the command is called, and one that is of no form of its name's.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(names) {
			called := c.CommandPath()
			if _, rest, ok := strings.Cut(c.Use, " "); ok {
				called += " " + rest
			}
			return usageError{fmt.Errorf("it is called as: %s", called)}
		}
		for i, name := range names {
			f, ok := forms[name]
			if c.HasParent() && !ok {
				f, ok = forms[c.Parent().Name()+" "+name]
			}
			if f.begins != "" && f.like.MatchString(f.begins+args[i]) {
				args[i] = f.begins + args[i] // the very arguments that the command is run with
			}
			if ok && !f.like.MatchString(args[i]) {
				return usageError{fmt.Errorf("%q is not %s: see %s", args[i], f.is, f.see)}
			}
		}
		return nil
	}
}

// atLeastOne refuses a number of nothing.
func atLeastOne(flag string, n int, what string) error {
	if n < 1 {
		return usageError{fmt.Errorf("%s is %d: it is %s, 1 or more", flag, n, what)}
	}
	return nil
}
