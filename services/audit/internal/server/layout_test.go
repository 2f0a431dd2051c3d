package server_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	sumdb "golang.org/x/mod/sumdb/tlog"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/server"
)

// get reads a path of the layout.
func (r *running) get(t *testing.T, path string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.web.URL+server.Prefix+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.web.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, body
}

// sumdbReader reads tiles for the client code of the Go checksum database, which verifies each against the tree that it trusts.
type sumdbReader struct {
	t    *testing.T
	r    *running
	read int
}

func (s *sumdbReader) Height() int { return 8 }

func (s *sumdbReader) ReadTiles(tiles []sumdb.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1) // the database writes its tiles' height before their level
		status, _, body := s.r.get(s.t, path)
		if status != http.StatusOK {
			return nil, fmt.Errorf("%s: %d %s", path, status, body)
		}
		out[i], s.read = body, s.read+1
	}
	return out, nil
}

func (s *sumdbReader) SaveTiles([]sumdb.Tile, [][]byte) {}

// The layout is read by a client that shares no code with it: the checksum database's, which knows the tiles and recomputes the tree.
func TestLogIsReadByAnIndependentClientOfItsLayout(t *testing.T) {
	r := start(t)
	var events []*auditv1.Event
	for range 70 {
		for range 10 {
			events = append(events, audittest.Event("iam.user.invited", "usr_x"))
		}
	}
	r.record(t, events[:255]...)
	r.record(t, events[255:256]...)
	r.record(t, events[256:]...)
	tree := r.checkpoint(t)
	if status, h, note := r.get(t, "checkpoint"); status != http.StatusOK || h.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.Contains(string(note), "\n700\n") {
		t.Errorf("the checkpoint is %d %q %s", status, h.Get("Content-Type"), note)
	}
	reader := &sumdbReader{t: t, r: r}
	hashes := sumdb.TileHashReader(tree, reader)
	seen := int64(0)
	for tile := range tlog.Tiles(tlog.Entries, 700, 0) {
		status, h, bundle := r.get(t, tile.Path())
		if status != http.StatusOK || h.Get("Content-Type") != "application/octet-stream" || h.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v", tile.Path(), status, h)
		}
		for len(bundle) > 0 {
			n := binary.BigEndian.Uint16(bundle)
			leaf := bundle[2 : 2+n]
			bundle = bundle[2+n:]
			proof, err := sumdb.ProveRecord(tree.N, seen, hashes)
			if err != nil {
				t.Fatal(err)
			}
			if err := sumdb.CheckRecord(proof, tree.N, tree.Hash, seen, sumdb.RecordHash(leaf)); err != nil {
				t.Fatalf("entry %d: %v", seen, err)
			}
			if _, event, _ := tlog.ParseLeaf(leaf); event.GetId() != events[seen].GetId() {
				t.Fatalf("entry %d is %s", seen, event.GetId())
			}
			seen++
		}
	}
	if seen != 700 || reader.read == 0 {
		t.Errorf("%d entries were read, and %d tiles", seen, reader.read)
	}
	older, err := sumdb.ProveTree(tree.N, 255, hashes)
	if err != nil || len(older) == 0 {
		t.Errorf("no proof of growth from the first checkpoint: %v", err)
	}
}

func TestTileThatTheTreeDoesNotHaveIsNotFound(t *testing.T) {
	r := start(t)
	if status, _, _ := r.get(t, "checkpoint"); status != http.StatusNotFound {
		t.Errorf("the checkpoint of an empty log: %d", status)
	}
	var events []*auditv1.Event
	for range 300 {
		events = append(events, audittest.Event("a", "b"))
	}
	r.record(t, events...)
	for path, want := range map[string]int{
		"tile/0/000": 200, "tile/0/000.p/7": 200, "tile/0/001.p/44": 200, "tile/0/001.p/43": 200, "tile/1/000.p/1": 200, "tile/entries/000": 200, "tile/entries/001.p/44": 200,
		"tile/0/001": 404, "tile/0/001.p/45": 404, "tile/0/002.p/1": 404, "tile/1/000": 404, "tile/1/000.p/2": 404, "tile/2/000.p/1": 404, "tile/entries/001": 404,
		"tile/64/000": 404, "tile/0/0": 404, "tile/0/x000/000": 404, "tile/0/000.p/0": 404, "tile/0/000.p/256": 404, "tile/00/000": 404, "tile/data/000": 404, "tile/0/": 404,
		"tile/0/x922/x337/x203/x685/x477/580": 404, "tile/63/x009/x223/x372/x036/x854/775": 404, "tile/0/000.p/01": 404, "tile/0/-01": 404,
	} {
		if status, _, body := r.get(t, path); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, body, want)
		}
	}
	r.scope.Workspace = id.NewWorkspace()
	for _, path := range []string{"checkpoint", "tile/0/000", "tile/entries/000"} {
		if status, _, _ := r.get(t, path); status != http.StatusForbidden {
			t.Errorf("%s with a workspace's token: %d", path, status)
		}
	}
}
