package snapshot_test

import (
	"encoding/base64"
	"testing"

	"a3os.app/libs/snapshot"
)

// FuzzParsePublicKey holds that a key has one form.
func FuzzParsePublicKey(f *testing.F) {
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, s := range []string{good, "", good[:43], good + "=", " " + good, good + "\n", good[:42] + "B=", base64.URLEncoding.EncodeToString(make([]byte, 32))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := snapshot.ParsePublicKey(text)
		if err == nil && base64.StdEncoding.EncodeToString(key) != text {
			t.Fatalf("%q is a key, and is written %q", text, base64.StdEncoding.EncodeToString(key))
		}
		if err != nil && (key != nil || len(err.Error()) > 500) {
			t.Fatalf("%q is refused with %d bytes", text, len(err.Error()))
		}
	})
}
