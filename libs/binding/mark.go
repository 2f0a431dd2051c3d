package binding

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"a3os.app/libs/config"
	"a3os.app/libs/id"
)

// Mark says whose a resource is. Its form is a signed note (golang.org/x/mod/sumdb/note, Ed25519) over a few lines of text, so that a
// person reads whose a thing is where it stands.
type Mark struct {
	// Plane of the owner.
	Plane string
	// Tenant of the owner; zero for the plane's own.
	Tenant id.Tenant
	// Kind of the resource.
	Kind Kind
	// Name of the resource where it has one of its own (a database's), so that its mark is worth nothing on another.
	Name string
	// Key names the key that seals what the resource keeps, where one does.
	Key string
}

// MostBytes bounds a mark that is read.
const MostBytes = 2048

const header = "a3os.app mark v1"

// text is the form that is signed. Values hold no line ends: Sign sees to it.
func (m Mark) text() string {
	tenant := ""
	if !m.Tenant.IsZero() {
		tenant = m.Tenant.String()
	}
	return fmt.Sprintf("%s\nplane %s\ntenant %s\nkind %s\nname %s\nkey %s\n", header, m.Plane, tenant, m.Kind, m.Name, m.Key)
}

// parse reads what text gave, and nothing that is written in another way.
func parse(text string) (Mark, error) {
	bad := errors.New("it has not the form of a mark")
	lines := strings.Split(text, "\n")
	names := []string{"plane ", "tenant ", "kind ", "name ", "key "}
	if len(lines) != len(names)+2 || lines[0] != header {
		return Mark{}, bad
	}
	values := make([]string, len(names))
	for i, name := range names {
		value, ok := strings.CutPrefix(lines[i+1], name)
		if !ok {
			return Mark{}, bad
		}
		values[i] = value
	}
	m := Mark{Plane: values[0], Kind: Kind(values[2]), Name: values[3], Key: values[4]}
	if values[1] != "" {
		var err error
		if m.Tenant, err = id.ParseTenant(values[1]); err != nil {
			return Mark{}, bad
		}
	}
	if m.text() != text {
		return Mark{}, bad
	}
	return m, nil
}

// NewKey makes the key that a plane's provisioner signs marks with. The public half goes to every service, the private one to none.
func NewKey(plane string) (private config.Secret, public string, err error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, keyName(plane))
	if err != nil {
		return config.Secret{}, "", fmt.Errorf("make the key that signs the marks of plane %s: %w", plane, err)
	}
	return config.NewSecret(skey), vkey, nil
}

// Signer signs the marks of one plane.
type Signer struct {
	plane string
	note  note.Signer
}

// NewSigner reads the private half of a key.
func NewSigner(plane string, private config.Secret) (*Signer, error) {
	s, err := note.NewSigner(private.Reveal())
	if err != nil {
		// The library's error may repeat the key.
		return nil, errors.New("the key that signs marks is not a signed-note key")
	}
	if s.Name() != keyName(plane) {
		return nil, fmt.Errorf("the key %s does not sign marks of plane %s", s.Name(), plane)
	}
	return &Signer{plane: plane, note: s}, nil
}

// Sign makes the text of a mark. Its plane is the signer's.
func (s *Signer) Sign(m Mark) (string, error) {
	m.Plane = s.plane
	if again, err := parse(m.text()); err != nil || again != m || m.Kind == "" {
		return "", fmt.Errorf("a mark of kind %q and name %q can't be written", m.Kind, m.Name)
	}
	text, err := note.Sign(&note.Note{Text: m.text()}, s.note)
	return string(text), err
}

// Claimed reads a mark without believing it: whose it says the resource is. It is for provisioners, which see to it that they put no
// mark in the place of another's.
func Claimed(text string) (Mark, error) {
	// Without a known key the library answers what it could not verify.
	_, err := note.Open([]byte(text), note.VerifierList())
	unverified, ok := errors.AsType[*note.UnverifiedNoteError](err)
	if !ok {
		return Mark{}, errors.New("it is not a signed note")
	}
	return parse(unverified.Note.Text)
}

// Check fails where the text that a resource carries is not the mark of this owner for it. want holds the kind, and the name and key
// where the resource has them; place names the resource in the refusal.
func (o *Owner) Check(want Mark, text string, place Place) error {
	want.Plane, want.Tenant = o.plane, o.tenant
	if strings.TrimSpace(text) == "" {
		return Refuse(ErrUnmarked, "%s carries no mark, so nothing says whose it is, and %s: %s, or have fleet mark it", place.What, o.self(), place.check())
	}
	found, err := o.open(text, place)
	if err != nil {
		return err
	}
	switch {
	case found.Plane != want.Plane:
		return Refuse(ErrForeign, "%s carries the mark of plane %s, and this is plane %s: %s", place.What, found.Plane, want.Plane, place.check())
	case found.Tenant != want.Tenant:
		return Refuse(ErrForeign, "%s carries the mark of %s, %s: %s", place.What, whose(found.Plane, found.Tenant), o.self(), place.check())
	case found.Kind != want.Kind:
		return Refuse(ErrForeign, "%s carries the mark of this set's %s, and is used as its %s: %s", place.What, found.Kind, want.Kind, place.check())
	case found.Name != want.Name:
		return Refuse(ErrForeign, "%s carries the mark of %s %q, a copy: %s, or have fleet mark it", place.What, found.Kind, found.Name, place.check())
	case found.Key != want.Key:
		return Refuse(ErrReach, "%s is sealed with key %q, and this role was given key %q, which opens another's: check the key, and %s",
			place.What, found.Key, want.Key, place.Setting)
	}
	return nil
}

// open verifies a mark's signature.
func (o *Owner) open(text string, place Place) (Mark, error) {
	forged := func(format string, args ...any) error {
		return Refuse(ErrForged, "%s carries a mark "+format+": %s, or have fleet mark it", append(append([]any{place.What}, args...), place.check())...)
	}
	if len(text) > MostBytes {
		return Mark{}, forged("of more than %d bytes, which no mark has", MostBytes)
	}
	n, err := note.Open([]byte(text), o.keys)
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		signer := "nobody"
		if sigs := unverified.Note.UnverifiedSigs; len(sigs) > 0 {
			signer = fmt.Sprintf("%s+%08x", sigs[0].Name, sigs[0].Hash)
		}
		return Mark{}, forged("that %s signed, and this plane's marks are signed by %s", signer, o.named)
	}
	if _, ok := errors.AsType[*note.InvalidSignatureError](err); ok {
		return Mark{}, forged("whose signature is not that of its text: it is forged, or was changed")
	}
	if err != nil {
		return Mark{}, forged("that can't be read")
	}
	m, err := parse(n.Text)
	if err != nil {
		return Mark{}, forged("that says nothing this release understands")
	}
	return m, nil
}
