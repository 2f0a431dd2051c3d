// Package show puts answers before people and programs: tables that line up, messages as JSON, times as people say them. It promises
// that text of somebody else's, found in a system or reported by a service, can't move the cursor or change what a terminal shows.
package show

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Table is rows under a header.
type Table struct {
	header []string
	rows   [][]string
}

// NewTable makes a table with the given columns.
func NewTable(columns ...string) *Table { return &Table{header: columns} }

// Row adds a row, one cell a column. An empty cell is shown as a dash.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Write writes the table. A column that is empty in every row is left out.
func (t *Table) Write(w io.Writer) error {
	var shown []int
	for i := range t.header {
		if slices.ContainsFunc(t.rows, func(r []string) bool { return r[i] != "" }) {
			shown = append(shown, i)
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cell func(column int) string) {
		cells := make([]string, len(shown))
		for i, column := range shown {
			cells[i] = cell(column)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	line(func(i int) string { return strings.ToUpper(t.header[i]) })
	for _, r := range t.rows {
		line(func(i int) string { return cmp.Or(Text(r[i]), "-") })
	}
	return tw.Flush()
}

// Sort orders the rows by their cells, the first column first.
func (t *Table) Sort() { slices.SortStableFunc(t.rows, slices.Compare) }

// Facts writes names and values, one a line, values lined up. Pairs with an empty value are left out.
func Facts(w io.Writer, pairs ...string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", pairs[i], Text(pairs[i+1]))
		}
	}
	return tw.Flush()
}

// Text is s as it may be shown: what would not be seen, or would steer a terminal, is written out (`\x1b`, `\u202e`). What is no UTF-8 is
// shown as U+FFFD.
func Text(s string) string {
	if !strings.ContainsFunc(s, hidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

// Message writes a message as JSON, by protojson's mapping. Lists and values at their default are written too, so that a program
// finds them.
func Message(w io.Writer, m proto.Message) error {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	// protojson puts in spaces at random, so that nobody relies on them: take them out and indent anew.
	var b bytes.Buffer
	if err := json.Indent(&b, quoted(raw), "", "  "); err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err = b.WriteTo(w)
	return err
}

// JSON writes a value that is no message of the API.
func JSON(w io.Writer, v any) error { return encode(w, v, "  ") }

// JSONLine writes one on a line of its own.
func JSONLine(w io.Writer, v any) error { return encode(w, v, "") }

func encode(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(quoted(b.Bytes()))
	return err
}

// Time is an instant in the reader's own zone, to the second; empty for none.
func Time(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05")
}

// Span is a length of time in its greatest unit.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "<1 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d/day))
}

// Count is a number with its noun; an s makes the plural, or plural where it is given.
func Count(n int64, noun string, plural ...string) string {
	word := noun
	switch {
	case n == 1:
	case len(plural) > 0:
		word = plural[0]
	default:
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

// Terminal says that w is a terminal that understands how to go back to the start of a line.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
