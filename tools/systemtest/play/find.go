package main

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// test is a test function that plays rows.
type test struct {
	// module and pkg say where it stands: services, ./gateway.
	module, pkg, name string
	// tag is the build tag that it needs, if any.
	tag  string
	rows []string
}

// modules have tests that play rows.
func modules() []string { return []string{"libs", "services", "tools"} }

// find are all tests of a checkout whose doc comment names a row, of whichever catalogue.
func find(root string) ([]test, error) {
	known, err := known()
	if err != nil {
		return nil, err
	}
	var out []test
	for _, module := range modules() {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			found, err := testsOf(path, known)
			if err != nil {
				return err
			}
			pkg, err := filepath.Rel(filepath.Join(root, module), filepath.Dir(path))
			for _, t := range found {
				t.module, t.pkg = module, "./"+filepath.ToSlash(pkg)
				out = append(out, t)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for tests: %w", err)
		}
	}
	return out, nil
}

var rowName = regexp.MustCompile(`\b[A-Z][0-9]{1,2}\b`)

// testsOf are a file's tests that name rows.
func testsOf(path string, known map[string]bool) ([]test, error) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var out []test
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") {
			continue
		}
		names := rowName.FindAllString(fn.Doc.Text(), -1)
		names = slices.DeleteFunc(names, func(n string) bool { return !known[n] })
		slices.Sort(names)
		if names = slices.Compact(names); len(names) > 0 {
			out = append(out, test{name: fn.Name.Name, tag: tagOf(f), rows: names})
		}
	}
	return out, nil
}

// known are the rows of both catalogues.
func known() (map[string]bool, error) {
	out := map[string]bool{}
	for _, name := range []string{"attacks", "faults"} {
		c, err := catalogue(name)
		if err != nil {
			return nil, err
		}
		for _, r := range c {
			out[r.Name] = true
		}
	}
	return out, nil
}

// tagOf is the one tag that a file's build constraint asks for; systems and negations ask for none.
func tagOf(f *ast.File) string {
	for _, group := range f.Comments {
		for _, c := range group.List {
			expr, err := constraint.Parse(c.Text)
			if tag, ok := expr.(*constraint.TagExpr); err == nil && ok && c.Pos() < f.Package && tag.Tag != "linux" && tag.Tag != "unix" {
				return tag.Tag
			}
		}
	}
	return ""
}

// batch is one run of go test.
type batch struct {
	module, tag string
	pkgs, tests []string
}

// batches are the runs that play rows: one a module and tag, libs first.
func batches(tests []test, of rows) []batch {
	type key struct{ module, tag string }
	pkgs, names := map[key]map[string]bool{}, map[key]map[string]bool{}
	var keys []key
	for _, t := range tests {
		if !slices.ContainsFunc(t.rows, of.has) {
			continue
		}
		k := key{t.module, t.tag}
		if pkgs[k] == nil {
			pkgs[k], names[k] = map[string]bool{}, map[string]bool{}
			keys = append(keys, k)
		}
		pkgs[k][t.pkg], names[k][t.name] = true, true
	}
	out := make([]batch, 0, len(keys))
	for _, k := range keys {
		out = append(out, batch{k.module, k.tag, slices.Sorted(maps.Keys(pkgs[k])), slices.Sorted(maps.Keys(names[k]))})
	}
	return out
}
