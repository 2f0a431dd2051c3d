package command_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/fault"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
)

// serveLayout answers for the log in its layout, as far as 255 entries go.
func (l *log) serveLayout(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, err := tlog.ParseTile(r.PathValue("path"))
	if err != nil || t.Index > 0 || t.Level > 0 || t.Width > len(l.leaves) {
		http.NotFound(w, r)
		return
	}
	if t.Level == 0 {
		_, _ = w.Write(bytes.Join(l.hashes[:t.Width], nil))
		return
	}
	var bundle []byte
	for _, leaf := range l.leaves[:t.Width] {
		bundle, _ = tlog.AppendToBundle(bundle, leaf)
	}
	_, _ = w.Write(bundle)
}

// GetInclusionProof proves entries of a log of two, for which the proof is the other one's hash.
func (l *log) GetInclusionProof(_ context.Context, req *connect.Request[auditv1.GetInclusionProofRequest]) (*connect.Response[auditv1.GetInclusionProofResponse], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, leaf := range l.leaves {
		if l.id(i) == req.Msg.GetEventId() {
			return connect.NewResponse(&auditv1.GetInclusionProofResponse{Event: &auditv1.SealedEvent{Index: int64(i), Leaf: leaf},
				Size: 2, Hashes: [][]byte{l.hashes[1-i]}, Checkpoint: l.notes[len(l.notes)-1]}), nil
		}
	}
	return nil, fault.Connect(fault.New(fault.NotFound, "no such event in the log"))
}

func (l *log) id(at int) string {
	var leaf auditv1.Leaf
	var event auditv1.Event
	_ = proto.Unmarshal(l.leaves[at], &leaf)
	_ = proto.Unmarshal(leaf.GetEvent(), &event)
	return event.GetId()
}

func TestExportIsVerifiedWithoutAProfile(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "acme-audit")
	if r := a3(t, "audit", "export", "--to", dir); r.code != 4 || !strings.Contains(r.err, "empty") {
		t.Errorf("an empty log: %+v", r)
	}
	f.log.grow(t, 5)
	if r := a3(t, "audit", "export", "--to", dir); r.code != 0 || !strings.Contains(r.out, "exported 5 entries under 1 checkpoint") {
		t.Fatalf("export: %+v", r)
	}
	kept := filepath.Join(t.TempDir(), "checkpoint")
	first, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, first, 0o600); err != nil {
		t.Fatal(err)
	}
	f.log.grow(t, 3)
	var e struct {
		To          string
		Whole       bool
		Entries     int
		VerifierKey string `json:"verifier_key"`
	}
	if r := a3(t, "-o", "json", "audit", "export", "--to", dir); r.code != 0 || json.Unmarshal([]byte(r.out), &e) != nil || e.Entries != 8 || !e.Whole || e.To != dir {
		t.Fatalf("export of what is new: %+v", r)
	}
	zipped := dir + ".zip"
	if r := a3(t, "audit", "export", "--to", zipped); r.code != 0 {
		t.Fatalf("export to a file: %+v", r)
	}
	if left, _ := filepath.Glob(dir + ".zip.*"); len(left) != 0 {
		t.Errorf("left beside the file: %v", left)
	}
	t.Setenv("A3_HOME", t.TempDir()) // no profile from here on
	for _, from := range []string{dir, zipped} {
		if r := a3(t, "audit", "verify", "--from", from, "--verifier-key", e.VerifierKey, "--checkpoint", kept); r.code != 0 || !strings.Contains(r.out, "whole: 8 entries") || r.err != "" {
			t.Errorf("verify: %+v", r)
		}
	}
	if r := a3(t, "audit", "verify", "--from", dir); r.code != 0 || !strings.Contains(r.err, "the key is the export's own") {
		t.Errorf("verify with the export's own key: %+v", r)
	}
	if r := a3(t, "audit", "verify", "--from", dir, "--verifier-key", newSigner(t).Verifier().String()); r.code != 1 || !strings.Contains(r.err, "another key") {
		t.Errorf("verify with another key: %+v", r)
	}
	if r := a3(t, "audit", "verify", "--from", dir, "--checkpoint", filepath.Join(dir, "none")); r.code != 2 {
		t.Errorf("a checkpoint that isn't there: %+v", r)
	}
	if r := a3(t, "audit", "verify", "--from", filepath.Join(dir, "none")); r.code != 2 {
		t.Errorf("an export that isn't there: %+v", r)
	}
	bundle := filepath.Join(dir, "tile", "entries", "000.p", "8")
	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(bundle, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := a3(t, "audit", "verify", "--from", dir); r.code != 1 || !strings.Contains(r.out, "entry 7 ") || !strings.Contains(r.err, "entry_changed") {
		t.Errorf("one byte changed: %+v", r)
	}
}

