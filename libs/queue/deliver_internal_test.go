package queue

import (
	"bytes"
	"testing"
)

// FuzzClip holds that what is stored of an error fits, and is text that PostgreSQL takes.
func FuzzClip(f *testing.F) {
	f.Add("")
	f.Add(string(bytes.Repeat([]byte("ä"), mostReason)))
	f.Add(string(bytes.Repeat([]byte{0xff}, mostReason+1)))
	f.Fuzz(func(t *testing.T, s string) {
		if got := clip(s); len(got) > mostReason {
			t.Fatalf("%d bytes of %d are kept", len(got), len(s))
		} else if len(s) <= mostReason && got != s {
			t.Fatalf("%q is kept as %q", s, got)
		}
	})
}
