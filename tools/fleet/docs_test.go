package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The map of the repository names each package of libs once, and none that isn't there.
func TestTheMapNamesEachLibrary(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for line := range strings.Lines(string(text)) {
		if cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | "); strings.HasPrefix(cell, "`libs/") {
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				named = append(named, strings.TrimPrefix(name[1], "libs/"))
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "libs"))
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "internal" {
			there = append(there, e.Name())
		}
	}
	slices.Sort(named)
	if !slices.Equal(named, there) {
		t.Errorf("docs/architecture.md names %v\nand there are %v", named, there)
	}
}
