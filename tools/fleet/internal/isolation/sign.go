package isolation

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"a3os.app/libs/dsse"
)

// payloadType names a report in its envelope.
const payloadType = "application/vnd.a3os.isolation.v1+json"

// keyName is what the key of a plane's proofs signs under.
func keyName(plane string) string { return "a3os.app/" + plane + "/isolation" }

// NewKey makes the key that a plane signs reports with, as a signed-note key (golang.org/x/mod/sumdb/note). The public half goes to
// whoever is to believe them.
func NewKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, keyName(plane))
}

// Sign puts the report into a signed envelope.
func (r *Report) Sign(ctx context.Context, private string) ([]byte, error) {
	signer, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("the key that signs reports is not a signed-note key") // the library's error may repeat it
	}
	payload, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, err
	}
	e, err := dsse.Sign(ctx, signer, payloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign the report: %w", err)
	}
	return json.MarshalIndent(e, "", " ")
}

// Open verifies a signed report with the public half of the plane's key, and reads it. It needs nothing else.
func Open(ctx context.Context, signed []byte, public string) (*Report, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(public))
	if err != nil {
		return nil, errors.New("the key is not a signed-note verifier key of the form NAME+HASH+KEY")
	}
	payload, _, err := dsse.Open(ctx, signed, payloadType, verifier)
	switch {
	case errors.Is(err, dsse.ErrMalformed):
		return nil, fmt.Errorf("this is not a signed report: %w", err)
	case errors.Is(err, dsse.ErrStranger):
		return nil, fmt.Errorf("the report: %w: it is of another plane, or the plane's key was exchanged", err)
	case err != nil:
		return nil, fmt.Errorf("the report: %w", err)
	}
	r := &Report{}
	if err := json.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("the signed report can't be read: %w", err)
	}
	if r.Form != form || keyName(r.Plane) != verifier.Name() {
		return nil, fmt.Errorf("the report is of form %q and plane %q, and %s signs none such", r.Form, r.Plane, verifier.Name())
	}
	return r, nil
}