func TestExportOfALogThatWasTamperedWithFails(t *testing.T) {
	f := newFake(t)
	f.log.grow(t, 8)
	f.log.leaves[3] = append([]byte{}, f.log.leaves[3]...)
	f.log.leaves[3][10] ^= 1
	if r := a3(t, "audit", "export", "--to", filepath.Join(t.TempDir(), "x")); r.code != 1 || !strings.Contains(r.out, "entry 3 ") {
		t.Errorf("told: %+v", r)
	}
}

func TestExportIntoADirectoryWithOtherThingsIsRefused(t *testing.T) {
	f := newFake(t)
	f.log.grow(t, 1)
	if r := a3(t, "audit", "export", "--to", f.home); r.code != 1 || !strings.Contains(r.err, "directory of its own") {
		t.Errorf("told: %+v", r)
	}
}

// readProof reads a C2SP tlog-proof by the letter of the format.
func readProof(t *testing.T, text string) (p tlog.Proof) {
	t.Helper()
	decode := func(of string) []byte {
		raw, err := base64.StdEncoding.DecodeString(of)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return raw
	}
	head, checkpoint, _ := strings.Cut(text, "\n\n")
	for i, line := range strings.Split(head, "\n") {
		switch extra, isExtra := strings.CutPrefix(line, "extra "); {
		case i == 0 && line == "c2sp.org/tlog-proof@v1":
		case i == 1 && isExtra:
			p.Leaf = decode(extra)
		case i == 2:
			if _, err := fmt.Sscanf(line, "index %d", &p.Index); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
		case i > 2:
			p.Hashes = append(p.Hashes, decode(line))
		default:
			t.Fatalf("line %d is %q", i, line)
		}
	}
	p.Checkpoint = checkpoint
	return p
}

func TestProveEndsWithAProofThatHolds(t *testing.T) {
	f := newFake(t)
	f.log.grow(t, 2)
	for i := range 2 {
		r := a3(t, "audit", "prove", f.log.id(i))
		if r.code != 0 {
			t.Fatalf("%+v", r)
		}
		p := readProof(t, r.out)
		c, err := f.log.signer.Verifier().Open(p.Checkpoint)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(p.Leaf), p.Hashes, c.Root); err != nil || p.Index != uint64(i) {
			t.Errorf("entry %d: %v\n%s", i, err, r.out)
		}
	}
	if r := a3(t, "audit", "prove", "evt_01h455vb4pex5vsknk084sn02q"); r.code != 4 {
		t.Errorf("an event that isn't there: %+v", r)
	}
	if r := a3(t, "audit", "prove", "nonsense"); r.code != 2 {
		t.Errorf("no event's id: %+v", r)
	}
	f.log.hashes[1] = f.log.hashes[0]
	if r := a3(t, "audit", "prove", f.log.id(0)); r.code != 1 || !strings.Contains(r.err, "does not hold") || r.out != "" {
		t.Errorf("a proof that does not hold: %+v", r)
	}
}
