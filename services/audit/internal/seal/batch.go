package seal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/store"
	"a3os.app/services/audit/internal/tree"
)

// Step is a point between two effects of a batch, at which a crash must leave no trace or the whole.
type Step string

// Steps of a batch, in order.
const (
	StepLocked       Step = "locked"
	StepResumed      Step = "resumed"
	StepDrained      Step = "drained"
	StepAppended     Step = "appended"
	StepTiled        Step = "tiled"
	StepMoved        Step = "moved"
	StepSigned       Step = "signed"
	StepCheckpointed Step = "checkpointed"
	StepCommitted    Step = "committed"
)

// batch is one transaction of the sealer.
type batch struct {
	sealer *Sealer
	q      *store.Queries
	state  *state
	// careful says that some of the inbox may be sealed already.
	careful bool
	// busy says that another sealer holds the lock.
	busy bool
	// full says that the inbox may hold more.
	full bool
	// signed says that there is a checkpoint in the transaction.
	signed bool
}

func (b *batch) run(ctx context.Context, known *state) error {
	at := b.sealer.at
	lock, err := b.q.Lock(ctx)
	if err != nil {
		return fmt.Errorf("take the sealer's lock: %w", err)
	}
	if !lock.Locked {
		b.busy = true
		return nil
	}
	at(StepLocked)
	if b.state, err = b.resume(ctx, known); err != nil {
		return err
	}
	at(StepResumed)
	rows, err := b.drain(ctx)
	if err != nil {
		return err
	}
	at(StepDrained)
	if err := b.append(ctx, rows); err != nil {
		return err
	}
	moved := store.MoveProgressParams{DrainedSeq: lock.LastSeq, DrainedUntil: lock.At}
	if b.full {
		// There is more, so everything up to the last row of this batch is drained, and not everything up to now.
		last := rows[len(rows)-1]
		moved = store.MoveProgressParams{DrainedSeq: last.Seq, DrainedUntil: last.RecordedAt}
	}
	if err := b.q.MoveProgress(ctx, moved); err != nil {
		return fmt.Errorf("move the progress: %w", err)
	}
	at(StepMoved)
	return b.sign(ctx)
}

