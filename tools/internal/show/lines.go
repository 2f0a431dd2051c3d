package show

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Lines writes what it is given to w as Text shows it, but for ends of lines and tabs, which are the program's own. It is for all that a
// program prints: so nothing that somebody else said reaches a terminal in a way that nobody thought of. Several may write at once.
func Lines(w io.Writer) io.Writer { return &lines{to: w} }

type lines struct {
	mu sync.Mutex
	to io.Writer
	// begun is a rune of which the rest comes with the next write.
	begun []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := append(l.begun, p...) //nolint:gocritic // what was begun is replaced below
	whole := len(text)
	for i := max(0, len(text)-utf8.UTFMax+1); i < len(text); i++ {
		if utf8.RuneStart(text[i]) && !utf8.FullRune(text[i:]) {
			whole = i
			break
		}
	}
	var b bytes.Buffer
	for rest := text[:whole]; len(rest) > 0; {
		end := bytes.IndexAny(rest, "\n\t")
		if end < 0 {
			b.WriteString(Text(string(rest)))
			break
		}
		b.WriteString(Text(string(rest[:end])))
		b.WriteByte(rest[end])
		rest = rest[end+1:]
	}
	l.begun = bytes.Clone(text[whole:])
	if _, err := b.WriteTo(l.to); err != nil {
		return 0, err
	}
	return len(p), nil
}

// quoted is JSON as it may be shown: what Text writes out stands in strings alone there, and is escaped as JSON does.
func quoted(raw []byte) []byte {
	if !bytes.ContainsFunc(raw, func(r rune) bool { return r != '\n' && hidden(r) }) {
		return raw
	}
	var b bytes.Buffer
	for _, r := range string(raw) {
		switch {
		case r == '\n' || !hidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
