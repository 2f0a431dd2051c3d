package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
)

// Whoever carries sets out, keeps records of them or leads to them learns from a blueprint what they consist of. So no component of
// AccessOS is known there by its name, and no API of one is called, but where the reason says.
func TestNoServiceIsKnownByName(t *testing.T) {
	literals := map[string]string{
		"services/registry/internal/naming iam":              "slugs that nobody may have, whatever the product",
		"services/registry/internal/naming audit":            "slugs that nobody may have",
		"services/registry/internal/naming discovery":        "slugs that nobody may have",
		"services/registry/internal/naming discovery-worker": "slugs that nobody may have",
		"services/registry/internal/naming integrations":     "slugs that nobody may have",
		"tools/fleet/internal/quota iam":                     "what AWS calls its own service of identities",
		"tools/fleet/internal/platform/aws/stacktest iam":    "what AWS calls its own service of identities, in names of the emulator's",
	}
	apis := map[string]string{
		"tools/fleet/internal/welcome iam":          "plane up shows a newcomer AccessOS at work; another product's plane skips it",
		"tools/fleet/internal/welcome discovery":    "plane up shows a newcomer AccessOS at work",
		"tools/fleet/internal/welcome integrations": "plane up shows a newcomer AccessOS at work",
	}
	product, err := blueprint.AccessOS()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range product.Components {
		names[c.Name] = true
	}
	if !names["iam"] || !names["discovery-worker"] {
		t.Fatalf("AccessOS has the components %v", slices.Sorted(maps.Keys(names)))
	}
	root, files := filepath.Join("..", ".."), 0
	seen := map[string]bool{}
	for _, dir := range []string{"tools/fleet", "services/registry", "services/gateway"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			where := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
			for _, i := range file.Imports {
				area, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "a3os.app/proto/gen/go/a3os/")
				if area, _, _ = strings.Cut(area, "/"); ok && names[area] {
					at := filepath.ToSlash(filepath.Dir(where)) + " " + area
					if seen[at] = true; apis[at] == "" {
						t.Errorf("%s calls the API of %s: what every product has belongs into a3os.set or the blueprint", where, area)
					}
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				l, ok := n.(*ast.BasicLit)
				if !ok || l.Kind != token.STRING {
					return true
				}
				if text, err := strconv.Unquote(l.Value); err == nil && names[text] {
					at := filepath.ToSlash(filepath.Dir(where)) + " " + text
					if seen[at] = true; literals[at] == "" {
						t.Errorf("%s knows %q by name: what it wants to know of it belongs into the blueprint", where, text)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, exceptions := range []map[string]string{literals, apis} {
		for at := range exceptions {
			if !seen[at] {
				t.Errorf("%s is excepted and isn't there any more: take it off the list", at)
			}
		}
	}
	if files < 100 {
		t.Errorf("only %d files were read", files)
	}
}
