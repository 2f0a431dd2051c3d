package additive

import (
	"regexp"
	"strings"
)

var (
	statementBegin = regexp.MustCompile(`(?i)^--\s*\+goose\s+StatementBegin\b`)
	statementEnd   = regexp.MustCompile(`(?i)^--\s*\+goose\s+StatementEnd\b`)
)

// units are what goose sends to the server at once: to the end of a line that ends with a semicolon, or what stands between
// `-- +goose StatementBegin` and `-- +goose StatementEnd`.
func units(text string) (out []string) {
	var unit strings.Builder
	end := func() {
		if len(commands(unit.String())) > 0 {
			out = append(out, unit.String())
		}
		unit.Reset()
	}
	whole := false
	for line := range strings.Lines(text) {
		switch {
		case statementBegin.MatchString(line):
			whole = true
			continue
		case statementEnd.MatchString(line):
			whole = false
			end()
			continue
		}
		unit.WriteString(line)
		if !whole && ends(line) {
			end()
		}
	}
	end()
	return out
}

// ends says whether a line ends what goose sends.
func ends(line string) bool {
	last := ""
	for word := range strings.FieldsSeq(line) {
		if strings.HasPrefix(word, "--") {
			break
		}
		last = word
	}
	return strings.HasSuffix(last, ";")
}

// commands are the statements of a text, each without what stands before it. They are told apart as psql does (its scanner, psqlscan.l): by
// semicolons outside of quotes, comments, parentheses and the bodies that SQL has for functions (BEGIN ATOMIC … END). What a statement
// means is not looked at.
func commands(text string) (out []string) {
	s := splitter{text: text, start: -1}
	for s.at < len(text) {
		if command := s.step(); command != "" {
			out = append(out, command)
		}
	}
	if s.start >= 0 {
		out = append(out, text[s.start:])
	}
	return out
}

// splitter is where one is in a text.
type splitter struct {
	text string
	// at is where it goes on, and start where the statement began; -1 before it did.
	at, start int
	// parens and bodies are how deep it is in those.
	parens, bodies int
	// words of the statement, its first ones.
	words []string
}

// step goes on by a token, and answers the statement that ended with it.
func (s *splitter) step() string {
	rest := s.text[s.at:]
	switch n := blank(rest); {
	case n > 0:
		s.at += n
		return ""
	case rest[0] == ';' && s.parens == 0 && s.bodies == 0:
		start := s.start
		s.at++
		s.start, s.words = -1, nil
		if start < 0 {
			return ""
		}
		return s.text[start : s.at-1]
	}
	if s.start < 0 {
		s.start = s.at
	}
	n := 1
	switch c := rest[0]; {
	case c == '(':
		s.parens++
	case c == ')':
		s.parens = max(0, s.parens-1)
	case c == '\'':
		n = quoted(rest, false)
	case c == '"':
		n = quoted(rest, false)
	case (c == 'e' || c == 'E') && len(rest) > 1 && rest[1] == '\'':
		n = 1 + quoted(rest[1:], true)
	case c == '$':
		n = dollars(rest)
	case letter(c):
		n = 1
		for n < len(rest) && (letter(rest[n]) || rest[n] >= '0' && rest[n] <= '9' || rest[n] == '$') {
			n++
		}
		s.word(strings.ToLower(rest[:n]))
	case c >= '0' && c <= '9': // a $ in it begins nothing
		for n < len(rest) && (letter(rest[n]) || rest[n] >= '0' && rest[n] <= '9') {
			n++
		}
	}
	s.at += n
	return ""
}

// word counts how deep it is in a body. CASE ends as BEGIN does.
func (s *splitter) word(w string) {
	const telling = 4 // CREATE OR REPLACE FUNCTION
	if len(s.words) < telling {
		s.words = append(s.words, w)
	}
	words := strings.Join(s.words, " ")
	if s.parens > 0 || !strings.HasPrefix(words, "create function") && !strings.HasPrefix(words, "create procedure") &&
		words != "create or replace function" && words != "create or replace procedure" {
		return
	}
	switch {
	case w == "begin", w == "case" && s.bodies > 0:
		s.bodies++
	case w == "end" && s.bodies > 0:
		s.bodies--
	}
}

func letter(c byte) bool {
	const ascii = 0x80
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= ascii
}

// blank is how long the space or the comment is that a text begins with.
func blank(text string) int {
	switch {
	case strings.ContainsRune(" \t\r\n\f\v", rune(text[0])):
		return 1
	case strings.HasPrefix(text, "--"):
		if n := strings.IndexByte(text, '\n'); n >= 0 {
			return n
		}
		return len(text)
	case strings.HasPrefix(text, "/*"):
		depth, n := 1, len("/*")
		for n < len(text) && depth > 0 {
			switch {
			case strings.HasPrefix(text[n:], "/*"):
				depth++
				n += 2
			case strings.HasPrefix(text[n:], "*/"):
				depth--
				n += 2
			default:
				n++
			}
		}
		return n
	}
	return 0
}

// quoted is how long the quotation is that a text begins with. A quote that stands twice ends one and begins the next, which is as good.
func quoted(text string, backslashes bool) int {
	for n := 1; n < len(text); n++ {
		switch {
		case backslashes && text[n] == '\\':
			n++
		case text[n] == text[0]:
			if backslashes && n+1 < len(text) && text[n+1] == text[0] { // what goes on still has backslashes
				n++
				continue
			}
			return n + 1
		}
	}
	return len(text)
}

var dollarTag = regexp.MustCompile(`^\$([A-Za-z_\x{80}-\x{10FFFF}][A-Za-z0-9_\x{80}-\x{10FFFF}]*)?\$`)

// dollars is how long what $tag$ quotes is, or 1 where the dollar begins no quotation.
func dollars(text string) int {
	tag := dollarTag.FindString(text)
	if tag == "" {
		return 1
	}
	if n := strings.Index(text[len(tag):], tag); n >= 0 {
		return len(tag) + n + len(tag)
	}
	return len(text)
}
