package additive_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tests of the release before are what notices a migration that the catalogue can't tell is wrong: which release that is, and whether
// they run, is decided by .ci/test-previous.
func TestThePreviousReleaseIsTheOneBeforeAllOfWhatIsNew(t *testing.T) {
	script, err := filepath.Abs("../../.ci/test-previous")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Skipf("which release is the previous one is not tested: the script that chooses it isn't here, for this is not a checkout: %v", err)
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("which release is the previous one is not tested: git is not installed")
	}
	// Hours after each other: what a release brings, three migrations of two services, comes in a day.
	commits := []struct {
		hour        int
		file, named string
	}{
		{0, "services/iam/migrations/00001_iam.sql", "first"},
		{1, "services/audit/migrations/00001_log.sql", "audit"},
		{2, "README.md", "before"},
		{30, "services/registry/migrations/00001_registry.sql", "one"},
		{40, "services/iam/migrations/00002_more.sql", "two"},
		{45, "services/registry/migrations/00002_more.sql", "three"},
		{46, "docs/x.md", "after"},
	}
	for name, c := range map[string]struct {
		last     string // commit
		tag, env string
		hours    int    // of another commit after it
		change   string // of a migration from before, in that commit
		args     string
		want     string // commit, and what is printed of services
	}{
		"nothing tagged":                     {last: "after", want: "before: services: all"},
		"nothing tagged, at the newest":      {last: "three", want: "before: services: all"},
		"a release":                          {last: "after", tag: "1.4.0 one", want: "one: services: all"},
		"an older release":                   {last: "after", tag: "v1.4.0 first", want: "first: services: all"},
		"a release that is made now":         {last: "after", tag: "1.5.0 after", want: "before: services: all"},
		"a tag that is none":                 {last: "after", tag: "nightly one", want: "before: services: all"},
		"one that is named":                  {last: "after", tag: "1.4.0 one", env: "audit", want: "audit: services: all"},
		"services that are named":            {last: "after", args: "audit iam", want: "before: services: audit iam"},
		"in CI":                              {last: "after", args: "--recent", want: "before: services: iam registry"},
		"in CI, where one changed":           {last: "one", args: "--recent", want: "before: services: registry"},
		"in CI, where nothing changed since": {last: "after", hours: 80, args: "--recent", want: "skipped: no migration changed"},
		"in CI, where it is a release's":     {last: "three", tag: "1.4.0 three", hours: 46, args: "--recent", want: "skipped: the schema is that of 1.4.0"},
		"a reason was added":                 {last: "after", hours: 47, change: "-- accepted it: why\naudit", want: "before: services: all"},
		"a reason was added, and no release": {last: "after", tag: "1.4.0 one", hours: 47, change: "-- accepted it: why\naudit", want: "is not what it was"},
		"another statement":                  {last: "after", hours: 47, change: "-- +goose NO TRANSACTION\naudit", want: "is not what it was"},
		"a migration that is gone":           {last: "after", hours: 47, change: "gone", want: "is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run := func(hour int, name string, args ...string) string {
				t.Helper()
				cmd := exec.Command(name, args...)
				at := fmt.Sprintf("@%d +0000", 1_700_000_000+hour*3600)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE="+at, "GIT_AUTHOR_DATE="+at, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "A3_PREVIOUS="+c.env)
				out, err := cmd.CombinedOutput()
				if err != nil && name == "git" {
					t.Fatalf("%s %q: %v\n%s", name, args, err, out)
				}
				return strings.TrimSpace(string(out))
			}
			write := func(file, text string) {
				t.Helper()
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			commit := func(hour int, subject string) {
				t.Helper()
				run(hour, "git", "add", "-A")
				run(hour, "git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", subject)
			}
			run(0, "git", "init", "-q")
			write(".ci/test-previous", string(text))
			write("libs/pg/migrations/00001_scope.sql", "")
			commit(0, "scope")
			hashes := map[string]string{}
			for _, x := range commits {
				write(x.file, x.named)
				commit(x.hour, x.named)
				hashes[run(0, "git", "rev-parse", "HEAD")] = x.named
				run(0, "git", "branch", x.named)
				if x.named == c.last {
					break
				}
			}
			switch c.change {
			case "":
			case "gone":
				if err := os.Remove(filepath.Join(dir, "services/audit/migrations/00001_log.sql")); err != nil {
					t.Fatal(err)
				}
			default:
				write("services/audit/migrations/00001_log.sql", c.change)
			}
			if c.hours > 0 {
				commit(c.hours, "later")
			}
			if tag, at, ok := strings.Cut(c.tag, " "); ok {
				run(0, "git", "tag", tag, at)
			}
			got := run(0, "bash", append([]string{".ci/test-previous", "--which"}, strings.Fields(c.args)...)...)
			for hash, named := range hashes {
				got = strings.ReplaceAll(got, "previous: "+hash+"\n", named+": ")
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCIRunsTheTestsOfThePreviousRelease(t *testing.T) {
	text, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Skipf("that CI runs the tests of the previous release is not tested: CI's script isn't here, for this is not a checkout: %v", err)
	}
	for _, line := range []string{"\nphase previous previous_release\n", "\n  bash .ci/test-previous --recent\n"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("it lacks %q", line)
		}
	}
}
