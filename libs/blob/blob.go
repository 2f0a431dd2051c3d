// Package blob keeps a tenant's objects (uploads, exports) under keys, in a space that is the tenant's own: a key can't name a place
// outside it. Who only reads gets a [Reader], who only writes a [Writer]. An object is replaced whole or not at all. It promises
// nothing about what an object holds, and doesn't encrypt: what is secret goes to package secret.
//
// The local driver keeps files in a directory that carries the tenant's mark. It uses os.Root rather than gocloud.dev's fileblob,
// which follows symbolic links out of its directory, keeps a second file beside each object, and brings some 19 MB of module.
package blob

import (
	"context"
	"io"
	"iter"
	"strings"
	"time"

	"a3os.app/libs/fault"
)

// Bounds of a key, in bytes.
const (
	// With a tenant's id before it a key is one of S3's, which end at 1024.
	MostKey     = 960
	MostSegment = 200
)

// Info describes an object.
type Info struct {
	Key      string
	Size     int64 // bytes
	Modified time.Time
}

// Reader reads objects.
type Reader interface {
	// Get opens an object; the caller closes it. It stays readable, and as it was, when the object is replaced or deleted meanwhile.
	// Errors: [ErrNotFound], [ErrInvalidKey].
	Get(ctx context.Context, key string) (io.ReadCloser, Info, error)
	// List describes all objects, in the order of their keys. The sequence ends after its first error.
	List(ctx context.Context) iter.Seq2[Info, error]
}

// Writer writes objects.
type Writer interface {
	// Put stores what content gives until io.EOF, in the place of what was there. On any error what was there is as it was. Errors:
	// [ErrTooLarge], [ErrInvalidKey], and those of content.
	Put(ctx context.Context, key string, content io.Reader) (Info, error)
	// Delete takes an object away; an absent one is no error. Errors: [ErrInvalidKey].
	Delete(ctx context.Context, key string) error
}

// Errors of every driver; find them with errors.Is.
var (
	// ErrNotFound says that there is no object under a key.
	ErrNotFound = fault.Declare(fault.NotFound, "OBJECT_NOT_FOUND", "there is no such object")
	// ErrInvalidKey says that a key has not the form of one.
	ErrInvalidKey = fault.Declare(fault.InvalidArgument, "OBJECT_KEY_INVALID", "the key of an object has not the form of one")
	// ErrTooLarge says that an object passes the store's bound.
	ErrTooLarge = fault.Declare(fault.InvalidArgument, "OBJECT_TOO_LARGE", "the object is too large")
)

// CheckKey refuses with [ErrInvalidKey] whatever is not a key: segments of letters, digits, `.`, `_` and `-`, joined by `/`, none
// empty, `.` or `..`, none over [MostSegment] bytes, all together at most [MostKey]. What isn't listed (`%`, `\`, NUL, spaces, every
// character beyond ASCII) is refused, so that no layer below can read a key in another way.
func CheckKey(key string) error {
	if key == "" || len(key) > MostKey {
		return ErrInvalidKey.With("the key of an object has 1 to %d bytes, this one %d", MostKey, len(key))
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "" || segment == "." || segment == "..":
			return ErrInvalidKey.With("the key of an object can't have a segment %q", segment)
		case len(segment) > MostSegment:
			return ErrInvalidKey.With("a segment of an object's key has at most %d bytes, this one %d", MostSegment, len(segment))
		}
		if i := strings.IndexFunc(segment, foreign); i >= 0 {
			return ErrInvalidKey.With("the key of an object can't hold the byte %q", segment[i])
		}
	}
	return nil
}

func foreign(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
		return false
	default:
		return true
	}
}
