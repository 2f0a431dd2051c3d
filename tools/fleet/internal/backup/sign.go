package backup

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const payloadType = "application/vnd.a3os.backup.v1+json"

// envelope is a signed manifest: DSSE (github.com/secure-systems-lab/dsse, envelope.md), Ed25519.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// NewManifestKey makes the key that a plane signs manifests with, a signed-note key (golang.org/x/mod/sumdb/note).
func NewManifestKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, "a3os.app/"+plane+"/backup")
}

// pae is what is signed: DSSE's pre-authentication encoding.
func pae(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func sign(payload []byte, private string) ([]byte, error) {
	signer, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("the key that signs manifests is not a signed-note key") // the library's error may repeat it
	}
	sig, err := signer.Sign(pae(payload))
	if err != nil {
		return nil, fmt.Errorf("sign the manifest: %w", err)
	}
	return json.MarshalIndent(envelope{PayloadType: payloadType, Payload: payload,
		Signatures: []signature{{KeyID: fmt.Sprintf("%s+%08x", signer.Name(), signer.KeyHash()), Sig: sig}}}, "", " ")
}

// mostManifest bounds what is read before it is believed.
const mostManifest = 16 << 20

func parseEnvelope(dir string) (envelope, error) {
	var e envelope
	file := filepath.Join(dir, manifestFile)
	info, err := os.Lstat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > mostManifest) {
		err = errors.New("it is no file of a manifest's size")
	}
	if err != nil {
		return e, refuse("%s holds no backup: %w", dir, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return e, refuse("%s holds no backup: %w", dir, err)
	}
	if err := json.Unmarshal(text, &e); err != nil || e.PayloadType != payloadType {
		return e, refuse("%s is no manifest of a backup", file)
	}
	return e, nil
}

func readEnvelope(dir string) ([]byte, error) {
	e, err := parseEnvelope(dir)
	return e.Payload, err
}

func openEnvelope(dir string, whose Whose) ([]byte, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(whose.ManifestKey))
	if err != nil {
		return nil, errors.New("the key of manifests is not a signed-note verifier key of the form NAME+HASH+KEY")
	}
	e, err := parseEnvelope(dir)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%s+%08x", verifier.Name(), verifier.KeyHash())
	var signers []string
	for _, s := range e.Signatures {
		if s.KeyID == id {
			if !verifier.Verify(pae(e.Payload), s.Sig) {
				return nil, refuse("the signature of %s is not that of the manifest in %s: it was changed since it was signed", id, dir)
			}
			return e.Payload, nil
		}
		signers = append(signers, s.KeyID)
	}
	return nil, refuse("the manifest in %s is signed by %q, and not by %s: it is of another plane", dir, strings.Join(signers, ", "), id)
}
