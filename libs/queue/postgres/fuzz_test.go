package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"a3os.app/libs/queue"
)

// FuzzRead gives the decoder of jobs any bytes that a row could hold. What it reads is what is written again, and encoding/json's plain
// reading of the same text has nothing else in it.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"key":"k","envelope":"AAAA","payload":"AAAA"}`, `{}`, `null`, `[]`, `7`, `"x"`, `{"key":1}`, `{"more":1}`, `{"envelope":"?"}`, `{"KEY":"k"}`,
		`{"key":"a","key":"b"}`, `{"envelope":null}`, `{"envelope":[1,2]}`, `{"key":"\ud800"}`, `{} {}`, ``, `{"envelope":` + string(bytes.Repeat([]byte("["), 20_000)),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a jobArgs
		if err := a.UnmarshalJSON(raw); err != nil || !bytes.Equal(a.raw, raw) || a.outcome == nil {
			t.Fatalf("River would retry %q: %v", raw, err)
		}
		s, err := read(raw)
		if err != nil {
			if !errors.Is(err, queue.ErrMalformed) || s.Key != "" || s.Envelope != nil || s.Payload != nil || len(err.Error()) > 200 {
				t.Fatalf("%q is refused as %+v, %v", raw, s, err)
			}
			return
		}
		if len(raw) > mostArgs {
			t.Fatalf("%d bytes are read", len(raw))
		}
		written, err := json.Marshal(jobArgs{stored: s})
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(written)
		if err != nil || again.Key != s.Key || !bytes.Equal(again.Envelope, s.Envelope) || !bytes.Equal(again.Payload, s.Payload) {
			t.Fatalf("%q is read as %+v, written and read again as %+v, %v", raw, s, again, err)
		}
		if m := metaOf(raw); m.Tries < 1 || m.Tries > queue.MostTries || m.Uncounted < 0 || m.Before < 0 || m.Before > queue.MostAttempts {
			t.Fatalf("as metadata %q says %+v", raw, m)
		}
	})
}
