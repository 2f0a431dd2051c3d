package unix

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// command is an item of a command list.
type command struct {
	// text is the item in sudo's notation, without `!`; words is text without digests.
	text    string
	words   string
	negated bool
	// all says that it is ALL without a digest.
	all bool
	// path is a path, a directory that ends in /, a pattern of paths, an expression, or sudoedit.
	path string
	// args is a pattern of the arguments; anyArgs says that there is none. `""` means that there may be no arguments.
	args    string
	anyArgs bool
	digests []string
	// broken says why the item can't be matched.
	broken error
}

// newCommand reads an item as cvtsudoers answers it.
func newCommand(m sudoMember) command {
	c := command{negated: m.negated, digests: m.digests}
	c.path, c.args, c.anyArgs = m.value, "", true
	if path, args, ok := strings.Cut(m.value, " "); ok {
		c.path, c.args, c.anyArgs = path, args, false
	}
	c.all = m.value == "ALL" && len(m.digests) == 0
	c.words = strings.ReplaceAll(m.value, ",", `\,`)
	c.text = c.words
	if len(m.digests) > 0 {
		c.text = strings.Join(m.digests, `\, `) + " " + c.text
	}
	for _, pattern := range []string{c.path, c.args} {
		if isExpression(pattern) {
			if _, err := expression(pattern); err != nil && c.broken == nil {
				c.broken = err
			}
		}
	}
	return c
}

// formatCommandList is a list in sudo's notation.
func formatCommandList(list []command) string {
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = c.text
		if c.negated {
			// A digest stands before the `!`.
			digest := c.text[:len(c.text)-len(c.words)]
			words[i] = digest + "!" + c.words
		}
	}
	return strings.Join(words, ", ")
}

// permits says whether a list lets a command with these arguments run: the last item that matches decides.
func (m *machine) permits(list []command, path string, args []string) bool {
	for _, c := range slices.Backward(list) {
		if m.matches(c, path, args) {
			return !c.negated
		}
	}
	return false
}

// matches says whether an item is of a command with arguments, by the rules of sudo's match_command.c: paths are the same when
// their base names are and they are the same file.
func (m *machine) matches(c command, path string, args []string) bool {
	if c.broken != nil {
		return false
	}
	if c.path == "ALL" {
		return m.digested(c, path)
	}
	if isExpression(c.path) {
		e, err := expression(c.path)
		return err == nil && e.MatchString(path) && c.takes(args) && m.digested(c, path)
	}
	if !strings.HasPrefix(c.path, "/") {
		return c.path == path && c.takes(args)
	}
	if strings.ContainsAny(c.path, `\?*[]`) {
		return m.globbed(c, path, args)
	}
	if strings.HasSuffix(c.path, "/") {
		return m.sameFile(c.path+filepath.Base(path), path, true) && m.digested(c, path)
	}
	return filepath.Base(c.path) == filepath.Base(path) && m.sameFile(c.path, path, false) && c.takes(args) && m.digested(c, path)
}

// globbed matches a pattern of paths.
func (m *machine) globbed(c command, path string, args []string) bool {
	base := filepath.Base(path)
	dirs, isDir := strings.CutSuffix(c.path, "/")
	if !isDir {
		slash := strings.LastIndexByte(c.path, '/')
		last := c.path[slash+1:]
		dirs = c.path[:slash]
		if strings.HasPrefix(base, ".") && !strings.HasPrefix(last, ".") || !globText(last, true).match(base) {
			return false
		}
	}
	for _, dir := range m.expand(dirs) {
		if m.sameFile(dir+"/"+base, path, true) {
			return (isDir || c.takes(args)) && m.digested(c, path)
		}
	}
	return false
}

