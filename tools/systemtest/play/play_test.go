package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"a3os.app/tools/systemtest"
)

// world is a checkout with tests of its own, run by the real go.
func world(t *testing.T, source string) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, module := range modules() {
		dir := filepath.Join(root, module)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "go.mod"), "module trial.test/"+module+"\n\ngo 1.26\n")
	}
	put(t, filepath.Join(root, "libs", "trial_test.go"), source)
	return root
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func playAll(t *testing.T, root string) (report, string) {
	t.Helper()
	t.Setenv("GOWORK", "off")
	c, err := catalogue("attacks")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := find(root)
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	results, err := play(t.Context(), root, batches(tests, c), &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	return c.report(tests, results), progress.String()
}

func (r report) line(name string) line {
	return r.Rows[slices.IndexFunc(r.Rows, func(l line) bool { return l.Name == name })]
}

func TestRowIsHeldByTestsThatPassAlone(t *testing.T) {
	r, progress := playAll(t, world(t, `package trial

import "testing"

// Row T1.
func TestHolds(t *testing.T) {
	t.Run("inside", func(t *testing.T) { t.Attr("row", "T1 2") })
	t.Attr("row", "T1 3")
}

// Row T2: what it told before it failed is no case held.
func TestFails(t *testing.T) {
	t.Attr("row", "T2 5")
	t.Error("not refused")
}

// Row T3: its subtest is fine and it is not.
func TestFailsOutside(t *testing.T) {
	t.Run("inside", func(t *testing.T) { t.Attr("row", "T3 1") })
	t.Fail()
}

// Row T5 is named and nothing was tried.
func TestTriesNothing(t *testing.T) {}

// Row T7 can't be tried here.
func TestSkips(t *testing.T) { t.Skip("no door") }

// Row T1, on another machine.
func TestHoldsElsewhere(t *testing.T) { t.Skip("not here") }

// Row T8, and a row that nobody knows.
func TestStrange(t *testing.T) { t.Attr("row", "T8 1"); t.Attr("row", "T99 1") }

func TestOfNoRowIsNotRun(t *testing.T) { t.Fatal("it was run") }
`))
	for name, want := range map[string]string{
		"T1": "held, but for what was skipped: TestHoldsElsewhere", "T2": "FAILED", "T3": "FAILED", "T5": "NOT PLAYED", "T7": "NOT PLAYED", "T8": "held", "T10": "NOT PLAYED",
	} {
		if got := r.line(name).state(); got != want {
			t.Errorf("row %s is %q, want %q", name, got, want)
		}
	}
	if l := r.line("T1"); l.Held != 5 || l.Cases != 5 || l.Failed != 0 {
		t.Errorf("row T1: %+v", l)
	}
	if l := r.line("T2"); l.Held != 0 || l.Failed != 5 {
		t.Errorf("row T2: %+v", l)
	}
	err := r.verdict()
	for _, want := range []string{"T2 failed", "T5 not played", "trial.test/libs TestFails failed", "row T99, which no catalogue has"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the verdict doesn't say %q: %v", want, err)
		}
	}
	for _, want := range []string{"✓ TestHolds", "✗ TestFails", "not refused", "- TestSkips", "no door"} {
		if !strings.Contains(progress, want) {
			t.Errorf("the progress doesn't say %q:\n%s", want, progress)
		}
	}
}

func TestPackageThatDoesNotBuildIsAFailure(t *testing.T) {
	r, _ := playAll(t, world(t, "package trial\n\nimport \"testing\"\n\n// Row T1.\nfunc TestBroken(t *testing.T) { undefined() }\n"))
	if err := r.verdict(); err == nil || len(r.Failed) == 0 || !strings.Contains(err.Error(), "T1 not played") {
		t.Errorf("failed %v, verdict %v", r.Failed, err)
	}
}

func TestProcessThatDiesHoldsNothing(t *testing.T) {
	r, _ := playAll(t, world(t, "package trial\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n// Row T1.\nfunc TestDies(t *testing.T) { t.Attr(\"row\", \"T1 1\"); os.Exit(3) }\n"))
	if got := r.line("T1").state(); got != "FAILED" {
		t.Errorf("row T1 is %q: %v", got, r.verdict())
	}
}

