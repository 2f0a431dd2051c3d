package tlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sumdb "golang.org/x/mod/sumdb/tlog"

	"a3os.app/libs/tlog"
)

// served is a log as its service answers for it. The tiles are made by the checksum database's own code.
type served struct {
	*export
	t      *testing.T
	signer *tlog.Signer
	stored []sumdb.Hash
	asked  int
	// failAt makes the fetch with this number fail; 0 none.
	failAt int
}

func serve(t *testing.T, s *tlog.Signer, log *export) *served {
	t.Helper()
	v := &served{export: log, t: t, signer: s}
	for i, e := range log.entries {
		more, err := sumdb.StoredHashes(int64(i), e.Leaf, v)
		if err != nil {
			t.Fatal(err)
		}
		v.stored = append(v.stored, more...)
	}
	return v
}

func (v *served) ReadHashes(at []int64) ([]sumdb.Hash, error) {
	out := make([]sumdb.Hash, len(at))
	for i, x := range at {
		out[i] = v.stored[x]
	}
	return out, nil
}

var errBroken = errors.New("the connection broke")

func (v *served) fetch(ctx context.Context, path string) ([]byte, error) {
	if v.asked++; v.asked == v.failAt {
		return nil, errBroken
	}
	tile, err := tlog.ParseTile(path)
	if err != nil {
		return nil, err
	}
	if tile.Level != tlog.Entries {
		return sumdb.ReadTileData(sumdb.Tile{H: 8, L: tile.Level, N: int64(tile.Index), W: tile.Width}, v)
	}
	var bundle []byte
	from := int(tile.Index) * tlog.TileWidth
	for _, e := range v.entries[from : from+tile.Width] {
		if bundle, err = tlog.AppendToBundle(bundle, e.Leaf); err != nil {
			return nil, err
		}
	}
	return bundle, ctx.Err()
}

func (v *served) from(ctx context.Context, size uint64) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for note := range v.Checkpoints(ctx) {
			if c, err := v.signer.Verifier().Open(note); err == nil && c.Size >= size && !yield(note, nil) {
				return
			}
		}
	}
}

func (v *served) copyTo(dir, checkpoint string) (string, error) {
	return tlog.Export{Dir: dir, Key: v.signer.Verifier().String(), Checkpoint: checkpoint, Fetch: v.fetch, Checkpoints: v.from}.Run(v.t.Context())
}

const exportedEntries, exportedStride = 700, 50

// exportedLog is an export of a log of 700 entries with a checkpoint after every 50.
func exportedLog(t *testing.T) (dir string, v *served) {
	t.Helper()
	s := newSigner(t)
	v = serve(t, s, write(t, s, exportedEntries, exportedStride))
	dir = filepath.Join(t.TempDir(), "export")
	if _, err := v.copyTo(dir, v.newest); err != nil {
		t.Fatal(err)
	}
	return dir, v
}

