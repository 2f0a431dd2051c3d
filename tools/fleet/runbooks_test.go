package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Where a finding or an error sends an operator there is a section that says what to do.
func TestEveryRunbookThatIsNamedIsThere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	anchors, titles := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(string(text), -1) {
		titles[m[1]] = true
		anchors[strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	// As "docs/operations.md#a-section", "#a-section" where the page stands in a constant, and "see docs/operations.md, A section".
	link := regexp.MustCompile(`^(?:docs/operations\.md)?#([a-z0-9-]+)$`)
	title := regexp.MustCompile(`docs/operations\.md, ([A-Z][A-Za-z ]+)`)
	named := 0
	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return true
			}
			said, err := strconv.Unquote(l.Value)
			if err != nil {
				return true
			}
			if m := link.FindStringSubmatch(said); m != nil {
				if named++; !anchors[m[1]] {
					t.Errorf("%s sends an operator to #%s, and docs/operations.md has no such section", path, m[1])
				}
			}
			for _, m := range title.FindAllStringSubmatch(said, -1) {
				if named++; !titles[m[1]] {
					t.Errorf("%s sends an operator to %q, and docs/operations.md has no such section", path, m[1])
				}
			}
			return true
		})
		return nil
	})
	const some = 8
	if err != nil || named < some {
		t.Errorf("%d runbooks are named: %v", named, err)
	}
}
