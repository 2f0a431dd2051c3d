// Package tree keeps the hash tree of the log in tiles of 256 hashes (C2SP tlog-tiles: level 0 holds leaf hashes, level n+1 the
// roots of the full tiles of level n): it grows the tree leaf by leaf and proves things about it. Only full tiles are ever stored,
// once; the right edge is read from what the next tiles are made of. It relies on transparency-dev/merkle for which nodes a proof
// needs, and on its reader for hashes that are committed.
package tree

import (
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

const (
	// TileWidth is how many hashes a full tile has.
	TileWidth = 256
	// HashSize is the length of a hash, in bytes.
	HashSize = 32

	tileHeight = 8
	// levels of tiles that an index of 63 bits can need.
	levels = 8
)

// Tile is a full tile.
type Tile struct {
	// Level of the tile, from 0.
	Level int
	// Index of the tile in its level.
	Index uint64
	// Hashes are its 256 hashes, one after the other.
	Hashes []byte
	// Root is the root of the subtree over the hashes.
	Root []byte
}

// Reader reads what is stored of the tree.
type Reader interface {
	// Row is the hashes of a tile: 256 of a full one, those there are of one at the right edge, where level 0 holds the hashes of
	// leaves below size and level n+1 the roots of the full tiles of level n.
	Row(ctx context.Context, level int, index uint64) ([][]byte, error)
}

// Builder grows the tree. Its zero value is no builder: see New and Resume.
type Builder struct {
	rng  *compact.Range
	edge [levels][][]byte
}

// New is the empty tree.
func New() *Builder { return &Builder{rng: factory().NewEmptyRange(0)} }

// Resume is the tree of a size, from what is stored.
func Resume(ctx context.Context, r Reader, size uint64) (*Builder, error) {
	b := New()
	var roots [][]byte // of the perfect subtrees that make up the tree, right to left
	for level := range levels {
		width := size >> (tileHeight * level)
		if width == 0 {
			break
		}
		have := int(width % TileWidth)
		if have > 0 {
			row, err := r.Row(ctx, level, width/TileWidth)
			if err != nil {
				return nil, err
			}
			if len(row) < have {
				return nil, fmt.Errorf("tile %d of level %d has %d hashes, a tree of %d leaves needs %d", width/TileWidth, level, len(row), size, have)
			}
			b.edge[level] = row[:have:have]
		}
		// The bits of have are the perfect subtrees inside of the tile, the largest leftmost.
		for bit, end := 0, have; bit < tileHeight; bit++ {
			if have&(1<<bit) == 0 {
				continue
			}
			begin := end - 1<<bit
			roots = append(roots, fold(b.edge[level][begin:end]))
			end = begin
		}
	}
	left := make([][]byte, 0, len(roots))
	for i := len(roots) - 1; i >= 0; i-- {
		left = append(left, roots[i])
	}
	rng, err := factory().NewRange(0, size, left)
	if err != nil {
		return nil, fmt.Errorf("resume the tree of %d leaves: %w", size, err)
	}
	b.rng = rng
	return b, nil
}

// Size is the number of leaves.
func (b *Builder) Size() uint64 { return b.rng.End() }

// Root is the root hash; nil for the empty tree.
func (b *Builder) Root() ([]byte, error) { return b.rng.GetRootHash(nil) }

// Append adds a leaf hash and returns the tiles that became full by it, lowest first.
func (b *Builder) Append(leafHash []byte) ([]Tile, error) {
	var full []Tile
	err := b.rng.Append(leafHash, func(id compact.NodeID, hash []byte) {
		if id.Level%tileHeight != 0 {
			return
		}
		level := int(id.Level / tileHeight)
		if level > 0 {
			below := level - 1
			full = append(full, Tile{Level: below, Index: id.Index, Hashes: join(b.edge[below]), Root: hash})
			b.edge[below] = nil
		}
		b.edge[level] = append(b.edge[level], hash)
	})
	if err != nil {
		return nil, fmt.Errorf("grow the tree: %w", err)
	}
	return full, nil
}

// Inclusion proves that the leaf at index is in the tree of size (RFC 6962 §2.1.1).
func Inclusion(ctx context.Context, r Reader, index, size uint64) ([][]byte, error) {
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, err
	}
	return prove(ctx, r, nodes)
}

// Consistency proves that the tree of one size begins with that of another (RFC 6962 §2.1.2).
func Consistency(ctx context.Context, r Reader, from, to uint64) ([][]byte, error) {
	nodes, err := proof.Consistency(from, to)
	if err != nil {
		return nil, err
	}
	return prove(ctx, r, nodes)
}

func prove(ctx context.Context, r Reader, nodes proof.Nodes) ([][]byte, error) {
	rows := make(map[tileID][][]byte)
	hashes := make([][]byte, 0, len(nodes.IDs))
	for _, n := range nodes.IDs {
		h, err := node(ctx, r, rows, n)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	return nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}

type tileID struct {
	level int
	index uint64
}

// node is the hash of a perfect subtree, folded from the row of the tile that it lies in. Rows already read are in rows.
func node(ctx context.Context, r Reader, rows map[tileID][][]byte, n compact.NodeID) ([]byte, error) {
	level, height := int(n.Level/tileHeight), n.Level%tileHeight
	begin := n.Index << height // in hashes of the tile's level
	id := tileID{level: level, index: begin / TileWidth}
	row, ok := rows[id]
	if !ok {
		var err error
		if row, err = r.Row(ctx, id.level, id.index); err != nil {
			return nil, err
		}
		rows[id] = row
	}
	from := int(begin % TileWidth)
	to := from + 1<<height
	if len(row) < to {
		return nil, fmt.Errorf("tile %d of level %d has %d hashes, the proof needs %d: the stored tree is damaged", id.index, id.level, len(row), to)
	}
	return fold(row[from:to]), nil
}

// fold is the root over a power of two of hashes.
func fold(hashes [][]byte) []byte {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return rfc6962.DefaultHasher.HashChildren(fold(hashes[:half]), fold(hashes[half:]))
}

func join(hashes [][]byte) []byte {
	out := make([]byte, 0, len(hashes)*HashSize)
	for _, h := range hashes {
		out = append(out, h...)
	}
	return out
}

func factory() *compact.RangeFactory {
	return &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
}
