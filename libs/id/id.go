// Package id gives every kind of thing an id of its own type: a TypeID (github.com/jetify-com/typeid, spec v0.3) at the API, a
// uuid in PostgreSQL. An id of one kind can't be passed where another is wanted, and text that isn't an id of the kind is
// refused when it is parsed. It promises nothing about whether the thing exists.
package id

import (
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"
	"go.jetify.com/typeid"
	"go.jetify.com/typeid/base32"

	"a3os.app/libs/clip"
)

// mostTold keeps errors short when the text is hostile.
const mostTold = 64

// Kind names a kind of id by its TypeID prefix.
type Kind interface{ Prefix() string }

// ID is an id of kind K. The zero ID is no id: it is refused wherever one is demanded.
type ID[K Kind] struct{ uuid [16]byte }

// New makes an id that sorts by the time it was made (UUIDv7).
func New[K Kind]() ID[K] {
	t, err := typeid.WithPrefix(prefix[K]())
	if err != nil {
		// The prefix is a constant of this package and the entropy source of Go 1.24 and later does not fail.
		panic(fmt.Sprintf("id: make %s: %v", prefix[K](), err))
	}
	var i ID[K]
	copy(i.uuid[:], t.UUIDBytes())
	return i
}

// Parse reads an id of kind K, as `tnt_01h455vb4pex5vsknk084sn02q`.
func Parse[K Kind](s string) (ID[K], error) {
	t, err := typeid.FromString(s)
	if err != nil {
		return ID[K]{}, fmt.Errorf("%q is not an id of the form %s_…", clip.Text(s, mostTold), prefix[K]())
	}
	if t.Prefix() != prefix[K]() {
		return ID[K]{}, fmt.Errorf("%q is an id of another kind, want %s_…", clip.Text(s, mostTold), prefix[K]())
	}
	var i ID[K]
	copy(i.uuid[:], t.UUIDBytes())
	if i.IsZero() {
		return ID[K]{}, fmt.Errorf("%q is the zero id", clip.Text(s, mostTold))
	}
	return i, nil
}

// FromBytes makes an id from the 16 bytes of a uuid.
func FromBytes[K Kind](b [16]byte) ID[K] { return ID[K]{uuid: b} }

// String is the TypeID, or the empty string for the zero ID.
func (i ID[K]) String() string {
	if i.IsZero() {
		return ""
	}
	return prefix[K]() + "_" + base32.Encode(i.uuid)
}

// Bytes are the 16 bytes of the uuid.
func (i ID[K]) Bytes() [16]byte { return i.uuid }

// IsZero says that this is no id.
func (i ID[K]) IsZero() bool { return i.uuid == [16]byte{} }

// MarshalText writes the TypeID.
func (i ID[K]) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads a TypeID; empty text is the zero ID.
func (i *ID[K]) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*i = ID[K]{}
		return nil
	}
	v, err := Parse[K](string(b))
	if err != nil {
		return err
	}
	*i = v
	return nil
}

// UUIDValue implements pgtype.UUIDValuer; the zero ID is NULL.
func (i ID[K]) UUIDValue() (pgtype.UUID, error) {
	return pgtype.UUID{Bytes: i.uuid, Valid: !i.IsZero()}, nil
}

// ScanUUID implements pgtype.UUIDScanner; NULL is the zero ID.
func (i *ID[K]) ScanUUID(v pgtype.UUID) error {
	if !v.Valid {
		*i = ID[K]{}
		return nil
	}
	i.uuid = v.Bytes
	return nil
}

// Value implements driver.Valuer for code that formats ids as text.
func (i ID[K]) Value() (driver.Value, error) {
	v := pgtype.UUID{Bytes: i.uuid, Valid: !i.IsZero()}
	return v.Value()
}

func prefix[K Kind]() string {
	var k K
	return k.Prefix()
}
