// Package snapshot signs and checks what gateways route by, and what changes of it. It promises that a snapshot or a change which was
// forged, cut short, made for another plane, older than what is held, or too large is refused with an error that says which, before anything in it is used,
// and that a snapshot accepted once can be checked again years later with the public key alone. The signature is Ed25519 over the
// DSSE pre-authentication encoding (github.com/secure-systems-lab/dsse, protocol.md, v1). It relies on the registry for what the
// routes say.
package snapshot

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/dsse"
)

const (
	// PayloadType is signed with each snapshot, so that no other document signed by the same key reads as one.
	PayloadType = "application/vnd.a3os.snapshot.v1"
	// MaxBytes bounds the serialized snapshot: 16 MiB, some ten thousand tenants.
	MaxBytes = 16 << 20
	// maxRoutes bounds what a gateway makes of a snapshot.
	maxRoutes = 100_000
)

// Why a snapshot is refused.
var (
	ErrTooLarge  = errors.New("the snapshot is larger than 16 MiB")
	ErrMalformed = errors.New("the snapshot is malformed")
	ErrKey       = errors.New("the snapshot was signed by an unknown key")
	ErrSignature = errors.New("the snapshot's signature does not verify")
	ErrPlane     = errors.New("the snapshot belongs to another plane")
	ErrOlder     = errors.New("the snapshot is older than the one held")
	ErrGap       = errors.New("the change is of another version of the snapshot than the one held")
)

// Signer signs snapshots of one plane.
type Signer struct {
	plane string
	keyID string
	key   ed25519.PrivateKey
}

// NewSigner makes a signer. It refuses an unknown plane and a key that isn't one.
func NewSigner(plane string, key ed25519.PrivateKey) (*Signer, error) {
	if plane != "dev" && plane != "prod" {
		return nil, fmt.Errorf("%q is not a plane, want dev or prod", plane)
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the signing key has %d octets, an Ed25519 private key has %d", len(key), ed25519.PrivateKeySize)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the signing key has no Ed25519 public key")
	}
	return &Signer{plane: plane, keyID: KeyID(public), key: key}, nil
}

// Sign signs a snapshot of the signer's plane. The same snapshot gives the same bytes, whichever process signs it.
func (s *Signer) Sign(snap *registryv1.Snapshot) (*registryv1.SignedSnapshot, error) {
	if snap.GetPlane() != s.plane {
		return nil, fmt.Errorf("sign a snapshot of plane %q with the key of %s: %w", snap.GetPlane(), s.plane, ErrPlane)
	}
	if err := check(snap); err != nil {
		return nil, fmt.Errorf("sign a snapshot: %w", err)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(snap)
	if err != nil {
		return nil, fmt.Errorf("encode a snapshot: %w", err)
	}
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("sign a snapshot of %d octets: %w", len(raw), ErrTooLarge)
	}
	return &registryv1.SignedSnapshot{Snapshot: raw, KeyId: s.keyID, Signature: ed25519.Sign(s.key, dsse.PAE(PayloadType, raw))}, nil
}

// Verifier checks snapshots of one plane. It holds several keys while one replaces another.
type Verifier struct {
	plane string
	keys  map[string]ed25519.PublicKey
}

// NewVerifier makes a verifier. At least one key is demanded: without one nothing could ever be accepted.
func NewVerifier(plane string, keys ...ed25519.PublicKey) (*Verifier, error) {
	if plane != "dev" && plane != "prod" {
		return nil, fmt.Errorf("%q is not a plane, want dev or prod", plane)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key to check snapshots with: name the registry's public key")
	}
	v := &Verifier{plane: plane, keys: make(map[string]ed25519.PublicKey, len(keys))}
	for _, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("a snapshot key has %d octets, an Ed25519 public key has %d", len(k), ed25519.PublicKeySize)
		}
		v.keys[KeyID(k)] = k
	}
	return v, nil
}

// Verify answers the snapshot that was signed, or why it is refused: one of this package's errors. A version below have is
// ErrOlder; the same version is accepted, for a gateway that starts again holds it already.
func (v *Verifier) Verify(signed *registryv1.SignedSnapshot, have int64) (*registryv1.Snapshot, error) {
	snap := &registryv1.Snapshot{}
	if err := v.open(PayloadType, signed.GetSnapshot(), signed.GetKeyId(), signed.GetSignature(), snap); err != nil {
		return nil, err
	}
	if snap.GetPlane() != v.plane {
		return nil, fmt.Errorf("%w: it is of %q, this is %s", ErrPlane, snap.GetPlane(), v.plane)
	}
	if err := check(snap); err != nil {
		return nil, err
	}
	if snap.GetVersion() < have {
		return nil, fmt.Errorf("%w: version %d, held %d", ErrOlder, snap.GetVersion(), have)
	}
	return snap, nil
}

// open decodes what a known key signed as a document of that type, and nothing else.
func (v *Verifier) open(payloadType string, raw []byte, keyID string, signature []byte, into proto.Message) error {
	if len(raw) > MaxBytes {
		return ErrTooLarge
	}
	key, ok := v.keys[keyID]
	if !ok {
		return ErrKey
	}
	if len(signature) != ed25519.SignatureSize || !ed25519.Verify(key, dsse.PAE(payloadType, raw), signature) {
		return ErrSignature
	}
	if err := proto.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
