package tlog_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	sumdb "golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"a3os.app/libs/tlog"
)

func TestPathOfATileIsThatOfTheChecksumDatabase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level, index, width := rapid.IntRange(0, 7).Draw(t, "level"), rapid.Int64Range(0, 1<<40).Draw(t, "index"), rapid.IntRange(1, 256).Draw(t, "width")
		want := strings.Replace(sumdb.Tile{H: 8, L: level, N: index, W: width}.Path(), "tile/8/", "tile/", 1)
		tile := tlog.Tile{Level: level, Index: uint64(index), Width: width}
		if got := tile.Path(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if back, err := tlog.ParseTile(want); err != nil || back != tile {
			t.Errorf("%s is read as %+v, %v", want, back, err)
		}
	})
}

// The tiles of C2SP tlog-tiles' own example: a tree of 70,000 leaves, and one of 256.
func TestTreeHasTheTilesThatTheFormatSays(t *testing.T) {
	for size, levels := range map[uint64][]struct{ full, partial int }{
		70_000: {{273, 112}, {1, 17}, {0, 1}},
		256:    {{1, 0}, {0, 1}},
		1:      {{0, 1}},
	} {
		if got := tlog.Levels(size); got != len(levels) {
			t.Errorf("a tree of %d has %d levels of tiles, want %d", size, got, len(levels))
		}
		for level, want := range levels {
			full, partial := 0, 0
			for tile := range tlog.Tiles(level, size, 0) {
				if tile.Width == tlog.TileWidth {
					full++
				} else {
					partial = tile.Width
				}
			}
			if full != want.full || partial != want.partial {
				t.Errorf("level %d of %d: %d full and one of %d, want %v", level, size, full, partial, want)
			}
		}
	}
}

func TestBundleIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaves := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 256).Draw(t, "leaves")
		var bundle []byte
		for _, l := range leaves {
			var err error
			if bundle, err = tlog.AppendToBundle(bundle, l); err != nil {
				t.Fatal(err)
			}
		}
		got := tlog.ParseBundle(bundle, len(leaves))
		if len(got) != len(leaves) {
			t.Fatalf("%d of %d", len(got), len(leaves))
		}
		for i := range leaves {
			if !bytes.Equal(got[i], leaves[i]) {
				t.Errorf("entry %d is another", i)
			}
		}
		if more := tlog.ParseBundle(append(bundle, 7), len(leaves)); bytes.Equal(more[len(more)-1], leaves[len(leaves)-1]) {
			t.Error("bytes after the last entry are not seen")
		}
	})
	if _, err := tlog.AppendToBundle(nil, make([]byte, tlog.MaxLeaf+1)); err == nil {
		t.Error("a leaf whose length doesn't fit is written all the same")
	}
}

func FuzzParseTile(f *testing.F) {
	for _, path := range []string{"tile/0/000", "tile/entries/x001/x234/067.p/8", "tile/63/x999/999", "tile/0/x000/000", "tile//", "x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		tile, err := tlog.ParseTile(path)
		if err == nil && tile.Path() != path {
			t.Errorf("%q is read as %+v, which is %s", path, tile, tile.Path())
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte{0, 1, 7, 0, 0}, 2)
	f.Add([]byte{255, 255}, 1)
	f.Fuzz(func(t *testing.T, raw []byte, width int) {
		if n := len(tlog.ParseBundle(raw, width)); n > max(0, width) || 2*n > len(raw) {
			t.Errorf("%d bytes hold %d entries of at most %d", len(raw), n, width)
		}
	})
}

// The example of C2SP tlog-proof, but for its signature and its extra data, which it leaves out.
func TestProofIsWrittenAsTheFormatSays(t *testing.T) {
	const hashes = `gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=
`
	const checkpoint = `example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog hI2DJw==
`
	p := tlog.Proof{Index: 73894, Checkpoint: checkpoint}
	for line := range strings.Lines(hashes) {
		h, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		p.Hashes = append(p.Hashes, h)
	}
	for extra, leaf := range map[string][]byte{"": nil, "extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6\n": []byte("age-v1.2.1-darwin-arm64.tar.gz")} {
		p.Leaf = leaf
		if got, want := string(p.Marshal()), "c2sp.org/tlog-proof@v1\n"+extra+"index 73894\n"+hashes+"\n"+checkpoint; got != want {
			t.Errorf("it is written\n%s\nwant\n%s", got, want)
		}
	}
}

func TestProofHoldsForItsEntryInItsLogAlone(t *testing.T) {
	s := newSigner(t)
	log := write(t, s, 7, 7)
	var stored []sumdb.Hash
	read := sumdb.HashReaderFunc(func(at []int64) ([]sumdb.Hash, error) {
		out := make([]sumdb.Hash, len(at))
		for i, x := range at {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i, e := range log.entries {
		more, err := sumdb.StoredHashes(int64(i), e.Leaf, read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	for i, e := range log.entries {
		in, err := sumdb.ProveRecord(7, int64(i), read)
		if err != nil {
			t.Fatal(err)
		}
		p := tlog.Proof{Leaf: e.Leaf, Index: uint64(i), Hashes: raw(sumdb.TreeProof(in)), Checkpoint: log.newest}
		if c, err := p.Verify(s.Verifier()); err != nil || c.Size != 7 {
			t.Errorf("entry %d: %v\n%s", i, err, p.Marshal())
		}
		if _, err := p.Verify(newSigner(t).Verifier()); err == nil {
			t.Error("a proof of another log passes")
		}
		other := p
		other.Index = (p.Index + 1) % 7
		if _, err := other.Verify(s.Verifier()); err == nil {
			t.Error("a proof passes for another index")
		}
		other = p
		other.Leaf = append(bytes.Clone(p.Leaf), 1)
		if _, err := other.Verify(s.Verifier()); err == nil {
			t.Error("a proof passes for another leaf")
		}
	}
}
