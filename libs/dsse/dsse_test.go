package dsse_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"a3os.app/libs/dsse"
)

const payloadType = "http://example.com/HelloWorld"

// The examples of DSSE: protocol.md, and the test vectors of its reference implementation.
func TestWhatIsSignedIsThePreAuthenticationEncoding(t *testing.T) {
	for _, c := range []struct{ payloadType, payload, want string }{
		{payloadType, "hello world", "DSSEv1 29 http://example.com/HelloWorld 11 hello world"},
		{payloadType, "ಠ", "DSSEv1 29 http://example.com/HelloWorld 3 ಠ"},
		{payloadType, "", "DSSEv1 29 http://example.com/HelloWorld 0 "},
		{"", "", "DSSEv1 0  0 "},
		// Lengths stand before parts, so that no part can pass for two.
		{"a", "b 1 c", "DSSEv1 1 a 5 b 1 c"},
		{"a 5 b", "c", "DSSEv1 5 a 5 b 1 c"},
	} {
		if got := dsse.PAE(c.payloadType, []byte(c.payload)); string(got) != c.want {
			t.Errorf("%q of type %q is signed as %q, want %q", c.payload, c.payloadType, got, c.want)
		}
	}
}

type key struct {
	note.Signer
	note.Verifier
	id string
}

func newKey(t testing.TB, name string) key {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	k := key{}
	if k.Signer, err = note.NewSigner(private); err != nil {
		t.Fatal(err)
	}
	if k.Verifier, err = note.NewVerifier(public); err != nil {
		t.Fatal(err)
	}
	k.id = strings.Join(strings.SplitN(public, "+", 3)[:2], "+") // of NAME+HASH+KEY
	return k
}

func (k key) sign(t testing.TB, payload string) []byte {
	t.Helper()
	e, err := dsse.Sign(t.Context(), k.Signer, payloadType, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The form is envelope.md's, by its letter: what was signed before opens, and what is signed now is read elsewhere.
func TestEnvelopeHasTheFormOfTheSpecification(t *testing.T) {
	k := newKey(t, "example.com/k")
	sig, err := k.Signer.Sign([]byte("DSSEv1 29 http://example.com/HelloWorld 11 hello world"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"payloadType":"http://example.com/HelloWorld","payload":"aGVsbG8gd29ybGQ=","signatures":[{"keyid":"` + k.id + `","sig":"` +
		base64.StdEncoding.EncodeToString(sig) + `"}]}`
	if got := string(k.sign(t, "hello world")); got != want {
		t.Errorf("it is written\n%s\nwant\n%s", got, want)
	}
	for name, text := range map[string]string{
		"as it is written":            want,
		"with blanks":                 strings.ReplaceAll(want, `,"`, ",\n \""),
		"without the id, as it may":   strings.Replace(want, `"keyid":"`+k.id+`",`, "", 1),
		"in the other base64":         strings.Replace(want, base64.StdEncoding.EncodeToString(sig), base64.URLEncoding.EncodeToString(sig), 1),
		"with a stranger's signature": strings.Replace(want, `[{`, `[{"keyid":"a+1","sig":"AAAA"},{`, 1),
	} {
		payload, signers, err := dsse.Open(t.Context(), []byte(text), payloadType, newKey(t, "example.com/old").Verifier, k.Verifier)
		if err != nil || string(payload) != "hello world" || len(signers) != 1 || signers[0] != k.id {
			t.Errorf("%s: %q by %q, %v", name, payload, signers, err)
		}
	}
}

func TestWhatNoTrustedKeySignedIsNotOpenedAndSaysWhy(t *testing.T) {
	k, other := newKey(t, "example.com/k"), newKey(t, "example.com/other")
	good := k.sign(t, "hello world")
	edit := func(change func(e *dsse.Envelope)) []byte {
		e, err := dsse.Parse(good, payloadType)
		if err != nil {
			t.Fatal(err)
		}
		change(e)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	mallory := base64.StdEncoding.EncodeToString([]byte("hello mallory"))
	for name, c := range map[string]struct {
		text    []byte
		trusted []note.Verifier
		want    error
		says    string
	}{
		"another document":             {edit(func(e *dsse.Envelope) { e.Payload = mallory }), []note.Verifier{other.Verifier, k.Verifier}, dsse.ErrChanged, k.id},
		"another document, no id":      {edit(func(e *dsse.Envelope) { e.Payload, e.Signatures[0].KeyID = mallory, "" }), []note.Verifier{k.Verifier}, dsse.ErrStranger, `by "", and not by ` + k.id},
		"another signature":            {edit(func(e *dsse.Envelope) { e.Signatures[0].Sig = "AAAA" }), []note.Verifier{k.Verifier}, dsse.ErrChanged, k.id},
		"a document that is no base64": {edit(func(e *dsse.Envelope) { e.Payload = "%%%" }), []note.Verifier{k.Verifier}, dsse.ErrChanged, k.id},
		"no signature":                 {edit(func(e *dsse.Envelope) { e.Signatures = nil }), []note.Verifier{k.Verifier}, dsse.ErrStranger, "by nobody"},
		"a stranger's":                 {good, []note.Verifier{other.Verifier}, dsse.ErrStranger, `by "` + k.id + `", and not by ` + other.id},
		"a stranger's under a good id": {edit(func(e *dsse.Envelope) { e.Signatures[0].KeyID = other.id }), []note.Verifier{other.Verifier}, dsse.ErrChanged, other.id},
		"no key":                       {good, nil, dsse.ErrStranger, "no key is trusted"},
		"another type":                 {edit(func(e *dsse.Envelope) { e.PayloadType = "text/plain" }), []note.Verifier{k.Verifier}, dsse.ErrMalformed, `"text/plain"`},
		"cut short":                    {good[:len(good)-1], []note.Verifier{k.Verifier}, dsse.ErrMalformed, "no envelope"},
		"nothing":                      {nil, []note.Verifier{k.Verifier}, dsse.ErrMalformed, "no envelope"},
		"a long story": {edit(func(e *dsse.Envelope) {
			for range 1000 {
				e.Signatures = append(e.Signatures, e.Signatures[0])
			}
			for i := range e.Signatures {
				e.Signatures[i].KeyID = strings.Repeat("x", 1000)
			}
		}), []note.Verifier{k.Verifier}, dsse.ErrStranger, "not by " + k.id},
	} {
		payload, signers, err := dsse.Open(t.Context(), c.text, payloadType, c.trusted...)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 600 || payload != nil || signers != nil {
			t.Errorf("%s: %q by %q, %v, want %v", name, payload, signers, err, c.want)
		}
	}
}

// FuzzOpen holds that nothing is answered but what was signed.
func FuzzOpen(f *testing.F) {
	k := newKey(f, "example.com/k")
	good := k.sign(f, "hello world")
	for _, seed := range [][]byte{good, good[:len(good)-1], bytes.Replace(good, []byte("aGVs"), []byte("AGVs"), 1), []byte(`{"payloadType":"` + payloadType + `"}`), nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		payload, signers, err := dsse.Open(t.Context(), text, payloadType, k.Verifier)
		if err == nil && (string(payload) != "hello world" || len(signers) != 1) {
			t.Errorf("%q is opened as %q, signed by %q", text, payload, signers)
		}
	})
}