func verifyDir(t *testing.T, dir string, v *tlog.Verifier, remembered ...string) *tlog.Report {
	t.Helper()
	report, err := tlog.Verify(t.Context(), tlog.OpenArchive(os.DirFS(dir)), v, remembered...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestExportIsWholeByItself(t *testing.T) {
	dir, v := exportedLog(t)
	report := verifyDir(t, dir, v.signer.Verifier(), v.checkpoints[3], v.newest)
	if !report.Whole() || report.Entries != exportedEntries || report.Newest.Note != v.newest || report.Checkpoints < len(v.checkpoints) {
		t.Errorf("%+v", report)
	}
	if key, err := tlog.OpenArchive(os.DirFS(dir)).VerifierKey(); err != nil || key != v.signer.Verifier().String() {
		t.Errorf("the key in it is %q, %v", key, err)
	}
}

// An export that breaks at any fetch goes on where it was, and is whole then; one that is made again later adds what is new alone.
func TestExportGoesOnWhereItWasInterrupted(t *testing.T) {
	s := newSigner(t)
	v := serve(t, s, write(t, s, exportedEntries, exportedStride))
	var fetches int
	for broken := 1; ; broken++ {
		dir := filepath.Join(t.TempDir(), "export")
		v.asked, v.failAt = 0, broken
		_, err := v.copyTo(dir, v.newest)
		if err == nil {
			fetches = v.asked
			break
		}
		if !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		if _, err := tlog.OpenArchive(os.DirFS(dir)).Checkpoint(t.Context()); err == nil {
			t.Errorf("broken at fetch %d, the export passes for finished", broken)
		}
		v.asked, v.failAt = 0, 0
		if _, err := v.copyTo(dir, v.newest); err != nil {
			t.Fatal(err)
		}
		if again := v.asked; again > 8-broken || !verifyDir(t, dir, s.Verifier()).Whole() {
			t.Errorf("broken at fetch %d, the second try fetched %d files", broken, again)
		}
	}
	if want := 3 + 3 + 1; fetches != want {
		t.Errorf("%d fetches, want %d: three bundles, three tiles of leaves, one of roots", fetches, want)
	}
	v.failAt = 0
	dir := filepath.Join(t.TempDir(), "grown")
	half, err := v.copyTo(dir, v.checkpoints[5]) // 300 entries
	if err != nil || half != "" {
		t.Fatalf("%q, %v", half, err)
	}
	v.asked = 0
	earlier, err := v.copyTo(dir, v.newest)
	if err != nil || earlier != v.checkpoints[5] {
		t.Fatalf("goes on from %q, %v", earlier, err)
	}
	if v.asked != 5 { // bundles 1 and 2, tiles 1 and 2, the tile of roots
		t.Errorf("%d fetches to go on", v.asked)
	}
	if !verifyDir(t, dir, s.Verifier(), earlier).Whole() {
		t.Error("what was gone on with is not whole")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tile", "*", "001.p", "*")); len(left) != 0 {
		t.Errorf("partial tiles of the smaller tree are left: %v", left)
	}
	if _, err := v.copyTo(dir, v.checkpoints[5]); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("a log that is shorter than its export: %v", err)
	}
	other := newSigner(t)
	if _, err := serve(t, other, write(t, other, 5, 5)).copyTo(dir, write(t, other, 5, 5).newest); err == nil || !strings.Contains(err.Error(), "another log") {
		t.Errorf("another log into the same directory: %v", err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.copyTo(foreign, v.newest); err == nil || !strings.Contains(err.Error(), "other things") {
		t.Errorf("into a directory with other things: %v", err)
	}
}

// tampering is what can be done to an export, file by file. change gets a file's content and answers the new one; nil removes it.
type tampering struct {
	path   string
	change func(v *served, raw []byte) []byte
	kind   tlog.Kind
	from   uint64
	to     uint64
}

func flip(at int) func(*served, []byte) []byte {
	return func(_ *served, raw []byte) []byte {
		raw = bytes.Clone(raw)
		raw[at] ^= 1
		return raw
	}
}

func gone(*served, []byte) []byte { return nil }

// withoutEntry takes one entry out of a bundle, so that those after it move up.
func withoutEntry(at int) func(*served, []byte) []byte {
	return func(_ *served, raw []byte) []byte {
		var out []byte
		for i, leaf := range tlog.ParseBundle(raw, tlog.TileWidth) {
			if i != at {
				out, _ = tlog.AppendToBundle(out, leaf)
			}
		}
		return out
	}
}

// Row A54, offline: each way in which an export can be tampered with, and what is named.
func TestTamperedExportNamesTheFirstBadEntryOrInterval(t *testing.T) {
	dir, v := exportedLog(t)
	cases := map[string][]tampering{
		"a byte of an entry":                   {{"tile/entries/001", flip(60), tlog.EntryChanged, 256, 257}},
		"the hash of an entry":                 {{"tile/0/001", flip(32*4 + 7), tlog.EntryChanged, 260, 261}},
		"an entry taken out of a bundle":       {{"tile/entries/000", withoutEntry(6), tlog.EntryChanged, 6, 7}},
		"the last entry taken out":             {{"tile/entries/002.p/188", withoutEntry(187), tlog.EntryMissing, 650, 700}},
		"bytes after the last entry":           {{"tile/entries/002.p/188", func(_ *served, raw []byte) []byte { return append(raw, 1, 2, 3) }, tlog.EntryChanged, 699, 700}},
		"a length that leads past the end":     {{"tile/entries/000", flip(0), tlog.EntryChanged, 0, 1}},
		"a bundle gone":                        {{"tile/entries/001", gone, tlog.EntryMissing, 256, 512}},
		"the first bundle gone":                {{"tile/entries/000", gone, tlog.EntryMissing, 0, 256}},
		"the last bundle gone":                 {{"tile/entries/002.p/188", gone, tlog.EntryMissing, 500, 700}},
		"a tile of leaf hashes gone":           {{"tile/0/001", gone, tlog.TileChanged, 256, 257}},
		"a tile of leaf hashes cut short":      {{"tile/0/001", func(_ *served, raw []byte) []byte { return raw[:64] }, tlog.TileChanged, 258, 259}},
		"a tile of roots":                      {{"tile/1/000.p/2", flip(33), tlog.TileChanged, 0, 700}},
		"a tile of roots gone":                 {{"tile/1/000.p/2", gone, tlog.TileChanged, 0, 700}},
		"two bundles swapped":                  {{"tile/entries/001", func(v *served, _ []byte) []byte { b, _ := v.fetch(context.Background(), "tile/entries/000"); return b }, tlog.EntryChanged, 256, 257}},
		"the newest checkpoint":                {{"checkpoint", flip(30), tlog.CheckpointForged, 0, 0}},
		"the newest checkpoint's size":         {{"checkpoint", func(_ *served, raw []byte) []byte { return bytes.Replace(raw, []byte("\n700\n"), []byte("\n701\n"), 1) }, tlog.CheckpointForged, 0, 0}},
		"an older checkpoint for the newest":   {{"checkpoint", func(v *served, _ []byte) []byte { return []byte(v.checkpoints[9]) }, tlog.LogTruncated, 500, 700}},
		"a checkpoint in between":              {{"checkpoints.jsonl", func(_ *served, raw []byte) []byte { return bytes.Replace(raw, []byte(`\n100\n`), []byte(`\n101\n`), 1) }, tlog.CheckpointForged, 50, 700}},
		"a line among the checkpoints":         {{"checkpoints.jsonl", func(_ *served, raw []byte) []byte { return append([]byte("nonsense\n"), raw...) }, tlog.CheckpointForged, 0, 700}},
		"a checkpoint of another log":          {{"checkpoint", func(v *served, _ []byte) []byte { s := newSigner(v.t); return []byte(write(v.t, s, 700, 700).newest) }, tlog.CheckpointForged, 0, 0}},
		"an entry with its hash":               {{"tile/entries/001", reword(3), "", 0, 0}, {"tile/0/001", rehashed(259), tlog.IntervalRewritten, 250, 300}},
		"an entry with its hash and all above": {{"tile/entries/000", reword(3), "", 0, 0}, {"tile/0/000", rehashed(3), "", 0, 0}, {"tile/1/000.p/2", flip(0), tlog.IntervalRewritten, 0, 50}},
		"cut short, with the checkpoint of it": {
			{"checkpoint", func(v *served, _ []byte) []byte { return []byte(v.checkpoints[1]) }, "", 0, 0},
			{"tile/entries/000", func(_ *served, raw []byte) []byte {
				var out []byte
				for _, l := range tlog.ParseBundle(raw, tlog.TileWidth)[:100] {
					out, _ = tlog.AppendToBundle(out, l)
				}
				return out
			}, tlog.LogTruncated, 100, 700}},
	}
	for name, changes := range cases {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			var want tampering
			for _, c := range changes {
				file := filepath.Join(copied, filepath.FromSlash(c.path))
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if raw = c.change(v, raw); raw == nil {
					err = os.Remove(file)
				} else {
					err = os.WriteFile(file, raw, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				want = c
			}
			report := verifyDir(t, copied, v.signer.Verifier(), v.newest)
			if report.Whole() {
				t.Fatal("the export passes for whole")
			}
			if f := report.Findings[0]; f.Kind != want.kind || f.From != want.from || f.To != want.to {
				t.Errorf("found %s of %d to %d (%s), want %s of %d to %d", f.Kind, f.From, f.To, f.Text, want.kind, want.from, want.to)
			}
		})
	}
	t.Attr("row", fmt.Sprintf("A54 %d", len(cases)))
}

// reworded is an entry of the same length with other bytes.
func reworded(leaf []byte) []byte {
	leaf = bytes.Clone(leaf)
	leaf[len(leaf)-1] ^= 1
	return leaf
}

func reword(at int) func(*served, []byte) []byte {
	return func(_ *served, raw []byte) []byte {
		var out []byte
		for i, leaf := range tlog.ParseBundle(raw, tlog.TileWidth) {
			if i == at {
				leaf = reworded(leaf)
			}
			out, _ = tlog.AppendToBundle(out, leaf)
		}
		return out
	}
}

// rehashed gives the entry at an index of the log the hash that it has when reworded.
func rehashed(at int) func(*served, []byte) []byte {
	return func(v *served, raw []byte) []byte {
		raw = bytes.Clone(raw)
		copy(raw[at%tlog.TileWidth*tlog.HashSize:], tlog.LeafHash(reworded(v.entries[at].Leaf)))
		return raw
	}
}

// Whoever holds the log's key can sign another history for an export; a checkpoint that was kept elsewhere contradicts it.
func TestExportSignedAnewContradictsWhatWasKept(t *testing.T) {
	_, v := exportedLog(t)
	forged := serve(t, v.signer, write(t, v.signer, exportedEntries, exportedStride))
	dir := filepath.Join(t.TempDir(), "forged")
	if _, err := forged.copyTo(dir, forged.newest); err != nil {
		t.Fatal(err)
	}
	if r := verifyDir(t, dir, v.signer.Verifier()); !r.Whole() {
		t.Errorf("without a memory there is nothing to see: %+v", r.Findings)
	}
	for _, kept := range v.checkpoints {
		r := verifyDir(t, dir, v.signer.Verifier(), kept)
		if r.Whole() || r.Findings[0].Kind != tlog.HistoryReplaced {
			t.Errorf("%+v", r.Findings)
		}
	}
}

func TestCheckpointsOfAnExportAreLinesOfJSON(t *testing.T) {
	dir, v := exportedLog(t)
	raw, err := os.ReadFile(filepath.Join(dir, tlog.CheckpointsFile))
	if err != nil {
		t.Fatal(err)
	}
	var notes []string
	for line := range bytes.Lines(raw) {
		var note string
		if err := json.Unmarshal(line, &note); err != nil {
			t.Fatal(err)
		}
		notes = append(notes, note)
	}
	if strings.Join(notes, "") != strings.Join(v.checkpoints, "") {
		t.Errorf("%d checkpoints, want the %d that were signed", len(notes), len(v.checkpoints))
	}
}
