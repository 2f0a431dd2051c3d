package tree_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"a3os.app/services/audit/internal/tree"
)

// kept is what the database keeps: leaf hashes and full tiles.
type kept struct {
	leaves [][]byte
	tiles  map[[2]uint64]tree.Tile
}

func (k *kept) Row(_ context.Context, level int, index uint64) ([][]byte, error) {
	if t, ok := k.tiles[[2]uint64{uint64(level), index}]; ok {
		return slices.Collect(slices.Chunk(t.Hashes, tree.HashSize)), nil
	}
	var row [][]byte
	for i := index * tree.TileWidth; i < (index+1)*tree.TileWidth; i++ {
		if level == 0 {
			if i >= uint64(len(k.leaves)) {
				break
			}
			row = append(row, k.leaves[i])
			continue
		}
		t, ok := k.tiles[[2]uint64{uint64(level - 1), i}]
		if !ok {
			break
		}
		row = append(row, t.Root)
	}
	return row, nil
}

// grow makes a tree of n leaves and, beside it, the hashes that golang.org/x/mod/sumdb/tlog keeps for the same leaves.
func grow(t interface{ Fatal(...any) }, n int) (*tree.Builder, *kept, []tlog.Hash) {
	b, k := tree.New(), &kept{tiles: make(map[[2]uint64]tree.Tile)}
	var stored []tlog.Hash
	for i := range n {
		leaf := fmt.Appendf(nil, "leaf %d", i)
		hash := rfc6962.DefaultHasher.HashLeaf(leaf)
		k.leaves = append(k.leaves, hash)
		full, err := b.Append(hash)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range full {
			k.tiles[[2]uint64{uint64(f.Level), f.Index}] = f
		}
		more, err := tlog.StoredHashes(int64(i), leaf, reader(stored))
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	return b, k, stored
}

func reader(stored []tlog.Hash) tlog.HashReaderFunc {
	return func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = stored[x]
		}
		return out, nil
	}
}

func hashes(in [][]byte) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = tlog.Hash(h)
	}
	return out
}

func TestEveryProofOfASmallTreeIsAcceptedByTheGoChecksumDatabasesVerifier(t *testing.T) {
	const most = 70
	_, k, stored := grow(t, most)
	for size := int64(1); size <= most; size++ {
		root, err := tlog.TreeHash(size, reader(stored))
		if err != nil {
			t.Fatal(err)
		}
		for n := range size {
			p, err := tree.Inclusion(t.Context(), k, uint64(n), uint64(size))
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckRecord(hashes(p), size, root, n, tlog.Hash(k.leaves[n])); err != nil {
				t.Errorf("leaf %d in tree of %d: %v", n, size, err)
			}
			older, err := tlog.TreeHash(n+1, reader(stored))
			if err != nil {
				t.Fatal(err)
			}
			if p, err = tree.Consistency(t.Context(), k, uint64(n+1), uint64(size)); err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckTree(hashes(p), size, root, n+1, older); err != nil {
				t.Errorf("tree of %d begins with tree of %d: %v", size, n+1, err)
			}
		}
	}
}

func TestProofsAcrossTilesAreAcceptedByBothVerifiers(t *testing.T) {
	const most = 256*256 + 256*3 + 77 // three levels of tiles, all of them with a right edge
	_, k, stored := grow(t, most)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, most).Draw(t, "size")
		older := rapid.Int64Range(1, size).Draw(t, "older")
		n := rapid.Int64Range(0, size-1).Draw(t, "leaf")
		root, err := tlog.TreeHash(size, reader(stored))
		if err != nil {
			t.Fatal(err)
		}
		olderRoot, err := tlog.TreeHash(older, reader(stored))
		if err != nil {
			t.Fatal(err)
		}
		p, err := tree.Inclusion(context.Background(), k, uint64(n), uint64(size))
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(hashes(p), size, root, n, tlog.Hash(k.leaves[n])); err != nil {
			t.Error(err)
		}
		if err := merkle.VerifyInclusion(rfc6962.DefaultHasher, uint64(n), uint64(size), k.leaves[n], p, root[:]); err != nil {
			t.Error(err)
		}
		if p, err = tree.Consistency(context.Background(), k, uint64(older), uint64(size)); err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(hashes(p), size, root, older, olderRoot); err != nil {
			t.Error(err)
		}
		if err := merkle.VerifyConsistency(rfc6962.DefaultHasher, uint64(older), uint64(size), p, olderRoot[:], root[:]); err != nil {
			t.Error(err)
		}
	})
}

func TestTilesAreThoseOfTheTileFormat(t *testing.T) {
	const size = 256*257 + 9
	_, k, stored := grow(t, size)
	full := 0
	for _, want := range tlog.NewTiles(8, 0, size) {
		data, err := tlog.ReadTileData(want, reader(stored))
		if err != nil {
			t.Fatal(err)
		}
		row, err := k.Row(t.Context(), want.L, uint64(want.N))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Join(row, nil); !bytes.Equal(got[:want.W*tree.HashSize], data) {
			t.Errorf("tile %s differs", want.Path())
		}
		if want.W == tree.TileWidth {
			full++
		}
	}
	if full != len(k.tiles) {
		t.Errorf("%d full tiles are stored, the format has %d", len(k.tiles), full)
	}
}

func TestResumedTreeGrowsAsIfNeverInterrupted(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 255, 256, 257, 511, 512, 600, 256 * 256, 256*256 + 1, 256*256 + 300}
	for _, size := range sizes {
		whole, kWhole, _ := grow(t, size+300)
		_, k, _ := grow(t, size)
		b, err := tree.Resume(t.Context(), k, uint64(size))
		if err != nil {
			t.Fatalf("resume at %d: %v", size, err)
		}
		var full []tree.Tile
		for _, h := range kWhole.leaves[size:] {
			f, err := b.Append(h)
			if err != nil {
				t.Fatal(err)
			}
			full = append(full, f...)
		}
		for _, f := range full {
			if want := kWhole.tiles[[2]uint64{uint64(f.Level), f.Index}]; !bytes.Equal(f.Hashes, want.Hashes) || !bytes.Equal(f.Root, want.Root) {
				t.Errorf("resumed at %d: tile %d of level %d differs", size, f.Index, f.Level)
			}
		}
		if len(k.tiles)+len(full) != len(kWhole.tiles) {
			t.Errorf("resumed at %d: %d tiles, want %d", size, len(k.tiles)+len(full), len(kWhole.tiles))
		}
		got, err := b.Root()
		if err != nil {
			t.Fatal(err)
		}
		want, err := whole.Root()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || b.Size() != whole.Size() {
			t.Errorf("resumed at %d: root %x, want %x", size, got, want)
		}
	}
}

func TestDamagedTilesAreAnErrorAndNoProof(t *testing.T) {
	_, k, _ := grow(t, 600)
	k.leaves = k.leaves[:520]
	if _, err := tree.Resume(t.Context(), k, 600); err == nil {
		t.Error("resumed a tree whose leaves are gone")
	}
	if _, err := tree.Inclusion(t.Context(), k, 590, 600); err == nil {
		t.Error("proved a leaf that is gone")
	}
	if sum := sha256.Sum256([]byte("\x00leaf 0")); !bytes.Equal(k.leaves[0], sum[:]) {
		t.Error("a leaf hash is not SHA-256 over 0x00 and the leaf")
	}
}
