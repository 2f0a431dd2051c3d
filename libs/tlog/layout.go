package tlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// TileWidth is how many hashes a full tile has, and how many entries a full bundle (C2SP tlog-tiles).
const TileWidth = 256

// MaxLeaf is the length of the longest leaf that a bundle of entries can hold, in bytes: its length is written in 16 bits.
const MaxLeaf = math.MaxUint16

// CheckpointPath is where the newest checkpoint lies in the layout of C2SP tlog-tiles, as TilePath is for the rest.
const CheckpointPath = "checkpoint"

// Entries is the level of bundles of entries, which are named as tiles are.
const Entries = -1

// Tile names a tile of hashes or a bundle of entries.
type Tile struct {
	// Level is 0 for hashes of leaves, n+1 for roots of the tiles of level n, and Entries for the entries themselves.
	Level int
	// Index is the tile's place in its level, from 0.
	Index uint64
	// Width is how many of the 256 places are filled: 256 for a full one.
	Width int
}

// Path is the tile's path in the layout: `tile/0/x001/234.p/5`.
func (t Tile) Path() string {
	level := "entries"
	if t.Level != Entries {
		level = strconv.Itoa(t.Level)
	}
	n := fmt.Sprintf("%03d", t.Index%1000)
	for rest := t.Index / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	path := "tile/" + level + "/" + n
	if t.Width < TileWidth {
		path += ".p/" + strconv.Itoa(t.Width)
	}
	return path
}

var errNoTile = errors.New("this is no path of a tile: want tile/<level>/<index>, as tile/0/x001/234.p/5")

// ParseTile reads a path that Path wrote. Another spelling of the same tile is refused.
func ParseTile(path string) (Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	level, rest, more := strings.Cut(rest, "/")
	if !ok || !more {
		return Tile{}, errNoTile
	}
	t := Tile{Level: Entries, Width: TileWidth}
	if level != "entries" {
		const mostLevel = 63
		n, err := strconv.Atoi(level)
		if err != nil || n < 0 || n > mostLevel {
			return Tile{}, errNoTile
		}
		t.Level = n
	}
	if index, width, partial := strings.Cut(rest, ".p/"); partial {
		n, err := strconv.Atoi(width)
		if err != nil || n < 1 || n >= TileWidth {
			return Tile{}, errNoTile
		}
		rest, t.Width = index, n
	}
	for part := range strings.SplitSeq(rest, "/") {
		n, err := strconv.ParseUint(strings.TrimPrefix(part, "x"), 10, 16)
		const mostIndex = math.MaxInt64 / TileWidth
		if err != nil || n > 999 || t.Index > mostIndex/1000 {
			return Tile{}, errNoTile
		}
		t.Index = t.Index*1000 + n
	}
	if t.Path() != path {
		return Tile{}, errNoTile
	}
	return t, nil
}

// Tiles are the tiles of one level that a tree of a size has, from the one with this index on, the partial one last.
func Tiles(level int, size, from uint64) func(yield func(Tile) bool) {
	return func(yield func(Tile) bool) {
		width := size
		for range max(level, 0) {
			width /= TileWidth
		}
		for i := from; i < width/TileWidth; i++ {
			if !yield(Tile{Level: level, Index: i, Width: TileWidth}) {
				return
			}
		}
		if rest := int(width % TileWidth); rest > 0 && width/TileWidth >= from { //nolint:gosec // below 256
			yield(Tile{Level: level, Index: width / TileWidth, Width: rest})
		}
	}
}

// Levels is how many levels of tiles a tree of a size has.
func Levels(size uint64) int {
	n := 0
	for ; size > 0; size /= TileWidth {
		n++
	}
	return n
}

// AppendToBundle appends an entry to a bundle of entries: its length in 16 bits, big-endian, and its bytes.
func AppendToBundle(bundle, leaf []byte) ([]byte, error) {
	if len(leaf) > MaxLeaf {
		return nil, fmt.Errorf("the leaf has %d bytes, a bundle of entries holds none of more than %d", len(leaf), MaxLeaf)
	}
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...), nil //nolint:gosec // bounded above
}

// ParseBundle reads at most width entries of a bundle. What can't be read ends it: the entries before that are answered. Bytes after
// the last entry are taken for a part of it, so that its hash shows them.
func ParseBundle(bundle []byte, width int) [][]byte {
	const prefix = 2
	var leaves [][]byte
	for len(bundle) >= prefix && len(leaves) < width {
		n := int(binary.BigEndian.Uint16(bundle))
		bundle = bundle[prefix:]
		if n > len(bundle) {
			break
		}
		if len(leaves) == width-1 {
			n = len(bundle)
		}
		leaves, bundle = append(leaves, bundle[:n:n]), bundle[n:]
	}
	return leaves
}
