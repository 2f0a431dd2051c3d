// Package advice finds the commands that texts tell people to type, in errors, help and documents, and says whether they can be typed: that a command
// is there, with each flag that is named, and that none is left out without which it refuses. A command that is named alone, without any
// argument, is a reference and not a line to type. It relies on how such texts are written: in prose a command ends where an ordinary word
// begins, and one that stands in quotes, in a code span or block, or on a line of its own that is indented, ends with that.
package advice

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Line is a command as a text has it.
type Line struct {
	// Where is the file.
	Where string
	// Text begins with the program's name.
	Text string
	// Whole says that all of it is the command; else it goes on as prose, and may not be a command at all.
	Whole bool
}

// Find finds the lines of one program: in the string literals of what is not a test below some directories of a checkout, and in the code of its documents.
func Find(root, program string, dirs ...string) ([]Line, error) {
	var out []Line
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			said, err := literals(path)
			for _, text := range said {
				out = append(out, inProse(path, program, text)...)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	for _, path := range append(documents, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, code := range codeOf(string(text)) {
			out = append(out, inCode(path, program, code)...)
		}
	}
	return out, nil
}

// literals are the strings of a Go file. What is put together with + is one, with ARG for each part that isn't a literal.
func literals(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil || ast.IsGenerated(file) {
		return nil, err
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		text, is := put(e)
		if is {
			out = append(out, text)
		}
		return !is
	})
	return out, nil
}

func put(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, l := put(e.X)
		right, r := put(e.Y)
		if e.Op != token.ADD || !l && !r {
			return "", false
		}
		if !l {
			left = "ARG"
		}
		if !r {
			right = "ARG"
		}
		return left + right, true
	default:
		return "", false
	}
}

// command matches a program's name that stands by itself, with what follows on its line.
func command(program string) *regexp.Regexp {
	return regexp.MustCompile("(?m)(^|[\\s`\"(=;:])(?:bin/)?(" + program + "(?: [^\n]*|$))")
}

// inProse finds what a sentence or a help text says.
func inProse(where, program, text string) []Line {
	var out []Line
	form := command(program)
	for at := 0; ; {
		m := form.FindStringSubmatchIndex(text[at:])
		if m == nil {
			return out
		}
		before, line := text[at+m[2]:at+m[3]], text[at+m[4]:at+m[5]]
		start := strings.LastIndexByte(text[:at+m[4]], '\n') + 1
		indent, _, _ := strings.Cut(text[start:], program)
		l := Line{Where: where, Text: line, Whole: strings.HasPrefix(indent, "  ") && strings.Trim(strings.TrimSuffix(indent, "bin/"), " ") == ""}
		if before == "`" || before == `"` {
			inside, _, closed := strings.Cut(line, before)
			l.Text, l.Whole = inside, closed
		}
		out = append(out, l)
		at += m[4] + len(program)
	}
}

// inCode finds what a code span or block has.
func inCode(where, program, code string) []Line {
	var out []Line
	for _, m := range command(program).FindAllStringSubmatch(strings.ReplaceAll(code, "\\\n", " "), -1) {
		out = append(out, Line{Where: where, Text: m[2], Whole: true})
		if _, second, ok := strings.Cut(m[2], "&& "); ok {
			out = append(out, inCode(where, program, second)...)
		}
	}
	return out
}

var span = regexp.MustCompile("`([^`]+)`")

// codeOf is the code of a document: its blocks, fenced or indented, and its spans, which may go over the end of a line.
func codeOf(document string) []string {
	var out, prose []string
	var block strings.Builder
	fenced, blank := false, true
	for line := range strings.Lines(document) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(line, "    ") && (blank || block.Len() > 0):
			block.WriteString(line)
		default:
			out, prose = append(out, block.String()), append(prose, line)
			block.Reset()
		}
		blank = strings.TrimSpace(line) == ""
	}
	out = append(out, block.String())
	for _, paragraph := range strings.Split(strings.Join(prose, ""), "\n\n") {
		for _, m := range span.FindAllStringSubmatch(paragraph, -1) {
			out = append(out, strings.Join(strings.Fields(m[1]), " "))
		}
	}
	return out
}

