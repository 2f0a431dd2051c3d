package ledger

import (
	"context"
	"fmt"

	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/store"
	"a3os.app/services/audit/internal/tree"
)

var errNoTile = fault.New(fault.NotFound, "the newest checkpoint's tree has no such tile")

// Tile is a tile of hashes or a bundle of entries in the layout of C2SP tlog-tiles, as it is stored. Of what lies beyond the newest
// checkpoint nothing is told: no signature stands for it yet.
func (l Ledger) Tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	head, err := l.Newest(ctx)
	if err != nil {
		return nil, err
	}
	if !within(t, uint64(head.Size)) { //nolint:gosec // a size is > 0 by the table's CHECK
		return nil, errNoTile
	}
	if t.Level == tlog.Entries {
		return l.bundle(ctx, t)
	}
	var out []byte
	err = l.read(ctx, func(q *store.Queries) error {
		row, err := store.Rows{Queries: q}.Row(ctx, t.Level, t.Index)
		if err != nil {
			return err
		}
		if len(row) < t.Width {
			return fault.New(fault.FailedPrecondition, "tile %d of level %d has %d hashes, the newest checkpoint's tree has %d: the log was tampered with, run `a3 audit verify`",
				t.Index, t.Level, len(row), t.Width)
		}
		out = make([]byte, 0, t.Width*tree.HashSize)
		for _, h := range row[:t.Width] {
			out = append(out, h...)
		}
		return nil
	})
	return out, err
}

// within says whether a tree of a size has the tile, or one that is wider.
func within(t tlog.Tile, size uint64) bool {
	for range max(t.Level, 0) {
		size /= tlog.TileWidth
	}
	return t.Index <= size/tlog.TileWidth && t.Index*tlog.TileWidth+uint64(t.Width) <= size //nolint:gosec // a width is 1 to 256
}

// bundle is the entries of a tile.
func (l Ledger) bundle(ctx context.Context, t tlog.Tile) ([]byte, error) {
	from := int64(t.Index * tlog.TileWidth) //nolint:gosec // within the log
	to := from + int64(t.Width)
	var out []byte
	for from < to {
		entries, err := l.Leaves(ctx, from, to)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Index != from {
				break
			}
			if out, err = tlog.AppendToBundle(out, e.Leaf); err != nil {
				return nil, fmt.Errorf("entry %d: %w", from, err)
			}
			from++
		}
		if len(entries) == 0 || entries[len(entries)-1].Index != from-1 {
			return nil, fault.New(fault.FailedPrecondition, "entry %d is missing from the log, which was tampered with: run `a3 audit verify`", from)
		}
	}
	return out, nil
}
