package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// Variables of place: A3_FILE_1 is what lies at A3_FILE_1_PATH.
const (
	filePrefix = "A3_FILE_"
	pathSuffix = "_PATH"
)

// place writes each file, for its own user alone. No error holds what a file does.
func place(environ []string) int {
	texts, paths := map[string]string{}, map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		number, ours := strings.CutPrefix(name, filePrefix)
		if !ours {
			continue
		}
		if of, isPath := strings.CutSuffix(number, pathSuffix); isPath {
			paths[of] = value
		} else {
			texts[number] = value
		}
	}
	for _, number := range slices.Sorted(maps.Keys(texts)) {
		if paths[number] == "" {
			fmt.Fprintf(os.Stderr, "accessos: %s%s has no path: say it in %s%s%s\n", filePrefix, number, filePrefix, number, pathSuffix)
			return exitUsage
		}
	}
	for _, number := range slices.Sorted(maps.Keys(paths)) {
		text, given := texts[number]
		switch {
		case !given || text == "":
			fmt.Fprintf(os.Stderr, "accessos: %s%s is empty: it is what %s holds\n", filePrefix, number, paths[number])
			return exitUsage
		case !filepath.IsAbs(paths[number]):
			fmt.Fprintf(os.Stderr, "accessos: %s%s%s is %q: it is a path from the root\n", filePrefix, number, pathSuffix, paths[number])
			return exitUsage
		}
		if err := placeFile(paths[number], text); err != nil {
			fmt.Fprintf(os.Stderr, "accessos: write %s: %v\n", paths[number], err)
			return exitFailed
		}
	}
	return 0
}

func placeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(path, []byte(text), 0o600, renameio.WithTempDir(filepath.Dir(path)))
}