// What another platform could answer otherwise is tried there as well.
func TestRowsOfTheControlPlaneArePlayedOnDockerToo(t *testing.T) {
	tests, err := find(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range systemtest.OnDocker() {
		if !slices.ContainsFunc(tests, func(x test) bool { return x.name == name && x.pkg == "./systemtest" }) {
			t.Errorf("no system test that plays a row is called %s", name)
		}
	}
	for which, want := range map[string][]string{"attacks": {"H15", "H20", "H21", "C45", "C46", "C47", "C49", "F50", "F52"}, "faults": {"F16", "F17", "F25", "F32", "F33"}} {
		all, err := catalogue(which)
		if err != nil {
			t.Fatal(err)
		}
		on, rows := playedOn("docker", tests, all)
		for _, name := range want {
			if !rows.has(name) {
				t.Errorf("row %s is not played on docker", name)
			}
		}
		if len(rows) != len(want) || len(on) >= len(tests) {
			t.Errorf("on docker %d rows of %s are played by %d tests of %d", len(rows), which, len(on), len(tests))
		}
		if on, rows = playedOn("", tests, all); len(rows) != len(all) || len(on) != len(tests) {
			t.Errorf("elsewhere %d rows of %s are played by %d tests of %d", len(rows), which, len(on), len(tests))
		}
	}
}

// What tells its rows must be found by its comment, or it would never be run for them; what tells them for a test, by that of a test beside it.
func TestEveryTestThatTellsRowsNamesThem(t *testing.T) {
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	all, err := known()
	if err != nil {
		t.Fatal(err)
	}
	// The rows that tests of a package name, and what else tells some there.
	type teller struct{ pkg, name, row string }
	named, helped := map[string][]string{}, []teller(nil)
	for _, module := range modules() {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			pkg := filepath.Dir(path)
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				if !strings.HasPrefix(fn.Name.Name, "Test") {
					for _, name := range told(fn.Body) {
						helped = append(helped, teller{pkg, fn.Name.Name, name})
					}
					continue
				}
				if text := crowded(fn.Body); text != "" {
					t.Errorf("%s: %s tells %s in one attribute, which is read as none: write one for each row", path, fn.Name.Name, text)
				}
				names := rowName.FindAllString(fn.Doc.Text(), -1)
				named[pkg] = append(named[pkg], names...)
				for _, name := range told(fn.Body) {
					if !all[name] || !slices.Contains(names, name) {
						t.Errorf("%s: %s tells cases of row %s: name the row in its comment, and in a catalogue", path, fn.Name.Name, name)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range helped {
		if !all[h.row] || !slices.Contains(named[h.pkg], h.row) {
			t.Errorf("%s: %s tells cases of row %s, which no test there names: name the row in the comment of the test that calls it", h.pkg, h.name, h.row)
		}
	}
}

// told are the rows in calls of t.Attr("row", …) and held(…), as far as they stand there in letters.
func told(body *ast.BlockStmt) []string {
	var out []string
	ast.Inspect(body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !tells(call) {
			return true
		}
		ast.Inspect(call, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				out = append(out, rowName.FindAllString(lit.Value, -1)...)
			}
			return true
		})
		return true
	})
	return out
}

// crowded is the text of a call that tells more than one row; empty for none.
func crowded(body *ast.BlockStmt) (text string) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && tells(call) {
			ast.Inspect(call, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && len(rowName.FindAllString(lit.Value, -1)) > 1 {
					text = lit.Value
				}
				return true
			})
		}
		return true
	})
	return text
}

func tells(call *ast.CallExpr) bool {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return fn.Name == "held"
	case *ast.SelectorExpr:
		if len(call.Args) == 0 {
			return false
		}
		key, literal := call.Args[0].(*ast.BasicLit)
		return fn.Sel.Name == "Attr" && literal && key.Value == `"row"`
	}
	return false
}
