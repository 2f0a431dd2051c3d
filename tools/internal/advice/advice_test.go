package advice_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"a3os.app/tools/internal/advice"
)

func root() *cobra.Command {
	does := func(use string, required ...string) *cobra.Command {
		c := &cobra.Command{Use: use, Run: func(*cobra.Command, []string) {}}
		c.Flags().String("reason", "", "")
		c.Flags().Bool("all", false, "")
		for _, name := range required {
			_ = c.MarkFlagRequired(name)
		}
		return c
	}
	r, plan := &cobra.Command{Use: "fleet"}, &cobra.Command{Use: "plan"}
	r.PersistentFlags().StringP("output", "o", "", "")
	plan.AddCommand(does("list"), does("suspend", "reason"))
	r.AddCommand(plan, does("approve", "reason"), does("status"))
	return r
}

// What a text says is let through where it can be typed, or is no command, and named where it can't.
func TestWhatCanNotBeTypedIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		`"see fleet plan list"`:    "",
		`"see fleet plan suspend"`: "",
		`"it is done with fleet approve HASH --reason '…', by another"`:          "",
		`"fleet -o json status says it"`:                                         "",
		`"the fleet of before"`:                                                  "",
		`"  fleet approve sha256:9f2c --reason \"read it\""`:                     "",
		"\"a line\\n  bin/fleet status --all\"":                                  "",
		`"fleet approve " + hash + " --reason '…'"`:                              "",
		`"see fleet status --help"`:                                              "",
		`"make one with fleet plan rollout"`:                                     `no command "rollout"`,
		`"see fleet status --new"`:                                               "no flag --new",
		`"fleet plan suspend --all"`:                                             "without --reason",
		`"somebody must fleet approve %s"`:                                       "without --reason",
		`"fleet approve " + hash`:                                                "without --reason",
		"\"type `fleet stop`\"":                                                  `no command "stop"`,
		`"  fleet approve sha256:9f2c"`:                                          "without --reason",
		"\"`fleet status`, or fleet approve HASH, and so on\"":                   "without --reason",
		`"two: fleet plan list, fleet plan suspend --all; and fleet status now"`: "without --reason",
	} {
		got := found(t, "package p\n\nvar hash, text = \"\", "+text+"\n", "")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("of %s it is said %q, want %q", text, got, want)
		}
	}
}

// In a document what stands in code is read, and what stands in prose is not.
func TestCodeOfDocumentsIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"fleet stop is no more":                                                      "",
		"type `bin/fleet status --all`":                                              "",
		"type\n`fleet plan\nsuspend --all`":                                          "without --reason",
		"so:\n\n    fleet plan list\n    fleet stop\n":                               `no command "stop"`,
		"so:\n\n    A3_OPERATOR=ben bin/fleet approve X\n":                           "without --reason",
		"so:\n\n    fleet status && fleet stop\n":                                    `no command "stop"`,
		"```\nfleet status --new\n```\n":                                             "no flag --new",
		"so:\n\n    fleet approve HASH \\\n        --reason \"…\"    # as another\n": "",
	} {
		if got := found(t, "package p\n", text); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("of %q it is said %q, want %q", text, got, want)
		}
	}
}

func found(t *testing.T, code, document string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"p/p.go": code, "docs/a.md": document, "README.md": ""} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := advice.Find(dir, "fleet", "p")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range lines {
		if err := l.Check(root()); err != nil {
			out = append(out, err.Error())
		}
	}
	return strings.Join(out, "\n")
}