var (
	word        = regexp.MustCompile(`'[^']*'?|"[^"]*"?|\$\([^)]*\)|[^\s'"]+`)
	ends        = regexp.MustCompile(`^([^\s]*?[^\s,;:.)])?([,;:.)]+)$`)
	ordinary    = regexp.MustCompile(`^[a-z][a-z’'-]*$`)
	placeholder = regexp.MustCompile(`^[A-Z]|%[a-z]|…|^['"$<]|[=/@]`)
)

// Check says why a line can't be typed; nil where it can, or is no command.
func (l Line) Check(root *cobra.Command) error {
	at := &typed{cmd: root}
	words := word.FindAllString(strings.NewReplacer("[", " ", "]", " ").Replace(l.Text), -1)
	for i := 1; i < len(words) && !at.ended; i++ {
		w, last := words[i], false
		if m := ends.FindStringSubmatch(w); m != nil {
			w, last = m[1], true
		}
		if w == "" || w == "#" || w == "&&" || w == "|" || w == ">" || w == "—" {
			break
		}
		if err := at.take(w, l.Whole); err != nil {
			return fmt.Errorf("%q: %w", l.Text, err)
		}
		at.ended = at.ended || last
	}
	if err := at.whole(); err != nil {
		return fmt.Errorf("%q: %w", l.Text, err)
	}
	return nil
}

// typed is a command as far as it was read.
type typed struct {
	cmd   *cobra.Command
	given []string
	args  []string
	// value says that the next word is a flag's.
	value, ended bool
}

func (t *typed) take(w string, whole bool) error {
	if t.value {
		t.value = false
		return nil
	}
	if strings.HasPrefix(w, "-") && len(w) > 1 {
		return t.flag(w)
	}
	if len(t.args) == 0 {
		for _, c := range t.cmd.Commands() {
			if c.Name() == w || c.HasAlias(w) {
				// What stands before it is the program's.
				t.cmd, t.given = c, nil
				return nil
			}
		}
	}
	switch {
	case t.cmd.HasSubCommands() && (whole || t.cmd.HasParent() && ordinary.MatchString(w)):
		return fmt.Errorf("%s has no command %q", t.cmd.CommandPath(), w)
	case t.cmd.HasSubCommands(), !whole && !placeholder.MatchString(w):
		t.ended = true
	default:
		t.args = append(t.args, w)
	}
	return nil
}

func (t *typed) flag(w string) error {
	t.cmd.InitDefaultHelpFlag()
	name, _, valued := strings.Cut(strings.TrimLeft(w, "-"), "=")
	var f *pflag.Flag
	// Those of the program may stand before the command.
	for _, set := range []*pflag.FlagSet{t.cmd.Flags(), t.cmd.PersistentFlags(), t.cmd.InheritedFlags()} {
		if strings.HasPrefix(w, "--") && f == nil {
			f = set.Lookup(name)
		} else if f == nil && len(name) == 1 {
			f = set.ShorthandLookup(name)
		}
	}
	if f == nil {
		return fmt.Errorf("%s has no flag %s", t.cmd.CommandPath(), w)
	}
	t.given = append(t.given, f.Name)
	t.value = !valued && f.NoOptDefVal == ""
	return nil
}

// whole refuses a line that lacks what the command demands.
func (t *typed) whole() error {
	if len(t.given) == 0 && len(t.args) == 0 || slices.Contains(t.given, "help") {
		return nil
	}
	var lacks []string
	t.cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations[cobra.BashCompOneRequiredFlag]) > 0 && !slices.Contains(t.given, f.Name) {
			lacks = append(lacks, "--"+f.Name)
		}
	})
	if len(lacks) > 0 {
		return fmt.Errorf("%s is refused without %s", t.cmd.CommandPath(), strings.Join(lacks, ", "))
	}
	return nil
}
