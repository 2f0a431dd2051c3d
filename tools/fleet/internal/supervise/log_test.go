package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFullLogIsSetAsideAndTheOldestGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	log, err := openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two", "three", "four"} {
		if _, err := log.Write([]byte(strings.Repeat(word, 20))); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{path: "four", path + ".1": "three", path + ".2": "two"} {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s holds %.10q (%v), want %q", file, text, err, want)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("the oldest is still there")
	}
}

func TestBackOffDoublesFromNothingToHalfAMinute(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: 0, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 5: 1600 * time.Millisecond, 10: 30 * time.Second, 1000: 30 * time.Second} {
		if got := backOff(failures); got != want {
			t.Errorf("after %d ends the pause is %s, want %s", failures, got, want)
		}
	}
}
