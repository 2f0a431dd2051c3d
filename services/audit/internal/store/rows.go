// Package store reads and writes the log's tables: what sqlc makes of the queries, and the rows of the hash tree on top of it.
package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"a3os.app/services/audit/internal/tree"
)

// Rows reads the stored tree for package tree, in the transaction of its queries.
type Rows struct{ *Queries }

// Row implements tree.Reader.
func (r Rows) Row(ctx context.Context, level int, index uint64) ([][]byte, error) {
	if level < 0 || level > math.MaxInt16 || index > math.MaxInt64/tree.TileWidth {
		return nil, fmt.Errorf("no log has a tile %d of level %d", index, level)
	}
	full, err := r.Tile(ctx, TileParams{Level: int16(level), Idx: int64(index)})
	if err == nil {
		return slices.Collect(slices.Chunk(full, tree.HashSize)), nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read tile %d of level %d: %w", index, level, err)
	}
	from := int64(index) * tree.TileWidth
	var row [][]byte
	if level == 0 {
		leaves, err := r.LeafHashes(ctx, from)
		if err != nil {
			return nil, fmt.Errorf("read leaf hashes from %d: %w", from, err)
		}
		for i, l := range leaves {
			if l.Idx != from+int64(i) {
				break // a gap: what follows is not the hash of the next leaf
			}
			row = append(row, l.LeafHash)
		}
		return row, nil
	}
	roots, err := r.TileRoots(ctx, TileRootsParams{Level: int16(level - 1), FromIdx: from})
	if err != nil {
		return nil, fmt.Errorf("read roots of level %d from %d: %w", level-1, from, err)
	}
	for i, t := range roots {
		if t.Idx != from+int64(i) {
			break
		}
		row = append(row, t.Root)
	}
	return row, nil
}
