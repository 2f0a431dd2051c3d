// Package csvupload is the form of an upload: CSV with a declared mapping of columns, by which the access of any system without an API
// is brought in. It promises that an upload is right as a whole or refused as a whole, with every bad row named by its line; who takes
// an upload in and who reads it later ask the same code. It reads in one pass; what it keeps grows with the accounts, of which an upload
// of [MaxContent] bytes can't have more than [MaxRows].
package csvupload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

const (
	// MaxContent is how long an upload may be, in bytes.
	MaxContent = 16 << 20
	// MaxRows is how many rows it may have.
	MaxRows = 1_000_000
	// MaxNamed is how many bad rows are named one by one; the rest are counted.
	MaxNamed = 20
)

// Error is what is wrong with an upload. Trying again won't mend it, another upload will.
type Error struct {
	// What is the sentence about the whole.
	What string
	// Rows are sentences about the first bad rows, at most [MaxNamed]: `line 7: the account id is empty`.
	Rows []string
	// Total counts the bad rows.
	Total int
}

func wrong(format string, args ...any) *Error { return &Error{What: fmt.Sprintf(format, args...)} }

// Error is everything in one sentence.
func (e *Error) Error() string {
	if len(e.Rows) == 0 {
		return e.What
	}
	words := e.What + ": " + strings.Join(e.Rows, "; ")
	if more := e.More(); more > 0 {
		words += fmt.Sprintf("; and %d more", more)
	}
	return words
}

// More counts the bad rows that are not named.
func (e *Error) More() int { return e.Total - len(e.Rows) }

func (e *Error) add(line int, problem string) {
	if e.Total++; e.Total <= MaxNamed {
		e.Rows = append(e.Rows, fmt.Sprintf("line %d: %s", line, problem))
	}
}

// sum is e where there are bad rows, with the sentence that counts them; nil where there are none.
func (e *Error) sum() error {
	switch e.Total {
	case 0:
		return nil
	case 1:
		e.What = "1 row of the upload is wrong and nothing was taken: mend it and upload it again"
	default:
		e.What = fmt.Sprintf("%d rows of the upload are wrong and nothing was taken: mend them and upload it again", e.Total)
	}
	return e
}

// Account is what all rows of an account say of it together.
type Account struct{ DisplayName, Email, Status string }

// Checked is an upload that was found to be right.
type Checked struct {
	// Digest is of content and mapping: another upload, or the same read in another way, has another.
	Digest string
	// Rows counts the rows under the header.
	Rows int
	// Accounts are those that it speaks of, by their id.
	Accounts map[string]Account
}

// Check reads a whole upload. It fails with an *Error where the upload is at fault, and with another error where it couldn't be read.
func Check(ctx context.Context, content io.Reader, settings *integrationsv1.CsvSettings) (*Checked, error) {
	facts := map[string]*told{}
	bad := new(Error)
	rows := 0
	digest, err := read(ctx, content, settings, func(r row) error {
		if rows++; rows > MaxRows {
			return wrong("the upload has more than %d rows: divide it into several integrations", MaxRows)
		}
		if r.problem != "" {
			bad.add(r.Line, r.problem)
			return nil
		}
		t, ok := facts[r.Account]
		if !ok {
			t = new(told)
			facts[r.Account] = t
		}
		t.add(r.Row, bad)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := bad.sum(); err != nil {
		return nil, err
	}
	if rows == 0 {
		// Taken as it is, it would say that nobody has access any more.
		return nil, wrong("the upload has no rows under its header: upload it again with its rows")
	}
	found := &Checked{Digest: digest, Rows: rows, Accounts: make(map[string]Account, len(facts))}
	for id, t := range facts {
		found.Accounts[id] = Account{DisplayName: t.facts[displayName], Email: t.facts[email], Status: t.facts[status]}
		delete(facts, id)
	}
	return found, nil
}

// The facts of an account.
const (
	displayName = iota
	email
	status
	factCount
)

var factNames = [factCount]string{displayName: "display name", email: "email", status: "status"}

// told is what rows say of an account, with the lines that said so first.
type told struct {
	facts [factCount]string
	lines [factCount]int
}

// add takes what a row says, and names the row where another said otherwise.
func (t *told) add(r Row, bad *Error) {
	for i, fact := range [factCount]string{r.DisplayName, r.Email, r.Status} {
		switch {
		case fact == "" || fact == t.facts[i]:
		case t.facts[i] == "":
			t.facts[i], t.lines[i] = fact, r.Line
		default:
			bad.add(r.Line, fmt.Sprintf("account %q has the %s %q, but line %d says %q", r.Account, factNames[i], fact, t.lines[i], t.facts[i]))
			return
		}
	}
}

// Read calls f with every row of an upload that Check found right, and answers its digest: where that is another than Check's, the
// upload changed meanwhile. A row that is wrong after all ends it. The error of f ends it and is answered as it is.
func Read(ctx context.Context, content io.Reader, settings *integrationsv1.CsvSettings, f func(Row) error) (digest string, err error) {
	return read(ctx, content, settings, func(r row) error {
		if r.problem != "" {
			bad := new(Error)
			bad.add(r.Line, r.problem)
			return bad.sum()
		}
		return f(r.Row)
	})
}

func read(ctx context.Context, content io.Reader, settings *integrationsv1.CsvSettings, f func(row) error) (digest string, err error) {
	declared, err := fields(settings)
	if err != nil {
		return "", err
	}
	mapping, err := proto.MarshalOptions{Deterministic: true}.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("encode the mapping of columns: %w", err)
	}
	h := sha256.New()
	h.Write(mapping)
	if err := parse(ctx, io.TeeReader(content, h), declared, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// CheckColumns refuses, with an *Error, a mapping that no upload could be read by.
func CheckColumns(settings *integrationsv1.CsvSettings) error {
	_, err := fields(settings)
	return err
}

// fields are the columns that a mapping declares, by what they hold.
func fields(settings *integrationsv1.CsvSettings) (map[integrationsv1.CsvField]string, error) {
	if settings == nil {
		return nil, wrong("the integration has no csv settings: create it anew as a csv integration")
	}
	declared := map[integrationsv1.CsvField]string{}
	headers := map[string]bool{}
	for _, c := range settings.GetColumns() {
		if declared[c.GetField()] != "" {
			return nil, wrong("columns %q and %q are both declared to hold the %s: declare one", declared[c.GetField()], c.GetHeader(), fieldName(c.GetField()))
		}
		if headers[c.GetHeader()] {
			return nil, wrong("column %q is declared twice: declare it once", c.GetHeader())
		}
		headers[c.GetHeader()] = true
		declared[c.GetField()] = c.GetHeader()
	}
	if declared[integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID] == "" {
		return nil, wrong("no column is declared to hold the account id: declare one")
	}
	if declared[integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT] != "" && declared[integrationsv1.CsvField_CSV_FIELD_RESOURCE] == "" {
		return nil, wrong("a column is declared to hold entitlements and none the resource that they are on: declare one")
	}
	return declared, nil
}

// IsWrong finds the *Error in err: the upload is at fault, and not the reading of it.
func IsWrong(err error) (*Error, bool) { return errors.AsType[*Error](err) }
