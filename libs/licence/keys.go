package licence

import (
	"crypto/rand"

	"golang.org/x/mod/sumdb/note"
)

// keyName is what the keys of a plane's licences sign under.
func keyName(plane string) string { return "a3os.app/" + plane + "/licence" }

// NewKey makes a key that signs licences of a plane. The public half goes to every set and to the registry, the private one to no
// service.
func NewKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, keyName(plane))
}
