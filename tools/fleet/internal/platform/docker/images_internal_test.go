package docker

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/image"
)

// A library that the machine's updates mended makes another image of the same version of PostgreSQL, whatever its length and date.
func TestMendedLibraryIsAnotherImage(t *testing.T) {
	library, date := filepath.Join(t.TempDir(), "libssl.so.3"), time.Now().Add(-time.Hour)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, date, date); err != nil {
			t.Fatal(err)
		}
	}
	key := func() string {
		t.Helper()
		k, err := serverKey(image.Spec{Files: map[string]string{"/lib/libssl.so.3": library}})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write(library, "3.0.17")
	before := key()
	if again := key(); again != before {
		t.Errorf("a second time it is %s, and was %s", again, before)
	}
	// As a package manager does: another file is put into its place.
	write(library+".new", "3.0.18")
	if err := os.Rename(library+".new", library); err != nil {
		t.Fatal(err)
	}
	if after := key(); after == before {
		t.Errorf("with another library it is %s all the same", after)
	}
	if _, err := serverKey(image.Spec{Files: map[string]string{"/gone": library + ".gone"}}); err == nil {
		t.Error("a file that is gone is in an image")
	}
}
