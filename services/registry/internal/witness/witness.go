// Package witness follows a log by its checkpoints alone, without seeing any entry. It promises that it never moves to a checkpoint
// that does not contain everything the one held contained, so that a log which was cut or rewritten can't get a witness. It relies
// on libs/tlog for signatures and proofs, and on its caller to keep what is held.
package witness

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/transparency-dev/merkle/rfc6962"

	"a3os.app/libs/clip"
	"a3os.app/libs/tlog"
)

// mostTold keeps errors short when the text is hostile.
const mostTold = 128

// Why a checkpoint is refused. All but ErrInvalid mean that a valid signature stands under a log that isn't the one witnessed.
var (
	ErrInvalid    = errors.New("the checkpoint is not a note signed with the log's key")
	ErrKeyChanged = errors.New("the log's key is not the one it was first seen with")
	ErrRollback   = errors.New("the checkpoint is older than the one witnessed")
	ErrFork       = errors.New("the checkpoint does not contain the one witnessed")
)

// Held is what is known of a log. The zero Held knows nothing yet.
type Held struct {
	// VerifierKey is the key that the log was first seen with, as `name+hash+key`.
	VerifierKey string
	// Size is the number of entries.
	Size uint64
	// Root is the root hash, 32 octets.
	Root []byte
}

// Advance checks a checkpoint of the log named origin against what is held, and answers what to hold from now on. The proof is
// that of consistency between the size held and the checkpoint's; it is empty where either is zero or both are equal.
func Advance(held Held, origin, verifierKey, checkpoint string, consistency [][]byte) (Held, error) {
	if held.VerifierKey != "" && held.VerifierKey != verifierKey {
		return Held{}, ErrKeyChanged
	}
	verifier, err := tlog.NewVerifier(verifierKey)
	if err != nil {
		return Held{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if verifier.Origin() != origin {
		return Held{}, fmt.Errorf("%w: the key is that of log %q, want %q", ErrInvalid, clip.Text(verifier.Origin(), mostTold), origin)
	}
	cp, err := verifier.Open(checkpoint)
	if err != nil {
		return Held{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	next := Held{VerifierKey: verifierKey, Size: cp.Size, Root: cp.Root}
	switch {
	case cp.Size > math.MaxInt64:
		return Held{}, fmt.Errorf("%w: no log has %d entries", ErrInvalid, cp.Size)
	case cp.Size == 0 && !bytes.Equal(cp.Root, rfc6962.DefaultHasher.EmptyRoot()):
		return Held{}, fmt.Errorf("%w: it is empty and its hash is not that of the empty log", ErrInvalid)
	case cp.Size < held.Size:
		return Held{}, fmt.Errorf("%w: size %d, witnessed %d", ErrRollback, cp.Size, held.Size)
	case held.Size == 0:
		return next, nil
	case cp.Size == held.Size && !bytes.Equal(cp.Root, held.Root):
		return Held{}, fmt.Errorf("%w: two logs of size %d", ErrFork, cp.Size)
	case cp.Size == held.Size:
		return next, nil
	}
	if err := tlog.CheckGrowth(tlog.Checkpoint{Size: held.Size, Root: held.Root}, cp, consistency); err != nil {
		return Held{}, fmt.Errorf("%w: %w", ErrFork, err)
	}
	return next, nil
}
