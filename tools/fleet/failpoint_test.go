package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// At each point that fleet's source passes some test has it killed, or another thing happen: what is named by none is tried by none.
func TestEveryPointOfFleetIsOfSomeTest(t *testing.T) {
	passed, named := regexp.MustCompile(`failpoint\.Here\("(fleet\.[^"]+)"\)`), regexp.MustCompile("[\"`](?:A3_FAILPOINT=)?(fleet\\.[a-z]+\\.[a-z-]+)( [^\"`]*)?[\"`]")
	var points, tried []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		find, into := passed, &points
		if strings.HasSuffix(path, "_test.go") {
			find, into = named, &tried
		}
		for _, m := range find.FindAllSubmatch(source, -1) {
			*into = append(*into, string(m[1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const least = 30
	if len(points) < least {
		t.Errorf("fleet passes %q: this finds fewer than there are", points)
	}
	for _, point := range points {
		if !slices.Contains(tried, point) {
			t.Errorf("no test has anything happen at %s", point)
		}
	}
}
