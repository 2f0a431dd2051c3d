package tlog

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// Proof says, to whoever has the log's key and nothing else, that an entry is in the log (C2SP tlog-proof).
type Proof struct {
	// Leaf is the entry, carried as the proof's extra data; nil where it isn't.
	Leaf []byte
	// Index of the entry.
	Index uint64
	// Hashes are the inclusion proof (RFC 6962 §2.1.1), from the leaf's sibling up.
	Hashes [][]byte
	// Checkpoint is the signed note of the tree that the proof is for.
	Checkpoint string
}

// Marshal writes the proof.
func (p Proof) Marshal() []byte {
	var b strings.Builder
	fmt.Fprintln(&b, "c2sp.org/tlog-proof@v1")
	if p.Leaf != nil {
		fmt.Fprintln(&b, "extra", base64.StdEncoding.EncodeToString(p.Leaf))
	}
	fmt.Fprintln(&b, "index", p.Index)
	for _, h := range p.Hashes {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h))
	}
	fmt.Fprintf(&b, "\n%s", p.Checkpoint)
	return []byte(b.String())
}

// Verify verifies the checkpoint's signature and that the leaf, which the proof carries, is in its tree.
func (p Proof) Verify(v *Verifier) (Checkpoint, error) {
	c, err := v.Open(p.Checkpoint)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the proof's checkpoint is not signed by %s: %w", v.Origin(), err)
	}
	return c, CheckInclusion(p.Leaf, p.Index, c, p.Hashes)
}
