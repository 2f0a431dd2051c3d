package tlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// Export copies a log into a directory, whole: entries, tiles, every checkpoint and the key. Files appear whole or not at all, and
// the newest checkpoint last, so an export that was interrupted goes on where it was when it is made again, and one that was made
// before grows by what is new.
type Export struct {
	// Dir is where to; it is made where it isn't there.
	Dir string
	// Key is the log's verifier key, and Checkpoint the signed note of the tree to copy.
	Key, Checkpoint string
	// Fetch reads a file of the layout from the log.
	Fetch func(ctx context.Context, path string) ([]byte, error)
	// Checkpoints are those that were signed for trees of at least a size, by size.
	Checkpoints func(ctx context.Context, from uint64) iter.Seq2[string, error]
	// Progress is told how many of the entries are there; nil tells nobody.
	Progress func(done, total uint64)
}

// unfinished begins the names of files that are being written.
const unfinished = ".new-"

const exportReadme = `This is a copy of an audit log, whole: nothing else is needed to verify it.

  checkpoint          newest signed tree head (c2sp.org/tlog-checkpoint)
  tile/<L>/<N>        hashes of the tree (c2sp.org/tlog-tiles)
  tile/entries/<N>    the entries, each a serialized a3os.audit.v1.Leaf
  checkpoints.jsonl   every tree head that was signed, by size
  log.vkey            key that they are signed with (c2sp.org/signed-note): compare it with the one that you were given

  a3 audit verify --from DIR [--verifier-key KEY] [--checkpoint FILE]
`

// Run copies. What an earlier export had is answered as its checkpoint, empty where there was none: hold the new one against it.
func (e Export) Run(ctx context.Context) (earlier string, err error) {
	v, err := NewVerifier(e.Key)
	if err != nil {
		return "", err
	}
	c, err := v.Open(e.Checkpoint)
	if err != nil {
		return "", fmt.Errorf("the log's newest checkpoint is not signed by %s: %w", v.Origin(), err)
	}
	if earlier, err = e.resume(ctx, v, c); err != nil {
		return "", err
	}
	if err := e.write(KeyFile, []byte(e.Key+"\n")); err != nil {
		return "", err
	}
	if err := e.write("README.txt", []byte(exportReadme)); err != nil {
		return "", err
	}
	for level := Entries; level < Levels(c.Size); level++ {
		for t := range Tiles(level, c.Size, 0) {
			if err := e.copy(ctx, t); err != nil {
				return "", err
			}
			if level == Entries && e.Progress != nil {
				e.Progress(t.Index*TileWidth+uint64(t.Width), c.Size) //nolint:gosec // 1 to 256
			}
		}
	}
	if err := e.list(ctx, v, c); err != nil {
		return "", err
	}
	if err := e.write(CheckpointPath, []byte(e.Checkpoint)); err != nil {
		return "", err
	}
	return earlier, e.tidy(c.Size)
}

// resume refuses a directory that holds another log, or more of this one than there is now.
func (e Export) resume(ctx context.Context, v *Verifier, c Checkpoint) (string, error) {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of the export: %w", err)
	}
	a := OpenArchive(os.DirFS(e.Dir))
	key, err := a.VerifierKey()
	if errors.Is(err, fs.ErrNotExist) {
		there, err := os.ReadDir(e.Dir)
		for _, d := range there {
			if !strings.HasPrefix(d.Name(), unfinished) {
				return "", fmt.Errorf("%s holds other things: export to a directory of its own", e.Dir)
			}
		}
		return "", err
	}
	if err != nil {
		return "", err
	}
	if key != v.String() {
		return "", fmt.Errorf("%s holds an export of another log, or one with another key (%s): export to a directory of its own", e.Dir, key)
	}
	note, err := a.Checkpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	before, err := v.Open(note)
	if err != nil {
		return "", fmt.Errorf("the checkpoint in %s is not signed by the log any more: export to a directory of its own", e.Dir)
	}
	if before.Size > c.Size {
		return "", fmt.Errorf("the log has %d entries, and had %d when it was exported to %s: it was cut short; that export is kept as it is", c.Size, before.Size, e.Dir)
	}
	return note, nil
}

// copy fetches one file, unless it is there.
func (e Export) copy(ctx context.Context, t Tile) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if have, err := os.ReadFile(filepath.Join(e.Dir, filepath.FromSlash(t.Path()))); err == nil && complete(t, have) {
		return nil
	}
	raw, err := e.Fetch(ctx, t.Path())
	if err != nil {
		return fmt.Errorf("fetch %s: %w", t.Path(), err)
	}
	if !complete(t, raw) {
		return fmt.Errorf("the log answered %d bytes for %s, which are not its %d: it does not speak the protocol", len(raw), t.Path(), t.Width)
	}
	return e.write(t.Path(), raw)
}

func complete(t Tile, raw []byte) bool {
	if t.Level != Entries {
		return len(raw) == t.Width*HashSize
	}
	return len(ParseBundle(raw, t.Width)) == t.Width
}

// list brings the file of checkpoints up to the newest.
func (e Export) list(ctx context.Context, v *Verifier, newest Checkpoint) error {
	file := filepath.Join(e.Dir, CheckpointsFile)
	out, err := os.ReadFile(file) //nolint:gosec // of the directory that the caller named
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	from := uint64(0)
	for line := range bytes.Lines(out) {
		var note string
		if json.Unmarshal(line, &note) != nil {
			continue
		}
		if c, err := v.Open(note); err == nil {
			from = c.Size + 1
		}
	}
	for note, err := range e.Checkpoints(ctx, from) {
		if err != nil {
			return fmt.Errorf("list the checkpoints: %w", err)
		}
		if c, err := v.Open(note); err == nil && c.Size > newest.Size {
			break // signed since
		}
		line, err := json.Marshal(note)
		if err != nil {
			return err
		}
		out = append(append(out, line...), '\n')
	}
	return e.write(CheckpointsFile, out)
}

// write replaces a file in one step.
func (e Export) write(path string, content []byte) (err error) {
	const private = 0o700
	file := filepath.Join(e.Dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(file), private); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), unfinished+"*")
	if err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write the export: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// tidy removes what an interrupted write left and the partial tiles of smaller trees, which the newest one doesn't need.
func (e Export) tidy(size uint64) error {
	needed := map[string]bool{}
	for level := Entries; level < Levels(size); level++ {
		for t := range Tiles(level, size, size/TileWidth>>(8*max(level, 0))) {
			needed[filepath.FromSlash(t.Path())] = true
		}
	}
	return filepath.WalkDir(filepath.Join(e.Dir, "tile"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(e.Dir, path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), unfinished) || strings.Contains(rel, ".p"+string(filepath.Separator)) && !needed[rel] {
			return os.Remove(path) //nolint:gosec // of the export's own directory, which is its maker's alone
		}
		return nil
	})
}
