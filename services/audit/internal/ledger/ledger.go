// Package ledger reads the log and proves things about it, from what is committed. Which rows a caller may see is decided by the
// runner it is given: a transaction in a workspace sees that workspace's entries and is no use for proofs, which are about the
// whole tree. It relies on package tree for proofs and verifies no signature: whoever asks does.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/store"
	"a3os.app/services/audit/internal/tree"
)

// Ledger reads the log through one kind of transaction.
type Ledger struct{ run pg.Runner }

// New makes a ledger that reads in transactions of run.
func New(run pg.Runner) Ledger { return Ledger{run: run} }

// Head is the newest checkpoint.
type Head struct {
	// Size of the tree.
	Size int64
	// Note is the signed note.
	Note string
}

// Entry is a leaf as it is stored.
type Entry struct {
	// Index of the leaf.
	Index int64
	// Leaf is what was hashed.
	Leaf []byte
	// Hash is what is stored as its hash.
	Hash []byte
}

// Newest is the newest checkpoint; tlog.ErrEmpty where there is none.
func (l Ledger) Newest(ctx context.Context) (Head, error) {
	var h Head
	err := l.read(ctx, func(q *store.Queries) error {
		var err error
		h, err = newest(ctx, q)
		return err
	})
	return h, err
}

// Growth is the newest checkpoint, and the proof that its tree begins with the one of size from. The proof is empty from 0 and from
// the newest size itself. A size that the log never had is refused.
func (l Ledger) Growth(ctx context.Context, from int64) (Head, [][]byte, error) {
	var h Head
	var proof [][]byte
	err := l.read(ctx, func(q *store.Queries) error {
		var err error
		if h, err = newest(ctx, q); err != nil {
			return err
		}
		proof, err = consistency(ctx, q, h, from, h.Size)
		return err
	})
	return h, proof, err
}

// Consistency proves that the tree of size to begins with that of size from.
func (l Ledger) Consistency(ctx context.Context, from, to int64) ([][]byte, error) {
	var proof [][]byte
	err := l.read(ctx, func(q *store.Queries) error {
		h, err := newest(ctx, q)
		if err != nil {
			return err
		}
		proof, err = consistency(ctx, q, h, from, to)
		return err
	})
	return proof, err
}

// Included is an entry with the proof that it is in a tree.
type Included struct {
	// Entry is the leaf.
	Entry Entry
	// Size of the tree that the proof is for.
	Size int64
	// Proof is the hashes, from the leaf up.
	Proof [][]byte
	// Head is the newest checkpoint.
	Head Head
}

// Inclusion proves that an event is in the tree of a size; 0 means that of the newest checkpoint.
func (l Ledger) Inclusion(ctx context.Context, event id.Event, size int64) (Included, error) {
	var in Included
	err := l.read(ctx, func(q *store.Queries) error {
		row, err := q.EntryOf(ctx, event)
		if errors.Is(err, pgx.ErrNoRows) {
			return fault.New(fault.NotFound, "no such event in the log; an event is sealed about a second after it happened")
		}
		if err != nil {
			return fmt.Errorf("find the event: %w", err)
		}
		if in.Head, err = newest(ctx, q); err != nil {
			return err
		}
		in.Entry, in.Size = Entry{Index: row.Idx, Leaf: row.Leaf, Hash: row.LeafHash}, size
		if size == 0 {
			in.Size = in.Head.Size
		}
		switch {
		case in.Size > in.Head.Size:
			return beyond(in.Size, in.Head)
		case row.Idx >= in.Size && size == 0:
			return fault.New(fault.Unavailable, "the event is sealed and no checkpoint stands for it yet; try again in a second")
		case row.Idx >= in.Size:
			return fault.New(fault.InvalidArgument, "the event is entry %d, which a tree of %d entries doesn't have", row.Idx, in.Size)
		}
		//nolint:gosec // both are ≥ 0
		in.Proof, err = tree.Inclusion(ctx, store.Rows{Queries: q}, uint64(row.Idx), uint64(in.Size))
		return err
	})
	return in, err
}

