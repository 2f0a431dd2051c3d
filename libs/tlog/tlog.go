// Package tlog is what the audit log promises to those who don't trust it: the format of its leaves and of its signed checkpoints
// (RFC 6962 hashes, C2SP tlog-checkpoint and signed-note), and a verifier that recomputes all of it and names what was tampered
// with. It relies on transparency-dev/merkle for the tree, on golang.org/x/mod/sumdb/note for signatures, and on whoever verifies
// to have kept a checkpoint: without one, a log that was cut short or rewritten by the holder of its key looks whole.
package tlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
)

// ErrEmpty is returned for a log that has no checkpoint yet, because nothing was sealed.
var ErrEmpty = fault.Declare(fault.NotFound, "LOG_EMPTY", "the log is empty: nothing was sealed yet")

// HashSize is the length of every hash, in bytes.
const HashSize = 32

// Origin is the name of a tenant's log, on the first line of its checkpoints.
func Origin(plane string, tenant id.Tenant) string {
	return "a3os.app/" + plane + "/" + tenant.String() + "/audit"
}

// Leaf is the bytes that are hashed for one event: its own bytes, and what the database noted beside them. The time is kept to the
// microsecond. Equal arguments give equal bytes.
func Leaf(event []byte, recordedAt time.Time, producer string) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(&auditv1.Leaf{
		Event: event, RecordedAtUs: recordedAt.UnixMicro(), Producer: producer,
	})
}

// ParseLeaf reads a leaf and the event in it. Where the event can't be read, the leaf is returned with an empty event and an error.
func ParseLeaf(raw []byte) (*auditv1.Leaf, *auditv1.Event, error) {
	leaf, event := new(auditv1.Leaf), new(auditv1.Event)
	if err := proto.Unmarshal(raw, leaf); err != nil {
		return new(auditv1.Leaf), event, fmt.Errorf("read the leaf: %w", err)
	}
	if err := proto.Unmarshal(leaf.GetEvent(), event); err != nil {
		return leaf, new(auditv1.Event), fmt.Errorf("read the event in the leaf: %w", err)
	}
	return leaf, event, nil
}

// LeafHash is SHA-256 over 0x00 and the leaf (RFC 6962 §2.1), 32 bytes.
func LeafHash(leaf []byte) []byte { return rfc6962.DefaultHasher.HashLeaf(leaf) }

// Checkpoint is a signed tree head whose signature was verified.
type Checkpoint struct {
	// Size is the number of leaves.
	Size uint64
	// Root is the root hash of the tree of that size, 32 bytes.
	Root []byte
	// Note is the signed note itself.
	Note string
}

// CheckGrowth verifies that the tree of newer begins with the tree of older (RFC 6962 §2.1.2). A witness needs no more than this.
func CheckGrowth(older, newer Checkpoint, hashes [][]byte) error {
	if newer.Size < older.Size {
		return fmt.Errorf("the log has %d entries, an earlier checkpoint has %d: it was cut short", newer.Size, older.Size)
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, newer.Size, hashes, older.Root, newer.Root); err != nil {
		return fmt.Errorf("the log of %d entries does not begin with the log of %d that an earlier checkpoint stands for: %w",
			newer.Size, older.Size, err)
	}
	return nil
}

// CheckInclusion verifies that a leaf is in the tree of a checkpoint, at an index (RFC 6962 §2.1.1).
func CheckInclusion(leaf []byte, index uint64, c Checkpoint, hashes [][]byte) error {
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, c.Size, LeafHash(leaf), hashes, c.Root); err != nil {
		return fmt.Errorf("the leaf is not entry %d of the log of %d entries: %w", index, c.Size, err)
	}
	return nil
}

// Verifier opens the checkpoints of one log.
type Verifier struct {
	key  note.Verifier
	text string
}

