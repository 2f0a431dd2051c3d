package licence

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// keyName is what the keys of a plane's licences sign under.
func keyName(plane string) string { return "a3os.app/" + plane + "/licence" }

// NewKey makes a key that signs licences of a plane. The public half goes to every set and to the registry, the private one to no
// service.
func NewKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, keyName(plane))
}

func keyID(name string, hash uint32) string { return fmt.Sprintf("%s+%08x", name, hash) }

// signing has a note key sign envelopes.
type signing struct{ note.Signer }

// Sign implements dsse.Signer.
func (s signing) Sign(_ context.Context, data []byte) ([]byte, error) { return s.Signer.Sign(data) }

// KeyID implements dsse.Signer.
func (s signing) KeyID() (string, error) { return keyID(s.Name(), s.KeyHash()), nil }

// verifying has a note key verify envelopes.
type verifying struct{ note.Verifier }

// Verify implements dsse.Verifier.
func (v verifying) Verify(_ context.Context, data, sig []byte) error {
	if !v.Verifier.Verify(data, sig) {
		return ErrSignature
	}
	return nil
}

// KeyID implements dsse.Verifier.
func (v verifying) KeyID() (string, error) { return keyID(v.Name(), v.KeyHash()), nil }

// Public implements dsse.Verifier. The key itself stays in the library: its id is what it is known by.
func (v verifying) Public() crypto.PublicKey { return nil }
