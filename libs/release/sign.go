package release

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
)

// PayloadType is signed with each release, so that no other document signed by the same key reads as one.
const PayloadType = "application/vnd.a3os.release.v1"

// Why a release is refused.
var (
	ErrMalformed = errors.New("it is no signed release: make one with fleet release build")
	ErrUnsigned  = errors.New("no key that this plane trusts signed it: see A3_RELEASE_KEYS, and which key fleet release build was given")
	ErrChanged   = errors.New("somebody changed it in the registry since it was signed: find out who, and put back what was signed")
	ErrPlane     = errors.New("it was made for another plane: build it for this one")
)

// keyName is what the keys of a plane's releases sign under.
func keyName(plane string) string { return "a3os.app/" + plane + "/release" }

// NewKey makes a key that signs releases of a plane. The public half goes to the plane's registry and to whoever carries releases out.
func NewKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, keyName(plane))
}

// Signer signs releases of one plane.
type Signer struct {
	plane string
	note  note.Signer
}

// NewSigner reads the private half of a key.
func NewSigner(plane, private string) (*Signer, error) {
	s, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("the key that signs releases is not a signed-note key: make one with fleet release key") // the library's error may repeat it
	}
	if s.Name() != keyName(plane) {
		return nil, fmt.Errorf("the key %s signs nothing of plane %s: use one that fleet release key made there", s.Name(), plane)
	}
	return &Signer{plane: plane, note: s}, nil
}

// Sign puts a release into a signed envelope.
func (s *Signer) Sign(ctx context.Context, m *registryv1.ReleaseManifest) ([]byte, error) {
	if m.GetPlane() != s.plane {
		return nil, fmt.Errorf("sign a release of plane %q with the key of %s: %w", m.GetPlane(), s.plane, ErrPlane)
	}
	if err := Check(m); err != nil {
		return nil, err
	}
	payload, err := encode(m)
	if err != nil {
		return nil, err
	}
	e, err := dsse.Sign(ctx, s.note, PayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign the release: %w", err)
	}
	return json.Marshal(e)
}

// Opened is a release whose signature was verified.
type Opened struct {
	// Name of it.
	Name Name
	// Manifest that was signed.
	Manifest *registryv1.ReleaseManifest
	// Payload is the manifest's signed bytes.
	Payload []byte
	// KeyIDs of the keys that signed it, of those that are trusted.
	KeyIDs []string
}

// Verifier opens releases of one plane.
type Verifier struct {
	plane string
	keys  []note.Verifier
}

// NewVerifier trusts keys, the public halves, separated by blanks or commas. Without any, nothing is ever accepted: that is a plane
// which takes no releases.
func NewVerifier(plane, keys string) (*Verifier, error) {
	v := &Verifier{plane: plane}
	for _, text := range strings.FieldsFunc(keys, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		key, err := note.NewVerifier(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a signed-note verifier key of the form NAME+HASH+KEY", text)
		}
		if key.Name() != keyName(plane) {
			return nil, fmt.Errorf("the key %s is not one that signs releases of plane %s", text, plane)
		}
		v.keys = append(v.keys, key)
	}
	return v, nil
}

// Open verifies an envelope and reads what was signed. What it answers for is ErrMalformed, ErrUnsigned or ErrPlane.
func (v *Verifier) Open(ctx context.Context, envelope []byte) (*Opened, error) {
	payload, signers, err := dsse.Open(ctx, envelope, PayloadType, v.keys...)
	if errors.Is(err, dsse.ErrMalformed) {
		return nil, fmt.Errorf("the release: %w: %w", err, ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("the release: %w: %w", err, ErrUnsigned)
	}
	m := &registryv1.ReleaseManifest{}
	if err := proto.Unmarshal(payload, m); err != nil {
		return nil, fmt.Errorf("the release: %w", ErrMalformed)
	}
	if m.GetPlane() != v.plane {
		return nil, fmt.Errorf("the release is of plane %q and this is %s: %w", m.GetPlane(), v.plane, ErrPlane)
	}
	if err := Check(m); err != nil {
		return nil, err
	}
	o := &Opened{Manifest: m, Payload: payload, KeyIDs: signers}
	o.Name, err = NameOf(m)
	return o, err
}

// Hold holds what a registry says of a release against what was signed. What it answers for is what Open answers for, or ErrChanged.
func (v *Verifier) Hold(ctx context.Context, r *registryv1.Release) error {
	o, err := v.Open(ctx, r.GetEnvelope())
	if err != nil {
		return fmt.Errorf("release %s: %w", r.GetName(), err)
	}
	if o.Name.String() != r.GetName() {
		return fmt.Errorf("release %s: its signature is of %s: %w", r.GetName(), o.Name, ErrChanged)
	}
	if proto.Equal(o.Manifest, r.GetManifest()) {
		return nil
	}
	var fields []string
	signed, said := o.Manifest.ProtoReflect(), r.GetManifest().ProtoReflect()
	for i := range signed.Descriptor().Fields().Len() {
		if f := signed.Descriptor().Fields().Get(i); !signed.Get(f).Equal(said.Get(f)) {
			fields = append(fields, string(f.Name()))
		}
	}
	return fmt.Errorf("release %s: what was signed differs in %s: %w", r.GetName(), strings.Join(fields, ", "), ErrChanged)
}
