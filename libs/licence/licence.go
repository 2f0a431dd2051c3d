// Package licence is what a tenant has licensed: a signed file, checked by the set itself against keys that it was configured with,
// and what the file is worth at a moment. It promises that a licence which opens was signed, byte for byte, by a key of the plane, for
// this plane and this tenant, and is whole; and that what it is worth is a matter of the later of two times, so that a clock that is
// turned back gains nothing. It is signed as package dsse does, with keys whose names carry the plane. It relies on package held for which licence a set holds.
package licence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
	"a3os.app/libs/id"
)

const (
	// PayloadType is signed with each licence, so that no other document signed by the same key reads as one.
	PayloadType = "application/vnd.a3os.licence.v1"
	// MaxBytes bounds a licence file.
	MaxBytes = 64 << 10
)

// Why a licence is refused.
var (
	ErrTerms     = errors.New("no such licence can be issued")
	ErrMalformed = errors.New("it is no whole licence file: fetch it again from whoever issued it")
	ErrSignature = errors.New("no licence key that is trusted here signed it: see `fleet licence key` for those that are")
	ErrPlane     = errors.New("it was issued for another plane")
	ErrTenant    = errors.New("it was issued for another tenant")
	ErrOlder     = errors.New("a later licence is held already")
)

// Signer signs licences of one plane.
type Signer struct {
	plane string
	note  note.Signer
}

// NewSigner reads the private half of a key.
func NewSigner(plane, private string) (*Signer, error) {
	s, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("the key that signs licences is not a signed-note key: its file was changed: put it back from a backup, or take it away, and fleet plane up makes another") // the library's error may repeat it
	}
	if s.Name() != keyName(plane) {
		return nil, fmt.Errorf("the key %s signs no licences of plane %s: %w", s.Name(), plane, ErrPlane)
	}
	return &Signer{plane: plane, note: s}, nil
}

// Sign makes the signed file of a licence of the signer's plane. ErrTerms is one that can't be.
func (s *Signer) Sign(ctx context.Context, l *registryv1.Licence) ([]byte, error) {
	if l.GetPlane() != s.plane {
		return nil, fmt.Errorf("sign a licence of plane %q with the key of %s: %w", l.GetPlane(), s.plane, ErrPlane)
	}
	if err := check(l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTerms, err)
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode the licence: %w", err)
	}
	e, err := dsse.Sign(ctx, s.note, PayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign the licence: %w", err)
	}
	return json.Marshal(e)
}

// Verifier opens licences of one plane.
type Verifier struct {
	plane string
	keys  []note.Verifier
}

// NewVerifier trusts keys, the public halves, joined by commas. One at least is demanded: without any no licence would ever hold.
func NewVerifier(plane, keys string) (*Verifier, error) {
	v := &Verifier{plane: plane}
	for text := range strings.SplitSeq(keys, ",") {
		key, err := note.NewVerifier(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%.80q is not a signed-note verifier key of the form NAME+HASH+KEY: `fleet licence key` prints the plane's", text)
		}
		if key.Name() != keyName(plane) {
			return nil, fmt.Errorf("the key %s is not one that signs licences of plane %s", key.Name(), plane)
		}
		v.keys = append(v.keys, key)
	}
	return v, nil
}

// Open verifies a file and reads the licence in it, whoever's it is. What it answers is ErrMalformed, ErrSignature or ErrPlane.
func (v *Verifier) Open(ctx context.Context, file []byte) (*registryv1.Licence, error) {
	if len(file) > MaxBytes {
		return nil, fmt.Errorf("the licence: %w", ErrMalformed)
	}
	payload, _, err := dsse.Open(ctx, file, PayloadType, v.keys...)
	if errors.Is(err, dsse.ErrMalformed) {
		return nil, fmt.Errorf("the licence: %w", ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("the licence: %w", ErrSignature)
	}
	l := &registryv1.Licence{}
	if err := proto.Unmarshal(payload, l); err != nil {
		return nil, fmt.Errorf("the licence: %w", ErrMalformed)
	}
	if l.GetPlane() != v.plane {
		return nil, fmt.Errorf("the licence %s is of plane %q and this is %s: %w", l.GetId(), l.GetPlane(), v.plane, ErrPlane)
	}
	if err := check(l); err != nil {
		return l, fmt.Errorf("%w: %w", err, ErrMalformed)
	}
	return l, nil
}

// OpenFor is Open for one tenant: another's licence is ErrTenant, one with a serial below have ErrOlder.
func (v *Verifier) OpenFor(ctx context.Context, tenant id.Tenant, have int64, file []byte) (*registryv1.Licence, error) {
	l, err := v.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	if tenant.IsZero() || l.GetTenantId() != tenant.String() {
		return nil, fmt.Errorf("the licence %s is of tenant %s and this is %s: %w", l.GetId(), l.GetTenantId(), tenant, ErrTenant)
	}
	if l.GetSerial() < have {
		return nil, fmt.Errorf("the licence %s has serial %d and %d is held: %w", l.GetId(), l.GetSerial(), have, ErrOlder)
	}
	return l, nil
}

// check says what of a licence is missing or can't be.
func check(l *registryv1.Licence) error {
	if err := protovalidate.Validate(l); err != nil {
		if ve, ok := errors.AsType[*protovalidate.ValidationError](err); ok && len(ve.Violations) > 0 {
			v := ve.Violations[0]
			return fmt.Errorf("%s of the licence: %s", protovalidate.FieldPathString(v.Proto.GetField()), cmp.Or(v.Proto.GetMessage(), "it is not what it may be"))
		}
		return err
	}
	if !l.GetValidUntil().AsTime().After(l.GetValidFrom().AsTime()) {
		return errors.New("the licence ends before it begins")
	}
	return nil
}
