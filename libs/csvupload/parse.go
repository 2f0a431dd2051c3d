package csvupload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/clip"
)

// access is the entitlement where no column says which.
const access = "access"

// Row is one row of an upload.
type Row struct {
	// Line is where it begins.
	Line int
	// Account is never empty.
	Account, DisplayName, Email, Status, Resource, Entitlement, Group string
}

// row is a row as it was found. Where it has a problem the rest is not to be used.
type row struct {
	Row
	problem string
}

// columns says where in a row its fields are; -1 stands for a field that no column holds.
type columns map[integrationsv1.CsvField]int

// open reads up to the end of the header.
func open(content io.Reader, declared map[integrationsv1.CsvField]string) (*csv.Reader, columns, error) {
	text := bufio.NewReaderSize(&limitedReader{from: content, left: MaxContent}, 64<<10)
	if err := skipMark(text); err != nil {
		return nil, nil, err
	}
	reader := csv.NewReader(text)
	reader.ReuseRecord = true
	header, err := reader.Read()
	if err != nil {
		return nil, nil, headerError(err)
	}
	at, err := locate(header, declared)
	return reader, at, err
}

// parse calls f with every row under the header, the bad ones too. What is wrong with the upload as a whole is an *Error.
func parse(ctx context.Context, content io.Reader, declared map[integrationsv1.CsvField]string, f func(row) error) error {
	reader, at, err := open(content, declared)
	if err != nil {
		return err
	}
	for number := 0; ; number++ {
		if number%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var r row
		if bad, ok := errors.AsType[*csv.ParseError](err); ok {
			r = row{Row: Row{Line: bad.StartLine}, problem: parseProblem(bad, len(record), reader.FieldsPerRecord)}
		} else if err != nil {
			return contentError(err)
		} else {
			line, _ := reader.FieldPos(0)
			r = readRow(line, record, at)
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// limitedReader fails when an upload is longer than it may be.
type limitedReader struct {
	from io.Reader
	left int
}

var errTooLong = wrong("the upload is longer than %d bytes: divide it into several integrations", MaxContent)

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.from.Read(p[:min(len(p), l.left+1)])
	if n > l.left {
		return 0, errTooLong
	}
	l.left -= n
	return n, err
}

// contentError is an error of reading. It is an *Error only where the content is at fault.
func contentError(err error) error {
	if _, ok := IsWrong(err); ok {
		return err
	}
	return fmt.Errorf("read the upload: %w", err)
}

func headerError(err error) error {
	if errors.Is(err, io.EOF) {
		return wrong("the upload is empty: upload it again with a header line and rows")
	}
	if bad, ok := errors.AsType[*csv.ParseError](err); ok {
		return wrong("the header, line %d, can't be read: %v", bad.StartLine, bad.Err)
	}
	return contentError(err)
}

// skipMark passes over a byte order mark, and refuses one of another encoding.
func skipMark(text *bufio.Reader) error {
	start, err := text.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return contentError(err)
	}
	switch {
	case bytes.HasPrefix(start, []byte("\xEF\xBB\xBF")):
		_, err = text.Discard(3)
		return err
	case bytes.HasPrefix(start, []byte("\xFF\xFE")), bytes.HasPrefix(start, []byte("\xFE\xFF")):
		return wrong("the upload is UTF-16: save it as UTF-8 and upload it again")
	}
	return nil
}

// parseProblem is a row that isn't CSV, or is too short or long, in words.
func parseProblem(bad *csv.ParseError, got, want int) string {
	switch {
	case errors.Is(bad.Err, csv.ErrFieldCount):
		return fmt.Sprintf("has %d fields where the header has %d", got, want)
	case errors.Is(bad.Err, csv.ErrQuote), errors.Is(bad.Err, csv.ErrBareQuote):
		return fmt.Sprintf("column %d: a quote stands alone: put quotes around the whole field and double those inside", bad.Column)
	}
	return bad.Err.Error()
}

// locate finds the declared columns in the header.
func locate(header []string, declared map[integrationsv1.CsvField]string) (columns, error) {
	where := map[string]int{}
	var twice, missing []string
	for i, name := range header {
		if !utf8.ValidString(name) {
			return nil, wrong("column %d of the header is not UTF-8: save the upload as UTF-8", i+1)
		}
		if _, ok := where[name]; ok && name != "" {
			twice = append(twice, fmt.Sprintf("%q", name))
		}
		where[name] = i
	}
	if len(twice) > 0 {
		return nil, wrong("the header has columns of one name: %s: give each its own", strings.Join(twice, ", "))
	}
	at := columns{}
	for field := range integrationsv1.CsvField_name {
		at[integrationsv1.CsvField(field)] = -1
	}
	for _, field := range slices.Sorted(maps.Keys(declared)) {
		name := declared[field]
		i, ok := where[name]
		if !ok {
			missing = append(missing, fmt.Sprintf("%q", name))
			continue
		}
		at[field] = i
	}
	if len(missing) > 0 {
		return nil, wrong("the header lacks declared columns: %s: it has %s", strings.Join(missing, ", "), headerWords(header))
	}
	return at, nil
}

// headerWords is a header for an error message, cut where it is long.
func headerWords(header []string) string {
	const most = 500
	return clip.Text(fmt.Sprintf("%q", header), most)
}

// readRow takes a row's fields and checks each.
func readRow(line int, record []string, at columns) row {
	r := row{Row: Row{Line: line}}
	for _, f := range []struct {
		field integrationsv1.CsvField
		into  *string
		most  int
	}{
		{integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID, &r.Account, 1024},
		{integrationsv1.CsvField_CSV_FIELD_DISPLAY_NAME, &r.DisplayName, 1024},
		{integrationsv1.CsvField_CSV_FIELD_EMAIL, &r.Email, 320},
		{integrationsv1.CsvField_CSV_FIELD_RESOURCE, &r.Resource, 1024},
		{integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT, &r.Entitlement, 200},
		{integrationsv1.CsvField_CSV_FIELD_GROUP, &r.Group, 1024},
		{integrationsv1.CsvField_CSV_FIELD_STATUS, &r.Status, 20},
	} {
		i := at[f.field]
		if i < 0 {
			continue
		}
		value := record[i]
		if problem := checkText(value, f.most); problem != "" {
			r.problem = "the " + fieldName(f.field) + " " + problem
			return r
		}
		// The record is used again for the next row, the strings are not.
		*f.into = strings.TrimSpace(value)
	}
	r.problem = r.check(at)
	return r
}

// checkText says what is wrong with a field whatever it holds.
func checkText(value string, most int) string {
	switch {
	case !utf8.ValidString(value):
		return "is not UTF-8"
	case strings.ContainsRune(value, 0):
		return "has a NUL"
	case strings.ContainsFunc(strings.TrimSpace(value), unicode.IsControl):
		return "has a control character or a line break"
	case utf8.RuneCountInString(value) > most:
		return fmt.Sprintf("has more than %d characters", most)
	}
	return ""
}

// check says what is wrong with a row's fields taken together, and brings them into their one form.
func (r *row) check(at columns) string {
	if r.Account == "" {
		return "the account id is empty"
	}
	if r.Email != "" {
		if parsed, err := mail.ParseAddress(r.Email); err != nil || parsed.Address != r.Email {
			return fmt.Sprintf("the email %q is no address", r.Email)
		}
	}
	switch status := strings.ToLower(r.Status); status {
	case "", "active", "disabled":
		r.Status = status
	default:
		return fmt.Sprintf("the status %q is neither active nor disabled", r.Status)
	}
	switch {
	case r.Entitlement != "" && r.Resource == "":
		return fmt.Sprintf("the entitlement %q is on no resource", r.Entitlement)
	case r.Entitlement == "" && r.Resource != "" && at[integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT] >= 0:
		return fmt.Sprintf("the entitlement on %q is empty", r.Resource)
	case r.Resource != "" && r.Entitlement == "":
		r.Entitlement = access
	}
	return ""
}

// fieldName is a field in words: `account id`.
func fieldName(f integrationsv1.CsvField) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(f.String(), "CSV_FIELD_")), "_", " ")
}
