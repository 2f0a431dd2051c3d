package release_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"a3os.app/libs/release"
)

const askChild = "A3_TEST_OWN_RELEASE"

// TestMain lets this program be the process that is asked.
func TestMain(m *testing.M) {
	if told, asked := os.LookupEnv(askChild); asked {
		// What was there when the process started is gone from where it was.
		if self, err := os.Executable(); err != nil || os.Remove(self) != nil {
			os.Exit(3)
		}
		n, err := release.Own(told)
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(4)
		}
		_, _ = os.Stdout.WriteString(n.String())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestProcessSaysTheDigestOfItsOwnProgramWhateverItIsTold(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	// Another program in all but what it does: bytes after the end of an ELF file are nobody's.
	for name, content := range map[string][]byte{"as built": program, "another": append(bytes.Clone(program), "another"...)} {
		want := release.Digest(content)
		for told, version := range map[string]string{"1.2.3@" + release.Digest(nil): "1.2.3", "": release.Development, "a b": release.Development} {
			path := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(path, content, 0o700); err != nil { //nolint:gosec // G306: it is to be run
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), path)
			cmd.Env = append(os.Environ(), askChild+"="+told)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s, told %q: %v", name, told, err)
			}
			if string(out) != version+"@"+want {
				t.Errorf("%s, told %q, says %s, want %s@%s", name, told, out, version, want)
			}
		}
	}
}
