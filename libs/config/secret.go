package config

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a [Secret] prints as, empty or not.
const Redacted = "[redacted]"

// Secret is text that no formatter, encoder or logger shows: every way of printing it gives [Redacted]. Only Reveal gives the
// text. The zero Secret is empty. It can't be compared with ==; use Equal.
type Secret struct {
	// A function, because reflection shows a string in an unexported field and shows a function's address only.
	reveal func() string
}

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{reveal: func() string { return text }} }

// Reveal is the text itself. Whoever calls it answers for where it goes.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero says that there is no text.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Format implements fmt.Formatter for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// String implements fmt.Stringer for those who call it by name.
func (s Secret) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return Redacted }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements encoding.TextMarshaler, for JSON, YAML, XML and their like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// Value implements driver.Valuer by refusing: what would be stored is the redaction, in the place of the text.
func (s Secret) Value() (driver.Value, error) {
	return nil, errors.New("a secret can't be an argument of a query: reveal what may be stored, or store its hash")
}

// UnmarshalText takes text in.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
