package all_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A connector reaches out by its source's dialler alone. What connects by itself is named here, so that a connector to come can't
// forget it: whoever needs an HTTP client gives it a transport whose DialContext is the source's.
func TestConnectorsReachOutByTheirSourcesDiallerAlone(t *testing.T) {
	forbidden := map[string][]string{
		"net":        {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix", "DialIP", "Dialer"},
		"net/http":   {"Get", "Post", "PostForm", "Head", "DefaultClient", "DefaultTransport"},
		"crypto/tls": {"Dial", "DialWithDialer", "Dialer"},
	}
	seen := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "connectortest") {
			return err
		}
		seen++
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		names := map[string][]string{}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			name := filepath.Base(imported)
			if i.Name != nil {
				name = i.Name.Name
			}
			names[name] = forbidden[imported]
		}
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := s.X.(*ast.Ident); ok {
				for _, bad := range names[pkg.Name] {
					if s.Sel.Name == bad {
						t.Errorf("%s: %s.%s reaches out past the source's dialler", fset.Position(s.Pos()), pkg.Name, bad)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("only %d files were looked at: where are the connectors?", seen)
	}
}
