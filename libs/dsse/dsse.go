// Package dsse signs documents and opens what was signed: DSSE envelopes (github.com/secure-systems-lab/dsse, protocol.md v1 and
// envelope.md), by the field's own library, with signed-note keys (golang.org/x/mod/sumdb/note). It promises that what Open answers was
// signed, byte for byte and as a document of the type that was asked for, by a key that was named. It relies on its callers for which keys
// those are, and for what the document says.
package dsse

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"golang.org/x/mod/sumdb/note"
)

// Envelope is a document with its signatures, as JSON has it.
type Envelope = dsse.Envelope

// Why an envelope is not opened; the errors that are one of these say more.
var (
	// ErrMalformed says that it is no envelope, or one of a document of another type.
	ErrMalformed = errors.New("it is no signed document of this type")
	// ErrChanged says that a key which is trusted signed something else.
	ErrChanged = errors.New("it was changed since it was signed")
	// ErrStranger says that nobody signed it whose key is trusted.
	ErrStranger = errors.New("no key that is trusted signed it")
)

// refusal is one of this package's errors in the words of the case.
type refusal struct {
	kind error
	text string
}

// Error says what of the envelope is not as it has to be.
func (r *refusal) Error() string { return r.text }

// Unwrap gives the kind.
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// PAE is what is signed, the pre-authentication encoding: who has an envelope of their own form signs it themselves.
func PAE(payloadType string, payload []byte) []byte { return dsse.PAE(payloadType, payload) }

// Sign puts a document into an envelope.
func Sign(ctx context.Context, key note.Signer, payloadType string, payload []byte) (*Envelope, error) {
	s, err := dsse.NewEnvelopeSigner(signing{key})
	if err != nil {
		return nil, err
	}
	return s.SignPayload(ctx, payloadType, payload)
}

// Parse reads an envelope of a document of that type, and verifies nothing. Fails with ErrMalformed.
func Parse(text []byte, payloadType string) (*Envelope, error) {
	e := &Envelope{}
	if err := json.Unmarshal(text, e); err != nil {
		return nil, refuse(ErrMalformed, "it is no envelope in JSON")
	}
	if e.PayloadType != payloadType {
		return nil, refuse(ErrMalformed, "its type is %.80q", e.PayloadType)
	}
	return e, nil
}

// Open answers the document in an envelope, and the ids of those keys that signed it, of those that are trusted: one is enough. Fails with
// ErrMalformed, ErrChanged or ErrStranger.
func Open(ctx context.Context, text []byte, payloadType string, trusted ...note.Verifier) (payload []byte, signers []string, err error) {
	e, err := Parse(text, payloadType)
	if err != nil {
		return nil, nil, err
	}
	if len(trusted) == 0 {
		return nil, nil, refuse(ErrStranger, "no key is trusted")
	}
	var keys []dsse.Verifier
	for _, key := range trusted {
		keys = append(keys, verifying{key})
	}
	verifier, err := dsse.NewEnvelopeVerifier(keys...)
	if err != nil {
		return nil, nil, err
	}
	accepted, payload, err := verifier.VerifyAndDecode(ctx, e)
	if err != nil {
		return nil, nil, whyNot(e, trusted)
	}
	for _, a := range accepted {
		signers = append(signers, a.KeyID)
	}
	return payload, signers, nil
}

// whyNot says of an envelope that no trusted key vouches for whether one did of something else.
func whyNot(e *Envelope, trusted []note.Verifier) error {
	var ids []string
	for _, key := range trusted {
		id := keyID(key)
		for _, s := range e.Signatures {
			if s.KeyID == id {
				return refuse(ErrChanged, "the signature of %s is not of what stands in it: it was changed since it was signed", id)
			}
		}
		ids = append(ids, id)
	}
	return refuse(ErrStranger, "it is signed by %s, and not by %s", named(e), strings.Join(ids, ", "))
}

// named is who an envelope says signed it, in short: the text is anybody's.
func named(e *Envelope) string {
	const most, long = 4, 80
	var ids []string
	for _, s := range e.Signatures[:min(most, len(e.Signatures))] {
		ids = append(ids, fmt.Sprintf("%.*q", long, s.KeyID))
	}
	if len(ids) == 0 {
		return "nobody"
	}
	return strings.Join(ids, ", ")
}

// keyID names a key in envelopes, as its own text begins.
func keyID(key interface {
	Name() string
	KeyHash() uint32
}) string {
	return fmt.Sprintf("%s+%08x", key.Name(), key.KeyHash())
}

// signing has a note key sign envelopes.
type signing struct{ note.Signer }

// Sign implements dsse.Signer.
func (s signing) Sign(_ context.Context, data []byte) ([]byte, error) { return s.Signer.Sign(data) }

// KeyID implements dsse.Signer.
func (s signing) KeyID() (string, error) { return keyID(s), nil }

// verifying has a note key verify envelopes.
type verifying struct{ note.Verifier }

// Verify implements dsse.Verifier.
func (v verifying) Verify(_ context.Context, data, sig []byte) error {
	if !v.Verifier.Verify(data, sig) {
		return ErrChanged
	}
	return nil
}

// KeyID implements dsse.Verifier.
func (v verifying) KeyID() (string, error) { return keyID(v), nil }

// Public implements dsse.Verifier. The key itself stays in the library: its id is what it is known by.
func (v verifying) Public() crypto.PublicKey { return nil }
