package witness_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"a3os.app/libs/tlog"
	"a3os.app/services/registry/internal/witness"
)

const origin = "a3os.app/dev/tnt_test/audit"

// tree is a log held in memory, computed by definition (RFC 6962 §2.1) so that it shares no code with what it tests.
type tree struct {
	signer *tlog.Signer
	leaves [][]byte
}

func newTree(t *testing.T) *tree {
	t.Helper()
	secret, _, err := tlog.NewKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return &tree{signer: signer}
}

func (l *tree) grow(n int, word string) {
	for range n {
		l.leaves = append(l.leaves, rfc6962.DefaultHasher.HashLeaf(fmt.Appendf(nil, "%s %d", word, len(l.leaves))))
	}
}

func root(leaves [][]byte) []byte {
	switch len(leaves) {
	case 0:
		return rfc6962.DefaultHasher.EmptyRoot()
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return rfc6962.DefaultHasher.HashChildren(root(leaves[:k]), root(leaves[k:]))
}

func (l *tree) checkpoint(t *testing.T) string {
	t.Helper()
	c, err := l.signer.Sign(uint64(len(l.leaves)), root(l.leaves))
	if err != nil {
		t.Fatal(err)
	}
	return c.Note
}

func (l *tree) consistency(t *testing.T, from int) [][]byte {
	t.Helper()
	nodes, err := proof.Consistency(uint64(from), uint64(len(l.leaves)))
	if err != nil {
		t.Fatal(err)
	}
	var hashes [][]byte
	for _, id := range nodes.IDs {
		first := id.Index << id.Level
		hashes = append(hashes, root(l.leaves[first:min(first+1<<id.Level, uint64(len(l.leaves)))]))
	}
	hashes, err = nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		t.Fatal(err)
	}
	return hashes
}

func (l *tree) key() string { return l.signer.Verifier().String() }

func TestWitnessFollowsALogThatOnlyGrows(t *testing.T) {
	l, held := newTree(t), witness.Held{}
	for size := range 40 {
		proof := [][]byte(nil)
		if held.Size > 0 {
			proof = l.consistency(t, int(held.Size))
		}
		next, err := witness.Advance(held, origin, l.key(), l.checkpoint(t), proof)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if next.Size != uint64(len(l.leaves)) {
			t.Fatalf("holds size %d, want %d", next.Size, len(l.leaves))
		}
		held = next
		l.grow(size%5, "event")
	}
}

// Row A54, at the registry.
func TestLogThatWasCutOrRewrittenGetsNoWitness(t *testing.T) {
	l := newTree(t)
	l.grow(10, "event")
	held, err := witness.Advance(witness.Held{}, origin, l.key(), l.checkpoint(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	other := newTree(t)
	other.grow(20, "event")
	cases := map[string]struct {
		change func(l *tree)
		key    string
		proof  func(l *tree) [][]byte
		want   error
	}{
		"cut":                       {change: func(l *tree) { l.leaves = l.leaves[:9] }, want: witness.ErrRollback},
		"emptied":                   {change: func(l *tree) { l.leaves = nil }, want: witness.ErrRollback},
		"last entry changed":        {change: func(l *tree) { l.leaves = l.leaves[:9]; l.grow(1, "other") }, want: witness.ErrFork},
		"changed and grown":         {change: func(l *tree) { l.leaves = l.leaves[:9]; l.grow(8, "other") }, proof: func(l *tree) [][]byte { return l.consistency(t, 10) }, want: witness.ErrFork},
		"grown without a proof":     {change: func(l *tree) { l.grow(5, "event") }, want: witness.ErrFork},
		"another log's key":         {change: func(*tree) {}, key: other.key(), want: witness.ErrKeyChanged},
		"cut and signed by another": {change: func(l *tree) { l.signer = other.signer }, want: witness.ErrInvalid},
	}
	t.Attr("row", fmt.Sprintf("A54 %d", len(cases)))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			changed := &tree{signer: l.signer, leaves: append([][]byte(nil), l.leaves...)}
			c.change(changed)
			key, hashes := l.key(), [][]byte(nil)
			if c.key != "" {
				key = c.key
			}
			if c.proof != nil {
				hashes = c.proof(changed)
			}
			if _, err := witness.Advance(held, origin, key, changed.checkpoint(t), hashes); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestCheckpointOfAnotherTenantsLogIsRefused(t *testing.T) {
	l := newTree(t)
	if _, err := witness.Advance(witness.Held{}, "a3os.app/dev/tnt_other/audit", l.key(), l.checkpoint(t), nil); !errors.Is(err, witness.ErrInvalid) {
		t.Errorf("got %v, want %v", err, witness.ErrInvalid)
	}
}

// FuzzAdvance looks for a panic, and for anything accepted that the log's key did not sign.
func FuzzAdvance(f *testing.F) {
	secret, vkey, err := tlog.NewKey(origin)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := tlog.NewSigner(secret)
	if err != nil {
		f.Fatal(err)
	}
	c, err := signer.Sign(0, rfc6962.DefaultHasher.EmptyRoot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(vkey, c.Note, []byte{})
	f.Add("", "", []byte("x"))
	f.Fuzz(func(t *testing.T, key, checkpoint string, hash []byte) {
		next, err := witness.Advance(witness.Held{}, origin, key, checkpoint, [][]byte{hash})
		if err == nil && key == vkey && next.Size != 0 {
			t.Errorf("accepted a checkpoint that was never signed: %q", checkpoint)
		}
	})
}