// resume is the log as it stands. What this sealer knows of it is trusted only while the last entry is the one it wrote.
func (b *batch) resume(ctx context.Context, known *state) (*state, error) {
	head, err := b.q.Head(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		head.Idx = -1
	} else if err != nil {
		return nil, fmt.Errorf("read the last entry: %w", err)
	}
	size := uint64(head.Idx + 1) //nolint:gosec // idx ≥ 0 by the table's CHECK, -1 for an empty log
	if known != nil && known.tree.Size() == size && bytes.Equal(known.last, head.LeafHash) {
		return known, nil
	}
	c, err := b.q.NewestCheckpoint(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		if size > 0 {
			return nil, &Damaged{text: fmt.Sprintf("it has %d entries and no checkpoint", size)}
		}
		return &state{tree: tree.New()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the newest checkpoint: %w", err)
	}
	signed, err := b.verify(ctx, c, size)
	if err != nil {
		return nil, err
	}
	grown, err := tree.Resume(ctx, store.Rows{Queries: b.q}, size)
	if err != nil {
		return nil, &Damaged{text: err.Error()}
	}
	return &state{tree: grown, last: head.LeafHash, checkpoint: signed.Size}, nil
}

// verify holds the stored tree against the newest checkpoint.
func (b *batch) verify(ctx context.Context, c store.NewestCheckpointRow, size uint64) (tlog.Checkpoint, error) {
	signed, err := b.sealer.signer.Verifier().Open(c.Note)
	if err != nil {
		return signed, &Damaged{text: fmt.Sprintf("its newest checkpoint is not signed by this service's log key: %v", err)}
	}
	if signed.Size > size {
		return signed, &Damaged{text: fmt.Sprintf("it has %d entries, and had %d when its newest checkpoint was signed", size, signed.Size)}
	}
	then, err := tree.Resume(ctx, store.Rows{Queries: b.q}, signed.Size)
	if err != nil {
		if ctx.Err() != nil {
			return signed, err
		}
		return signed, &Damaged{text: err.Error()}
	}
	root, err := then.Root()
	if err != nil {
		return signed, err
	}
	if !bytes.Equal(root, signed.Root) {
		return signed, &Damaged{text: fmt.Sprintf("its first %d entries are not those that its newest checkpoint stands for", signed.Size)}
	}
	return signed, nil
}

// drain takes the oldest rows, in order.
func (b *batch) drain(ctx context.Context) ([]store.DrainRow, error) {
	rows, err := b.q.Drain(ctx, store.DrainParams{MostRows: b.sealer.rows, MostBytes: mostBytes})
	if err != nil {
		return nil, fmt.Errorf("drain the inbox: %w", err)
	}
	slices.SortFunc(rows, func(x, y store.DrainRow) int { return cmp.Compare(x.Seq, y.Seq) })
	bytes := 0
	for _, r := range rows {
		bytes += len(r.Body)
	}
	const largest = 256 << 10 // of a body, by the table's CHECK
	b.full = len(rows) == int(b.sealer.rows) || bytes > mostBytes-largest
	return rows, nil
}

// append puts the rows into the log.
func (b *batch) append(ctx context.Context, rows []store.DrainRow) error {
	fresh, err := b.fresh(ctx, rows)
	if err != nil || len(fresh) == 0 {
		return err
	}
	entries := room(len(fresh))
	var tiles store.AppendTilesParams
	grown := b.state.tree
	for _, f := range fresh {
		idx := int64(grown.Size()) //nolint:gosec // a log of 2^63 entries is not reached
		hash := tlog.LeafHash(f.leaf)
		full, err := grown.Append(hash)
		if err != nil {
			return err
		}
		f.columns(&entries)
		entries.Idxs = append(entries.Idxs, idx)
		entries.LeafHashes = append(entries.LeafHashes, hash)
		b.state.last = hash
		for _, t := range full {
			tiles.Levels = append(tiles.Levels, int16(t.Level)) //nolint:gosec // levels are 0 to 7
			tiles.Idxs = append(tiles.Idxs, int64(t.Index))     //nolint:gosec // smaller than the index of a leaf
			tiles.Hashes = append(tiles.Hashes, t.Hashes)
			tiles.Roots = append(tiles.Roots, t.Root)
		}
	}
	if err := b.q.AppendEntries(ctx, entries); err != nil {
		return fmt.Errorf("append %d entries: %w", len(fresh), err)
	}
	b.sealer.at(StepAppended)
	if len(tiles.Idxs) > 0 {
		if err := b.q.AppendTiles(ctx, tiles); err != nil {
			return fmt.Errorf("append %d tiles: %w", len(tiles.Idxs), err)
		}
	}
	b.sealer.at(StepTiled)
	return nil
}

// fresh makes leaves of the rows that the log doesn't have yet. An event that comes again, byte for byte from the same producer, is
// dropped: deliveries may repeat. One that comes again with other content is kept without its id, which the first one has.
func (b *batch) fresh(ctx context.Context, rows []store.DrainRow) ([]entry, error) {
	ids := make([]pgtype.UUID, len(rows))
	for i, r := range rows {
		ids[i] = pgtype.UUID{Bytes: r.ID.Bytes(), Valid: true}
	}
	known := make(map[id.Event][]byte)
	if b.careful && len(ids) > 0 {
		seen, err := b.q.Known(ctx, ids)
		if err != nil {
			return nil, fmt.Errorf("look for events that are sealed already: %w", err)
		}
		for _, k := range seen {
			known[k.EventID] = k.Leaf
		}
	}
	fresh := make([]entry, 0, len(rows))
	for _, r := range rows {
		e, err := read(r)
		if err != nil {
			return nil, err
		}
		if first, ok := known[r.ID]; ok {
			leaf, _, _ := tlog.ParseLeaf(first)
			if bytes.Equal(leaf.GetEvent(), r.Body) && leaf.GetProducer() == r.Producer {
				continue
			}
			slog.WarnContext(ctx, "an event came with the id of another one", "event", r.ID, "producer", r.Producer)
			e.id = id.Event{}
		}
		fresh = append(fresh, e)
	}
	return fresh, nil
}

// sign signs the tree when everything is drained, or when it is time.
func (b *batch) sign(ctx context.Context) error {
	size := b.state.tree.Size()
	if size == b.state.checkpoint || (b.full && !b.sealer.due()) {
		return nil
	}
	root, err := b.state.tree.Root()
	if err != nil {
		return err
	}
	// The signature leaves this process only through the row, that is, once the entries below it are committed.
	c, err := b.sealer.signer.Sign(size, root)
	if err != nil {
		return err
	}
	b.sealer.at(StepSigned)
	//nolint:gosec // the size is below 2^63
	if err := b.q.AddCheckpoint(ctx, store.AddCheckpointParams{Size: int64(size), Root: root, Note: c.Note}); err != nil {
		return fmt.Errorf("keep the checkpoint: %w", err)
	}
	b.state.checkpoint, b.signed = size, true
	b.sealer.at(StepCheckpointed)
	return nil
}