// expand answers the directories that a pattern names, as glob(3) does.
func (m *machine) expand(pattern string) []string {
	found := []string{""}
	for part := range strings.SplitSeq(strings.TrimPrefix(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "?*[") {
				next = append(next, dir+"/"+strings.ReplaceAll(part, `\`, ""))
				continue
			}
			names, err := m.readDir(dir + "/")
			if err != nil {
				continue
			}
			matcher := globText(part, true)
			for _, name := range names {
				if (!strings.HasPrefix(name, ".") || strings.HasPrefix(part, ".")) && matcher.match(name) {
					next = append(next, dir+"/"+name)
				}
			}
		}
		found = next
	}
	if pattern == "" {
		return []string{""}
	}
	return found
}

// sameFile says that two paths lead to one file. mustExist says what holds where one of them leads nowhere: nothing, or that
// their names are equal.
func (m *machine) sameFile(rule, path string, mustExist bool) bool {
	a, errA := os.Stat(m.path(rule))
	b, errB := os.Stat(m.path(path))
	if errA == nil && errB == nil {
		return os.SameFile(a, b)
	}
	return !mustExist && rule == path
}

// takes says whether the item's arguments allow these.
func (c command) takes(args []string) bool {
	switch {
	case c.anyArgs:
		return true
	case c.args == `""`:
		return len(args) == 0
	case isExpression(c.args):
		e, err := expression(c.args)
		return err == nil && e.MatchString(strings.Join(args, " "))
	}
	return globText(c.args, c.path == "sudoedit").match(strings.Join(args, " "))
}

// digested says that the file is one that the item's digests name.
func (m *machine) digested(c command, path string) bool {
	if len(c.digests) == 0 {
		return true
	}
	content, err := os.ReadFile(m.path(path))
	if err != nil {
		return false
	}
	for _, d := range c.digests {
		kind, want, _ := strings.Cut(d, ":")
		var h hash.Hash
		switch kind {
		case "sha224":
			h = sha256.New224()
		case "sha256":
			h = sha256.New()
		case "sha384":
			h = sha512.New384()
		case "sha512":
			h = sha512.New()
		default:
			continue
		}
		h.Write(content)
		sum := h.Sum(nil)
		raw, err := hex.DecodeString(want)
		if err != nil {
			raw, err = base64.StdEncoding.DecodeString(want)
		}
		if err == nil && bytes.Equal(raw, sum) {
			return true
		}
	}
	return false
}

// isExpression says that a pattern is a regular expression.
func isExpression(s string) bool {
	return len(s) > 1 && s[0] == '^' && s[len(s)-1] == '$'
}

// expression compiles a POSIX extended regular expression; `(?i)` at its start folds case.
func expression(s string) (*regexp.Regexp, error) {
	if rest, ok := strings.CutPrefix(s, "^(?i)"); ok {
		return regexp.Compile("(?i)^" + rest)
	}
	return regexp.CompilePOSIX(s)
}

// glob is a compiled pattern of fnmatch(3).
type glob struct {
	compiled *regexp.Regexp
	literal  string
}

// globText compiles a pattern; in a path `*`, `?` and brackets don't reach over a slash.
func globText(pattern string, path bool) glob {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	some := "."
	if path {
		some = "[^/]"
	}
	for i := 0; i < len(pattern); i++ {
		switch ch := pattern[i]; ch {
		case '*':
			b.WriteString(some + "*")
		case '?':
			b.WriteString(some)
		case '[':
			class, length := bracket(pattern[i:])
			b.WriteString(class)
			i += length - 1
		case '\\':
			if i++; i < len(pattern) {
				b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
			}
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	b.WriteString(`\z`)
	compiled, err := regexp.Compile(b.String())
	if err != nil {
		return glob{literal: pattern}
	}
	return glob{compiled: compiled}
}

// bracket turns a bracket expression at the start of s into one of regexp, and says how long it was.
func bracket(s string) (class string, length int) {
	i := 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	start := i
	for i < len(s) && (s[i] != ']' || i == start) {
		if strings.HasPrefix(s[i:], "[:") {
			if end := strings.Index(s[i:], ":]"); end > 0 {
				i += end + 2
				continue
			}
		}
		i++
	}
	if i >= len(s) {
		return `\[`, 1
	}
	body := s[start:i]
	var b strings.Builder
	b.WriteByte('[')
	if negated {
		b.WriteByte('^')
	}
	for j := 0; j < len(body); j++ {
		switch {
		case strings.HasPrefix(body[j:], "[:") && strings.Contains(body[j:], ":]"):
			end := strings.Index(body[j:], ":]") + 2
			b.WriteString(body[j : j+end])
			j += end - 1
		case body[j] == '-' || body[j] == '\\':
			b.WriteByte(body[j])
		case strings.IndexByte(`[]^&~`, body[j]) >= 0:
			b.WriteByte('\\')
			b.WriteByte(body[j])
		default:
			b.WriteByte(body[j])
		}
	}
	b.WriteByte(']')
	return b.String(), i + 1
}

func (g glob) match(s string) bool {
	if g.compiled == nil {
		return g.literal == s
	}
	return g.compiled.MatchString(s)
}
