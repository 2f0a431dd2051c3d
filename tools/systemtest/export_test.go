package systemtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transparency-dev/tessera/api"
	tiles "github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	sumdb "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
)

// logPrefix is where a tenant serves its log as C2SP tlog-tiles lays it out.
const logPrefix = "/audit/v1/log/"

// exportedLog is what `a3 audit export` says of what it wrote.
type exportedLog struct {
	To          string `json:"to"`
	Whole       bool   `json:"whole"`
	Entries     uint64 `json:"entries"`
	Checkpoints int    `json:"checkpoints"`
	VerifierKey string `json:"verifier_key"`
}

func export(t testing.TB, profile, to string) exportedLog {
	t.Helper()
	var e exportedLog
	out := shared.a3(t, profile, "-o", "json", "audit", "export", "--to", to)
	if err := json.Unmarshal([]byte(out), &e); err != nil || !e.Whole || e.Entries == 0 {
		t.Fatalf("audit export says %s (%v)", out, err)
	}
	return e
}

// hashBundle is how entries are hashed, by Tessera's own reading of a bundle.
func hashBundle(raw []byte) ([][]byte, error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(raw); err != nil {
		return nil, err
	}
	var out [][]byte
	for _, e := range b.Entries {
		h := sumdb.RecordHash(e)
		out = append(out, h[:])
	}
	return out, nil
}

// checkWithTessera has Tessera's own checker of logs read all of one: checkpoint, entries and every tile.
func checkWithTessera(t testing.TB, key string, f fsck.Fetcher) error {
	t.Helper()
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return fsck.New(v.Name(), v, f, hashBundle, fsck.Opts{N: 2}).Check(t.Context())
}

// The log is read and found whole by a checker of the field that shares no code with it, from the tenant's host and from an export;
// and nobody reads it who may not.
func TestLogIsReadByClientsOfItsLayout(t *testing.T) {
	full(t)
	dir := filepath.Join(t.TempDir(), "log")
	e := export(t, "globex-admin", dir)
	if err := checkWithTessera(t, e.VerifierKey, tiles.FileFetcher{Root: dir}); err != nil {
		t.Errorf("the export: %v", err)
	}
	root, err := url.Parse(globex().url + logPrefix)
	if err != nil {
		t.Fatal(err)
	}
	live, err := tiles.NewHTTPFetcher(root, globex().client(t))
	if err != nil {
		t.Fatal(err)
	}
	live.SetAuthorizationHeader("Bearer " + globex().admin(t).token(t, ""))
	if err := checkWithTessera(t, e.VerifierKey, live); err != nil {
		t.Errorf("through the gateway: %v", err)
	}
	// Who took the record out is on the record.
	const entries = "GET " + logPrefix + "tile/entries/{path...}"
	within(t, sealedWithin, func() error {
		if e := globex().recordedOf(t, "audit.verify")[entries]; e.GetActor() != globex().admin(t).id {
			return fmt.Errorf("that entries were read is on the record as %v", e)
		}
		return nil
	})
	somebody := globex().invite(t)
	for who, want := range map[string]int{
		"": http.StatusUnauthorized, somebody.token(t, ""): http.StatusForbidden, acme().admin(t).token(t, ""): http.StatusUnauthorized,
		globex().admin(t).token(t, ""): http.StatusOK,
	} {
		for _, path := range []string{"checkpoint", "tile/entries/000"} {
			if path != "checkpoint" && want == http.StatusOK {
				continue
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, globex().url+logPrefix+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if who != "" {
				req.Header.Set("Authorization", "Bearer "+who)
			}
			res, err := globex().client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s is answered %s, want %d", path, res.Status, want)
			}
		}
	}
}