// NewVerifier makes a verifier from a verifier key (C2SP signed-note vkey). The key's name is the log's origin.
func NewVerifier(vkey string) (*Verifier, error) {
	key, err := note.NewVerifier(vkey)
	if err != nil {
		// The text isn't repeated: it may be a secret that was given by mistake.
		return nil, fmt.Errorf("this is not a verifier key of the form <origin>+<hash>+<key>: %w", err)
	}
	return &Verifier{key: key, text: vkey}, nil
}

// Origin is the name of the log.
func (v *Verifier) Origin() string { return v.key.Name() }

// String is the verifier key.
func (v *Verifier) String() string { return v.text }

// Open verifies the log's signature on a checkpoint and reads it.
func (v *Verifier) Open(text string) (Checkpoint, error) {
	c, _, _, err := log.ParseCheckpoint([]byte(text), v.Origin(), v.key)
	if err != nil {
		return Checkpoint{}, err
	}
	if len(c.Hash) != HashSize {
		return Checkpoint{}, fmt.Errorf("the root hash has %d bytes, want %d", len(c.Hash), HashSize)
	}
	return Checkpoint{Size: c.Size, Root: c.Hash, Note: text}, nil
}

// Signer signs the checkpoints of one log.
type Signer struct {
	key      note.Signer
	verifier *Verifier
}

// NewKey makes a log key (Ed25519): the secret for NewSigner, and the verifier key that may be given to anybody.
func NewKey(origin string) (secret, vkey string, err error) {
	return note.GenerateKey(rand.Reader, origin)
}

// NewSigner makes a signer from a secret of NewKey. Its errors don't repeat the secret.
func NewSigner(secret string) (*Signer, error) {
	bad := errors.New("the log key is not a signed-note key of the form PRIVATE+KEY+<origin>+<hash>+<key>")
	secret = strings.TrimSpace(secret)
	key, err := note.NewSigner(secret)
	if err != nil {
		return nil, bad
	}
	// Base64 has `+` in its alphabet, so the key is what follows the fourth one.
	parts := strings.SplitN(secret, "+", 5)
	if len(parts) != 5 {
		return nil, bad
	}
	raw, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, bad
	}
	public, ok := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return nil, bad
	}
	vkey, err := note.NewEd25519VerifierKey(key.Name(), public)
	if err != nil {
		return nil, bad
	}
	verifier, err := NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	return &Signer{key: key, verifier: verifier}, nil
}

// Verifier opens what this signer signs.
func (s *Signer) Verifier() *Verifier { return s.verifier }

// Sign signs a tree head. Two different heads of one size would be a fork: whoever calls it signs what is committed and nothing else.
func (s *Signer) Sign(size uint64, root []byte) (Checkpoint, error) {
	text := log.Checkpoint{Origin: s.key.Name(), Size: size, Hash: root}.Marshal()
	signed, err := note.Sign(&note.Note{Text: string(text)}, s.key)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("sign the checkpoint: %w", err)
	}
	return Checkpoint{Size: size, Root: root, Note: string(signed)}, nil
}

// SignText signs a text that is no checkpoint: its first line is not the log's name.
func (s *Signer) SignText(text string) (string, error) {
	if first, _, _ := strings.Cut(text, "\n"); first == s.key.Name() {
		return "", errors.New("the text begins as a checkpoint of the log does, and only Sign signs those")
	}
	signed, err := note.Sign(&note.Note{Text: text}, s.key)
	if err != nil {
		return "", fmt.Errorf("sign a text with the log's key: %w", err)
	}
	return string(signed), nil
}

// OpenText verifies the log's signature on a text that is no checkpoint, and answers the text.
func (v *Verifier) OpenText(signed string) (string, error) {
	n, err := note.Open([]byte(signed), note.VerifierList(v.key))
	if err != nil {
		return "", fmt.Errorf("the note is not signed with the key of the log %s: %w", v.Origin(), err)
	}
	if first, _, _ := strings.Cut(n.Text, "\n"); first == v.Origin() {
		return "", errors.New("the note is a checkpoint")
	}
	return n.Text, nil
}
