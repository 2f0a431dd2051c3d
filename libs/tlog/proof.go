package tlog

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

const proofHeader = "c2sp.org/tlog-proof@v1"

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
	fmt.Fprintln(&b, proofHeader)
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

// ParseProof reads a proof. It verifies nothing: see Verify.
func ParseProof(raw []byte) (Proof, error) {
	text, note, ok := strings.Cut(string(raw), "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) < 2 || lines[0] != proofHeader {
		return Proof{}, fmt.Errorf("this is no proof: it has to begin with the line %s", proofHeader)
	}
	p := Proof{Checkpoint: note}
	lines = lines[1:]
	if extra, has := strings.CutPrefix(lines[0], "extra "); has {
		var err error
		if p.Leaf, err = base64.StdEncoding.DecodeString(extra); err != nil {
			return Proof{}, fmt.Errorf("the proof's extra data is no base64: %w", err)
		}
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return Proof{}, fmt.Errorf("the proof has no line `index <n>`")
	}
	index, has := strings.CutPrefix(lines[0], "index ")
	n, err := strconv.ParseUint(index, 10, 63)
	if !has || err != nil || strconv.FormatUint(n, 10) != index {
		return Proof{}, fmt.Errorf("the proof has no line `index <n>`")
	}
	p.Index = n
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != HashSize {
			return Proof{}, fmt.Errorf("the proof has a line that is no hash of %d bytes", HashSize)
		}
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// Verify verifies the checkpoint's signature and that the leaf, which the proof carries, is in its tree.
func (p Proof) Verify(v *Verifier) (Checkpoint, error) {
	c, err := v.Open(p.Checkpoint)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the proof's checkpoint is not signed by %s: %w", v.Origin(), err)
	}
	return c, CheckInclusion(p.Leaf, p.Index, c, p.Hashes)
}