// Leaves reads a run of stored leaves from an index on, below to: at most 500, and about a mebibyte. Indexes that are missing are
// missing.
func (l Ledger) Leaves(ctx context.Context, from, to int64) ([]Entry, error) {
	const mostRows, mostBytes = 500, 1 << 20
	var out []Entry
	err := l.read(ctx, func(q *store.Queries) error {
		rows, err := q.Leaves(ctx, store.LeavesParams{FromIdx: from, ToIdx: to, MostRows: mostRows, MostBytes: mostBytes})
		if err != nil {
			return fmt.Errorf("read entries from %d: %w", from, err)
		}
		out = make([]Entry, len(rows))
		for i, r := range rows {
			out[i] = Entry{Index: r.Idx, Leaf: r.Leaf, Hash: r.LeafHash}
		}
		return nil
	})
	return out, err
}

// Checkpoints are the signed checkpoints of at least a size, by size, at most most of them, and the size that the next page begins
// at; 0 at the end.
func (l Ledger) Checkpoints(ctx context.Context, from int64, most int32) (notes []string, next int64, err error) {
	err = l.read(ctx, func(q *store.Queries) error {
		rows, err := q.CheckpointsFrom(ctx, store.CheckpointsFromParams{FromSize: from, Most: most})
		if err != nil {
			return fmt.Errorf("read the checkpoints from size %d: %w", from, err)
		}
		notes, next = make([]string, len(rows)), 0
		for i, r := range rows {
			notes[i] = r.Note
		}
		if len(rows) == int(most) {
			next = rows[len(rows)-1].Size + 1
		}
		return nil
	})
	return notes, next, err
}

// Backlog is how many events are recorded and not sealed, counted up to 100,000.
func (l Ledger) Backlog(ctx context.Context) (int64, error) {
	var n int64
	err := l.read(ctx, func(q *store.Queries) error {
		var err error
		n, err = q.Backlog(ctx)
		return err
	})
	return n, err
}

func (l Ledger) read(ctx context.Context, fn func(*store.Queries) error) error {
	return l.run(ctx, func(_ context.Context, tx pgx.Tx) error { return fn(store.New(tx)) })
}

func newest(ctx context.Context, q *store.Queries) (Head, error) {
	c, err := q.NewestCheckpoint(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return Head{}, tlog.ErrEmpty
	}
	if err != nil {
		return Head{}, fmt.Errorf("read the newest checkpoint: %w", err)
	}
	return Head{Size: c.Size, Note: c.Note}, nil
}

func consistency(ctx context.Context, q *store.Queries, h Head, from, to int64) ([][]byte, error) {
	switch {
	case to > h.Size:
		return nil, beyond(to, h)
	case from > to:
		return nil, fault.New(fault.InvalidArgument, "from_size is %d and to_size %d: a tree doesn't begin with a larger one", from, to)
	case from == 0 || from == to:
		return nil, nil
	}
	//nolint:gosec // both are > 0
	return tree.Consistency(ctx, store.Rows{Queries: q}, uint64(from), uint64(to))
}

func beyond(size int64, h Head) error {
	return fault.New(fault.InvalidArgument, "the newest checkpoint stands for %d entries, there is none for %d", h.Size, size)
}

// Load is how much the log and its database have to carry.
type Load struct {
	// Backlog is how many events are recorded and not sealed, counted up to 100,000.
	Backlog int64
	// Oldest is how long the oldest of them waits.
	Oldest time.Duration
	// Connections are open to the database, everybody's.
	Connections int64
	// DatabaseBytes is the size of the database.
	DatabaseBytes int64
}

// Load is the present load.
func (l Ledger) Load(ctx context.Context) (Load, error) {
	var out Load
	err := l.run(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		var err error
		if out.Backlog, err = q.Backlog(ctx); err != nil {
			return fmt.Errorf("count the waiting events: %w", err)
		}
		oldest, err := q.Oldest(ctx)
		if err != nil {
			return fmt.Errorf("look for the oldest waiting event: %w", err)
		}
		out.Oldest = time.Duration(max(oldest, 0) * float64(time.Second))
		out.DatabaseBytes, out.Connections, err = pg.Measure(ctx, tx)
		return err
	})
	return out, err
}
