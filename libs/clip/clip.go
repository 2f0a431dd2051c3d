// Package clip cuts texts that come from elsewhere to what there is room for: an error of another program, a name that somebody chose. It promises
// that what it answers is UTF-8, as protobuf and PostgreSQL refuse anything else and with it the message or row that the text is a part of.
package clip

import (
	"strings"
	"unicode/utf8"
)

// mark stands where a text was cut.
const mark = "…"

// Text is s in at most mostBytes bytes, cut between two characters and marked so. What is no UTF-8 in it reads U+FFFD.
func Text(s string, mostBytes int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= mostBytes {
		return s
	}
	if mostBytes < len(mark) {
		return cut(s, mostBytes)
	}
	return cut(s, mostBytes-len(mark)) + mark
}

// cut is the whole characters of the first n bytes of a text that is longer.
func cut(s string, n int) string {
	n = max(n, 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