// Row A54, offline: an export is verified by what lies in it, by a program that can reach nobody, and what was changed is named.
func TestExportIsVerifiedOffline(t *testing.T) {
	full(t)
	dir := filepath.Join(t.TempDir(), "log")
	before := export(t, "globex-admin", dir)
	kept := filepath.Join(t.TempDir(), "checkpoint")
	checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, checkpoint, 0o600); err != nil {
		t.Fatal(err)
	}
	globex().invite(t)
	within(t, sealedWithin, func() error {
		if after := export(t, "globex-admin", dir); after.Entries <= before.Entries {
			return fmt.Errorf("%d entries, as before", after.Entries)
		}
		return nil
	})
	nowhere := &plane{home: t.TempDir()}
	nowhere.environ = []string{"PATH=/nonexistent", "A3_HOME=" + nowhere.home}
	verify := func(more ...string) said {
		t.Helper()
		s, err := nowhere.command(t.Context(), "a3", append([]string{"audit", "verify", "--from"}, more...)...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := verify(dir, "--verifier-key", before.VerifierKey, "--checkpoint", kept); s.code != 0 || !strings.Contains(s.out, "whole") {
		t.Errorf("verify says %s", s)
	}
	zipped := filepath.Join(t.TempDir(), "log.zip")
	if e := export(t, "globex-admin", zipped); e.Entries < before.Entries {
		t.Errorf("the .zip has %d entries", e.Entries)
	}
	if s := verify(zipped, "--verifier-key", before.VerifierKey, "--checkpoint", kept); s.code != 0 {
		t.Errorf("verify of the .zip says %s", s)
	}
	if s := verify(dir, "--verifier-key", export(t, "acme-admin", filepath.Join(t.TempDir(), "acme")).VerifierKey); s.code == 0 || !strings.Contains(s.err, "another key") {
		t.Errorf("against another tenant's key verify says %s", s)
	}

	file := filepath.Join(dir, "tile", "entries", "000")
	if _, err := os.Stat(file); err != nil {
		found, err := filepath.Glob(file + ".p/*")
		if err != nil || len(found) != 1 {
			t.Fatalf("the first bundle is one of %v, %v", found, err)
		}
		file = found[0]
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[20] ^= 1 // in the first entry
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := verify(dir, "--verifier-key", before.VerifierKey); s.code != 1 || !strings.Contains(s.out, "entry 0 ") {
		t.Errorf("with one byte changed verify says %s", s)
	}
	// An old state of the log with the checkpoint of then is whole in itself: only who kept a later checkpoint sees it.
	if err := os.WriteFile(filepath.Join(dir, "checkpoint"), checkpoint, 0o600); err != nil {
		t.Fatal(err)
	}
	raw[20] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	later := filepath.Join(filepath.Dir(kept), "later")
	again := filepath.Join(t.TempDir(), "again")
	export(t, "globex-admin", again)
	newest, err := os.ReadFile(filepath.Join(again, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(later, newest, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := verify(dir, "--verifier-key", before.VerifierKey, "--checkpoint", later); s.code != 1 || !strings.Contains(s.out, "log_truncated") {
		t.Errorf("with an old checkpoint restored verify says %s", s)
	}
	t.Attr("row", "A54 3")
}

// A proof that `a3 audit prove` prints is verified by the code of the Go checksum database, from its text alone.
func TestProofOfAnEventIsVerifiedByAnother(t *testing.T) {
	full(t)
	e := export(t, "globex-admin", filepath.Join(t.TempDir(), "log"))
	var list auditv1.ListEventsResponse
	if err := unmarshal(shared.a3(t, "globex-admin", "-o", "json", "audit", "list", "--limit", "3"), &list); err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(e.VerifierKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range list.GetEvents() {
		id := sealed.GetEvent().GetId()
		text, checkpoint, ok := strings.Cut(shared.a3(t, "globex-admin", "audit", "prove", id), "\n\n")
		lines := strings.Split(text, "\n")
		if !ok || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
			t.Fatalf("the proof is\n%s", text)
		}
		signed, err := note.Open([]byte(checkpoint), note.VerifierList(key))
		if err != nil {
			t.Fatal(err)
		}
		var origin, root string
		var size, index int64
		if _, err := fmt.Sscanf(signed.Text, "%s\n%d\n%s\n", &origin, &size, &root); err != nil {
			t.Fatal(err)
		}
		tree, err := sumdb.ParseHash(root)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(lines[2], "index %d", &index); err != nil {
			t.Fatal(err)
		}
		var hashes sumdb.RecordProof
		for _, l := range lines[3:] {
			h, err := sumdb.ParseHash(l)
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, h)
		}
		if err := sumdb.CheckRecord(hashes, size, tree, index, sumdb.RecordHash(leaf)); err != nil {
			t.Errorf("event %s: %v", id, err)
		}
		if err := sumdb.CheckRecord(hashes, size, tree, index, sumdb.RecordHash(append(bytes.Clone(leaf), 0))); err == nil {
			t.Error("the proof holds for another event")
		}
		var in auditv1.Leaf
		var event auditv1.Event
		if err := proto.Unmarshal(leaf, &in); err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(in.GetEvent(), &event); err != nil || event.GetId() != id {
			t.Errorf("the proof is about %s, %v", event.GetId(), err)
		}
	}
}
