package ledger

import (
	"context"
	"iter"
	"math"

	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"
)

// Source is a ledger to verify: it implements tlog.Tiled.
type Source struct{ Ledger Ledger }

// Checkpoint implements tlog.Source.
func (s Source) Checkpoint(ctx context.Context) (string, error) {
	h, err := s.Ledger.Newest(ctx)
	return h.Note, err
}

// Checkpoints implements tlog.Source.
func (s Source) Checkpoints(ctx context.Context) iter.Seq2[string, error] {
	return s.CheckpointsFrom(ctx, 0)
}

// CheckpointsFrom are the signed checkpoints of at least a size, by size.
func (s Source) CheckpointsFrom(ctx context.Context, from uint64) iter.Seq2[string, error] {
	const page = 500
	return func(yield func(string, error) bool) {
		next := int64(min(from, math.MaxInt64)) //nolint:gosec // bounded
		for more := true; more; more = next != 0 {
			var notes []string
			var err error
			if notes, next, err = s.Ledger.Checkpoints(ctx, next, page); err != nil {
				yield("", err)
				return
			}
			for _, n := range notes {
				if !yield(n, nil) {
					return
				}
			}
		}
	}
}

// Leaves implements tlog.Source. Indexes that are missing are missing.
func (s Source) Leaves(ctx context.Context, size uint64) iter.Seq2[tlog.Entry, error] {
	return func(yield func(tlog.Entry, error) bool) {
		to := int64(min(size, math.MaxInt64)) //nolint:gosec // bounded
		for from := int64(0); from < to; {
			entries, err := s.Ledger.Leaves(ctx, from, to)
			if err != nil {
				yield(tlog.Entry{}, err)
				return
			}
			if len(entries) == 0 {
				return
			}
			for _, e := range entries {
				if !yield(tlog.Entry{Index: uint64(e.Index), Leaf: e.Leaf, Hash: e.Hash}, nil) { //nolint:gosec // an index is ≥ 0 by the table's CHECK
					return
				}
			}
			from = entries[len(entries)-1].Index + 1
		}
	}
}

// Tile implements tlog.Tiled.
func (s Source) Tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	raw, err := s.Ledger.Tile(ctx, t)
	switch fault.KindOf(err) {
	case fault.NotFound, fault.FailedPrecondition:
		return nil, nil // missing, which is for whoever verifies to say
	default:
		return raw, err
	}
}
