package tlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
)

// Files of an export beside those of the layout.
const (
	// KeyFile holds the log's verifier key.
	KeyFile = "log.vkey"
	// CheckpointsFile holds every checkpoint that the log signed, by size, each a line of JSON.
	CheckpointsFile = "checkpoints.jsonl"
)

// Archive is a log in files: the layout of C2SP tlog-tiles, the log's key and all of its checkpoints. Whoever has it needs nothing
// else to verify the log, and no service. It implements Source.
type Archive struct{ files fs.FS }

// OpenArchive opens an export. What isn't there shows when it is read.
func OpenArchive(files fs.FS) Archive { return Archive{files: files} }

// VerifierKey is the key that the export says is the log's. Whoever made the export chose it.
func (a Archive) VerifierKey() (string, error) {
	raw, err := fs.ReadFile(a.files, KeyFile)
	if err != nil {
		return "", fmt.Errorf("this is no export of an audit log, or not a whole one: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// Checkpoint implements Source.
func (a Archive) Checkpoint(context.Context) (string, error) {
	raw, err := fs.ReadFile(a.files, CheckpointPath)
	if err != nil {
		return "", fmt.Errorf("this export was not finished, make it again to go on with it: %w", err)
	}
	return string(raw), nil
}

// Checkpoints implements Source.
func (a Archive) Checkpoints(context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		raw, err := fs.ReadFile(a.files, CheckpointsFile)
		if err != nil {
			yield("", err)
			return
		}
		lines := bufio.NewScanner(bytes.NewReader(raw))
		for lines.Scan() {
			var note string
			// A line that can't be read is a checkpoint that nobody signed, which is what its reader finds.
			if json.Unmarshal(lines.Bytes(), &note) != nil {
				note = lines.Text()
			}
			if !yield(note, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield("", fmt.Errorf("read %s: %w", CheckpointsFile, err))
		}
	}
}

// Leaves implements Source. Entries that aren't there are left out, and hashes that aren't there are empty.
func (a Archive) Leaves(ctx context.Context, size uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for t := range Tiles(Entries, size, 0) {
			if err := ctx.Err(); err != nil {
				yield(Entry{}, err)
				return
			}
			leaves, err := a.entries(t)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			hashes, err := a.Tile(ctx, Tile{Level: 0, Index: t.Index, Width: t.Width})
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for i, leaf := range leaves {
				e := Entry{Index: t.Index*TileWidth + uint64(i), Leaf: leaf} //nolint:gosec // below 256
				if from := i * HashSize; from+HashSize <= len(hashes) {
					e.Hash = hashes[from : from+HashSize]
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// Tile implements Tiled. Where a partial one isn't there, the full one begins with it.
func (a Archive) Tile(_ context.Context, t Tile) ([]byte, error) {
	raw, err := a.read(t)
	if raw != nil || err != nil || t.Width == TileWidth {
		return raw, err
	}
	full, err := a.read(Tile{Level: t.Level, Index: t.Index, Width: TileWidth})
	return full[:min(len(full), t.Width*HashSize)], err
}

// entries are those of a bundle, as Tile is the hashes of a tile.
func (a Archive) entries(t Tile) ([][]byte, error) {
	raw, err := a.read(t)
	if raw != nil || err != nil || t.Width == TileWidth {
		return ParseBundle(raw, t.Width), err
	}
	raw, err = a.read(Tile{Level: t.Level, Index: t.Index, Width: TileWidth})
	leaves := ParseBundle(raw, TileWidth)
	return leaves[:min(len(leaves), t.Width)], err
}

// read reads a file that may be missing, which whoever verifies will find.
func (a Archive) read(t Tile) ([]byte, error) {
	raw, err := fs.ReadFile(a.files, t.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}
