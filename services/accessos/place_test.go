package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFilesArePlacedForTheirUserAlone(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "keys", "log")
	for _, text := range []string{"first", "second"} {
		if code := place([]string{"A3_FILE_1=" + text, "A3_FILE_1_PATH=" + at, "A3_PLANE=dev"}); code != 0 {
			t.Fatalf("it ends with %d", code)
		}
		if have, err := os.ReadFile(at); err != nil || string(have) != text {
			t.Fatalf("it holds %q, %v", have, err)
		}
	}
	for path, want := range map[string]os.FileMode{at: 0o600, filepath.Dir(at): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
		}
	}
}

func TestFilesThatAreHalfSaidAreNotPlaced(t *testing.T) {
	at := filepath.Join(t.TempDir(), "x")
	for _, environ := range [][]string{
		{"A3_FILE_1=x"}, {"A3_FILE_1_PATH=" + at}, {"A3_FILE_1=", "A3_FILE_1_PATH=" + at}, {"A3_FILE_1=x", "A3_FILE_1_PATH=x"}, {"A3_FILE_1=x", "A3_FILE_2_PATH=" + at},
		{"A3_FILE_1=x", "A3_FILE_1_PATH=" + at, "A3_FILE_2=y"},
	} {
		if code := place(environ); code != exitUsage {
			t.Errorf("%q: it ends with %d, want %d", environ, code, exitUsage)
		}
	}
	if _, err := os.Stat(at); err == nil {
		t.Error("a file was written all the same")
	}
}
