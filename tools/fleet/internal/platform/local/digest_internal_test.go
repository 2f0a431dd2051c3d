package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// remembered begins anew, as the next command of a home does.
func remembered(t *testing.T, home string) {
	t.Helper()
	digests.Lock()
	digests.file, digests.known = "", nil
	digests.Unlock()
	RememberDigests(home)
}

// aged is a file whose last change is long enough ago for its digest to be kept: the one time that is waited for, since nobody sets ctime.
func aged(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(digestsOf(path)) == 0; time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // the kernel's clock is what is waited for
		if _, err := digestOf(path); err != nil || time.Now().After(deadline) {
			t.Fatalf("the digest of %s is never kept (%v)", path, err)
		}
	}
}

func TestDigestIsKeptForTheNextCommandAndOnlyForTheFileThatItIsOf(t *testing.T) {
	home := t.TempDir()
	remembered(t, home)
	t.Cleanup(func() { remembered(t, t.TempDir()) })
	program := filepath.Join(home, "program")
	aged(t, program, "one")
	want, err := digestOf(program)
	if err != nil {
		t.Fatal(err)
	}

	// What is kept is taken, or the next command would read it all again: a lie that is kept shows it.
	keep := filepath.Join(home, "digests.json")
	text, err := os.ReadFile(keep)
	if err != nil {
		t.Fatal(err)
	}
	lie := strings.ReplaceAll(string(text), want, "sha256:kept")
	if err := os.WriteFile(keep, []byte(lie), 0o600); err != nil {
		t.Fatal(err)
	}
	remembered(t, home)
	if got, err := digestOf(program); err != nil || got != "sha256:kept" {
		t.Errorf("what was kept is not taken: %s (%v)", got, err)
	}

	// A file that others may have written is not believed.
	if err := os.Chmod(keep, 0o666); err != nil { //nolint:gosec // that is what is tried
		t.Fatal(err)
	}
	remembered(t, home)
	if got, err := digestOf(program); err != nil || got != want {
		t.Errorf("a file of digests that everybody may write is believed: %s, want %s (%v)", got, want, err)
	}

	// Of the same length, and with the times that it had: the kernel's own time of the change tells it.
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(program, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got, err := digestOf(program); err != nil || got == want || got == "sha256:kept" {
		t.Errorf("a program that was changed keeps the digest %s (%v)", got, err)
	}
}

// Where a digest can't be kept, as on a full disk, that is what is said, and not that a program is another one.
func TestProgramIsNotSaidToBeAnotherWhereItsDigestCouldNotBeKept(t *testing.T) {
	home := t.TempDir()
	remembered(t, home)
	t.Cleanup(func() { remembered(t, t.TempDir()) })
	program := filepath.Join(home, "program")
	aged(t, program, "one")
	digest := digestsOf(program)[program].SHA256
	digests.Lock()
	delete(digests.known, program)
	digests.Unlock()
	// Nothing can be put in the place of a directory.
	keep := filepath.Join(home, "digests.json")
	if err := errors.Join(os.Remove(keep), os.Mkdir(keep, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Platform{}).Keep("accessos", program, digest); err == nil || !strings.Contains(err.Error(), "digests.json") || strings.Contains(err.Error(), "another program") {
		t.Errorf("it is told %v", err)
	}
}
