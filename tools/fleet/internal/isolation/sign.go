package isolation

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// payloadType names a report in its envelope.
const payloadType = "application/vnd.a3os.isolation.v1+json"

// envelope is a signed report: DSSE (github.com/secure-systems-lab/dsse, envelope.md), Ed25519.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"` // base64
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"` // base64
}

// keyName is what the key of a plane's proofs signs under.
func keyName(plane string) string { return "a3os.app/" + plane + "/isolation" }

// NewKey makes the key that a plane signs reports with, as a signed-note key (golang.org/x/mod/sumdb/note). The public half goes to
// whoever is to believe them.
func NewKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, keyName(plane))
}

// pae is what is signed: DSSE's pre-authentication encoding.
func pae(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// Sign puts the report into a signed envelope.
func (r *Report) Sign(private string) ([]byte, error) {
	signer, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("the key that signs reports is not a signed-note key") // the library's error may repeat it
	}
	payload, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, err
	}
	sig, err := signer.Sign(pae(payload))
	if err != nil {
		return nil, fmt.Errorf("sign the report: %w", err)
	}
	return json.MarshalIndent(envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []signature{
		{KeyID: fmt.Sprintf("%s+%08x", signer.Name(), signer.KeyHash()), Sig: base64.StdEncoding.EncodeToString(sig)}}}, "", " ")
}

// Open verifies a signed report with the public half of the plane's key, and reads it. It needs nothing else.
func Open(signed []byte, public string) (*Report, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(public))
	if err != nil {
		return nil, errors.New("the key is not a signed-note verifier key of the form NAME+HASH+KEY")
	}
	var e envelope
	if err := json.Unmarshal(signed, &e); err != nil {
		return nil, fmt.Errorf("this is not a signed report: %w", err)
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil || e.PayloadType != payloadType {
		return nil, fmt.Errorf("this is not a signed report, its type is %q", e.PayloadType)
	}
	id := fmt.Sprintf("%s+%08x", verifier.Name(), verifier.KeyHash())
	var signers []string
	for _, s := range e.Signatures {
		signers = append(signers, s.KeyID)
		sig, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil || s.KeyID != id {
			continue
		}
		if !verifier.Verify(pae(payload), sig) {
			return nil, fmt.Errorf("the signature of %s is not that of this report: it was changed since it was signed", id)
		}
		r := &Report{}
		if err := json.Unmarshal(payload, r); err != nil {
			return nil, fmt.Errorf("the signed report can't be read: %w", err)
		}
		if r.Form != form || keyName(r.Plane) != verifier.Name() {
			return nil, fmt.Errorf("the report is of form %q and plane %q, and %s signs none such", r.Form, r.Plane, id)
		}
		return r, nil
	}
	return nil, fmt.Errorf("the report is signed by %q, and not by %s: it is of another plane, or the plane's key was exchanged", strings.Join(signers, ", "), id)
}
