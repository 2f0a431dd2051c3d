package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// Entry is a leaf as the log hands it out.
type Entry struct {
	// Index of the leaf, from 0.
	Index uint64
	// Leaf is what the log says was hashed.
	Leaf []byte
	// Hash is what the log says the hash was, 32 bytes.
	Hash []byte
}

// Source is a log to verify: over the network, or an export.
type Source interface {
	// Checkpoint is the newest signed checkpoint; ErrEmpty where there is none.
	Checkpoint(ctx context.Context) (string, error)
	// Checkpoints are all signed checkpoints, by size.
	Checkpoints(ctx context.Context) iter.Seq2[string, error]
	// Leaves are the entries below size, by index.
	Leaves(ctx context.Context, size uint64) iter.Seq2[Entry, error]
}

// Tiled is a source that also has the tiles of its tree, as an export does: they are held against the tree as well.
type Tiled interface {
	Source
	// Tile is a tile of hashes; empty where it isn't there.
	Tile(ctx context.Context, t Tile) ([]byte, error)
}

// Kind is in which way a log is not whole.
type Kind string

// Kinds of findings.
const (
	// EntryChanged is a leaf that doesn't have the hash stored for it.
	EntryChanged Kind = "entry_changed"
	// EntryMissing is an index without a leaf.
	EntryMissing Kind = "entry_missing"
	// IntervalRewritten is a stretch of leaves that agree with their own hashes and not with the checkpoint at their end.
	IntervalRewritten Kind = "interval_rewritten"
	// HistoryReplaced is a log that is whole in itself and isn't the one that the remembered checkpoint stands for.
	HistoryReplaced Kind = "history_replaced"
	// LogTruncated is a log that ends before the remembered checkpoint.
	LogTruncated Kind = "log_truncated"
	// CheckpointForged is a checkpoint without a valid signature of the log.
	CheckpointForged Kind = "checkpoint_forged"
	// TileChanged is a tile that is missing or does not hold the hashes of what lies below it.
	TileChanged Kind = "tile_changed"
)

// Finding is one place where a log is not whole. It is about the entries From ≤ index < To.
type Finding struct {
	// Kind says in which way.
	Kind Kind
	// From is the first entry it is about.
	From uint64
	// To is the index after the last.
	To uint64
	// EventID is the event's id where it is about one entry whose leaf can be read; empty otherwise.
	EventID string
	// Text is the finding as a sentence.
	Text string
}

// Report is what a verification found.
type Report struct {
	// Newest is the log's newest checkpoint; remember it when the log is whole. Zero for an empty log.
	Newest Checkpoint
	// Entries is how many leaves were hashed.
	Entries uint64
	// Checkpoints is how many checkpoints the tree was compared with.
	Checkpoints int
	// Findings are empty for a whole log. The first one is the one to look at; at most maxFindings are kept.
	Findings []Finding
}

// Whole says that nothing was found.
func (r *Report) Whole() bool { return len(r.Findings) == 0 }

const maxFindings = 10

// Verify walks the whole log: it hashes every leaf anew, compares each with its stored hash, and the tree with every checkpoint on
// the way, with the newest one, and with those that are remembered (signed notes; empty for none), whose signatures must hold. It
// stops at the first entry or interval that is wrong. What is held in memory does not grow with the log. The error is for a log that
// could not be read, and for a remembered checkpoint that isn't one of this log; what is wrong with the log is in the report.
func Verify(ctx context.Context, source Source, verifier *Verifier, remembered ...string) (*Report, error) {
	w := &walk{verifier: verifier, tree: (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0), report: new(Report)}
	for _, note := range remembered {
		if note == "" {
			continue
		}
		c, err := verifier.Open(note)
		if err != nil {
			return nil, fmt.Errorf("the remembered checkpoint is not one of this log (%s): %w", verifier.Origin(), err)
		}
		w.remembered = append(w.remembered, c)
	}
	w.tiled, _ = source.(Tiled)
	text, err := source.Checkpoint(ctx)
	switch {
	case errors.Is(err, ErrEmpty):
	case err != nil:
		return nil, fmt.Errorf("read the newest checkpoint: %w", err)
	default:
		if w.newest, err = verifier.Open(text); err != nil {
			w.find(Finding{Kind: CheckpointForged, Text: fmt.Sprintf("the newest checkpoint carries no valid signature of %s: %v", verifier.Origin(), err)})
			return w.report, nil
		}
		w.report.Newest = w.newest
	}
	for _, r := range w.remembered {
		if r.Size > w.newest.Size {
			w.find(Finding{Kind: LogTruncated, From: w.newest.Size, To: r.Size,
				Text: fmt.Sprintf("the log ends at %d entries, and had %d when the remembered checkpoint was signed: entries %d to %d are gone",
					w.newest.Size, r.Size, w.newest.Size, r.Size-1)})
		}
	}
	if err := w.run(ctx, source); err != nil {
		return nil, err
	}
	return w.report, nil
}

// walk is one verification under way.
type walk struct {
	verifier   *Verifier
	newest     Checkpoint
	remembered []Checkpoint
	tree       *compact.Range
	// tiled is the source, where it has tiles; rows are the hashes of the tiles that are growing, above level 0.
	tiled Tiled
	rows  map[int][][]byte
	// good is the size of the last checkpoint that the tree agreed with.
	good   uint64
	listed listed
	report *Report
}

func (w *walk) find(f Finding) {
	if len(w.report.Findings) < maxFindings {
		w.report.Findings = append(w.report.Findings, f)
	}
}

// stop puts the finding that ends the walk before those that didn't.
func (w *walk) stop(f Finding) {
	w.report.Findings = append([]Finding{f}, w.report.Findings...)
}

func (w *walk) run(ctx context.Context, source Source) error {
	next, done := iter.Pull2(source.Checkpoints(ctx))
	defer done()
	w.listed = listed{next: next}
	if err := w.advance(); err != nil {
		return err
	}
	for e, err := range source.Leaves(ctx, w.newest.Size) {
		if err != nil {
			return fmt.Errorf("read entry %d: %w", w.tree.End(), err)
		}
		whole, err := w.entry(ctx, e)
		if err != nil || !whole {
			return err
		}
	}
	if end := w.tree.End(); end < w.newest.Size {
		// Which ones can't be told: those after a gap may have been moved up to close it.
		w.stop(Finding{Kind: EntryMissing, From: w.good, To: w.newest.Size,
			Text: fmt.Sprintf("%d entries are missing: the newest checkpoint stands for %d, and what was taken out lies among the entries %d to %d",
				w.newest.Size-end, w.newest.Size, w.good, w.newest.Size-1)})
	}
	for level, row := range w.rows {
		if len(row) > 0 {
			if err := w.tile(ctx, level, w.tree.End()>>(tileHeight*(level+1))); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry takes the next leaf and says whether the walk may go on.
func (w *walk) entry(ctx context.Context, e Entry) (bool, error) {
	at := w.tree.End()
	_, event, _ := ParseLeaf(e.Leaf) // a leaf that can't be read is one whose hash is wrong
	switch {
	case e.Index > at:
		text := fmt.Sprintf("entry %d is missing: entry %d follows entry %d", at, e.Index, int64(at)-1) //nolint:gosec // no log has 2^63 entries
		w.stop(Finding{Kind: EntryMissing, From: at, To: e.Index, Text: text})
		return false, nil
	case e.Index < at:
		return false, fmt.Errorf("the log sent entry %d after entry %d: it does not speak the protocol", e.Index, at-1)
	case len(e.Hash) == 0:
		w.stop(Finding{Kind: TileChanged, From: at, To: at + 1, EventID: event.GetId(),
			Text: fmt.Sprintf("the hash of entry %d is missing: its tile is not there, or cut short", at)})
		return false, nil
	case !bytes.Equal(LeafHash(e.Leaf), e.Hash):
		w.stop(Finding{Kind: EntryChanged, From: at, To: at + 1, EventID: event.GetId(),
			Text: fmt.Sprintf("entry %d (event %s) was changed: its bytes don't have the hash that the log keeps for it", at, orUnreadable(event.GetId()))})
		return false, nil
	}
	if err := w.grow(ctx, e.Hash); err != nil {
		return false, err
	}
	w.report.Entries = w.tree.End()
	return w.compare()
}

// grow adds a leaf to the tree, and holds the tiles that become full by it against what the source has.
func (w *walk) grow(ctx context.Context, hash []byte) error {
	var full []int
	err := w.tree.Append(hash, func(id compact.NodeID, hash []byte) {
		if w.tiled == nil || id.Level == 0 || id.Level%tileHeight != 0 {
			return
		}
		level := int(id.Level / tileHeight)
		if w.rows == nil {
			w.rows = map[int][][]byte{}
		}
		if w.rows[level] = append(w.rows[level], hash); len(w.rows[level]) == TileWidth {
			full = append(full, level)
		}
	})
	if err != nil {
		return fmt.Errorf("grow the tree: %w", err)
	}
	for _, level := range full {
		if err := w.tile(ctx, level, w.tree.End()>>(tileHeight*(level+1))-1); err != nil {
			return err
		}
	}
	return nil
}

const tileHeight = 8

// tile holds one tile above level 0 against the hashes that were computed for it.
func (w *walk) tile(ctx context.Context, level int, index uint64) error {
	row := w.rows[level]
	w.rows[level] = nil
	t := Tile{Level: level, Index: index, Width: len(row)}
	have, err := w.tiled.Tile(ctx, t)
	if err != nil {
		return fmt.Errorf("read %s: %w", t.Path(), err)
	}
	if !bytes.Equal(have, bytes.Join(row, nil)) {
		w.find(Finding{Kind: TileChanged, From: index << (tileHeight * (level + 1)), To: w.tree.End(),
			Text: fmt.Sprintf("%s is missing or was changed: it does not hold the hashes of what lies below it", t.Path())})
	}
	return nil
}

// compare holds the tree against every checkpoint of its size.
func (w *walk) compare() (bool, error) {
	size := w.tree.End()
	var root []byte
	agrees := func(c Checkpoint) (bool, error) {
		if root == nil {
			var err error
			if root, err = w.tree.GetRootHash(nil); err != nil {
				return false, fmt.Errorf("compute the root: %w", err)
			}
		}
		w.report.Checkpoints++
		return bytes.Equal(root, c.Root), nil
	}
	rewritten := func() Finding {
		return Finding{Kind: IntervalRewritten, From: w.good, To: size,
			Text: fmt.Sprintf("something among the entries %d to %d was changed, moved, put in or taken out, and the hashes kept for them with it: "+
				"they don't lead to the checkpoint of size %d", w.good, size-1, size)}
	}
	newestListed := false
	for w.listed.have && w.listed.c.Size == size {
		newestListed = newestListed || w.listed.c.Note == w.newest.Note
		same, err := agrees(w.listed.c)
		if err != nil {
			return false, err
		}
		if !same {
			w.stop(rewritten())
			return false, nil
		}
		if err := w.advance(); err != nil {
			return false, err
		}
	}
	if w.newest.Size == size && !newestListed {
		if same, err := agrees(w.newest); err != nil || !same {
			w.stop(rewritten())
			return false, err
		}
	}
	for _, r := range w.remembered {
		if r.Size != size {
			continue
		}
		if same, err := agrees(r); err != nil || !same {
			w.stop(Finding{Kind: HistoryReplaced, From: 0, To: size,
				Text: fmt.Sprintf("the first %d entries are not those that the remembered checkpoint stands for: the log was replaced and signed anew", size)})
			return false, err
		}
	}
	if root != nil {
		w.good = size
	}
	return true, nil
}

// listed is the next checkpoint of the log's list.
type listed struct {
	next func() (string, error, bool)
	c    Checkpoint
	have bool
}

// advance moves on to the next checkpoint of the list that is signed by the log.
func (w *walk) advance() error {
	w.listed.have = false
	for {
		text, err, ok := w.listed.next()
		if !ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the list of checkpoints: %w", err)
		}
		c, err := w.verifier.Open(text)
		if err != nil {
			w.find(Finding{Kind: CheckpointForged, From: w.tree.End(), To: w.newest.Size,
				Text: fmt.Sprintf("a checkpoint kept after that of size %d carries no valid signature of %s: %v", w.listed.c.Size, w.verifier.Origin(), err)})
			continue
		}
		if c.Size < w.listed.c.Size || c.Size <= w.tree.End() {
			w.find(Finding{Kind: CheckpointForged, From: c.Size, To: w.listed.c.Size,
				Text: fmt.Sprintf("the checkpoint of size %d is kept out of order, after one of size %d", c.Size, w.listed.c.Size)})
			continue
		}
		if c.Size > w.newest.Size {
			return nil // signed since the walk began
		}
		w.listed.c, w.listed.have = c, true
		return nil
	}
}

func orUnreadable(eventID string) string {
	if eventID == "" {
		return "unreadable"
	}
	return eventID
}
