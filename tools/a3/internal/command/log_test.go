package command_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	"a3os.app/proto/gen/go/a3os/audit/v1/auditv1connect"
)

// log is an audit log in memory, whose keeper can be told to cheat.
type log struct {
	auditv1connect.UnimplementedLogServiceHandler
	mu     sync.Mutex
	signer *tlog.Signer
	leaves [][]byte
	hashes [][]byte
	notes  []string
	sizes  []int64
}

func newSigner(t *testing.T) *tlog.Signer {
	t.Helper()
	secret, _, err := tlog.NewKey("a3os.app/dev/acme/audit")
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// grow seals events under a checkpoint.
func (l *log) grow(t *testing.T, n int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signer == nil {
		l.signer = newSigner(t)
	}
	for range n {
		event, err := proto.Marshal(&auditv1.Event{Id: id.NewEvent().String(), Action: "iam.user.invited"})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := proto.Marshal(&auditv1.Leaf{Event: event, Producer: "iam"})
		if err != nil {
			t.Fatal(err)
		}
		l.leaves, l.hashes = append(l.leaves, leaf), append(l.hashes, tlog.LeafHash(leaf))
	}
	l.sign(t)
}

func (l *log) sign(t *testing.T) {
	t.Helper()
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for _, h := range l.hashes {
		if err := tree.Append(h, nil); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.signer.Sign(uint64(len(l.leaves)), root)
	if err != nil {
		t.Fatal(err)
	}
	l.notes, l.sizes = append(l.notes, c.Note), append(l.sizes, int64(len(l.leaves)))
}

func (l *log) GetCheckpoint(context.Context, *connect.Request[auditv1.GetCheckpointRequest]) (*connect.Response[auditv1.GetCheckpointResponse], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) == 0 {
		return nil, fault.Connect(tlog.ErrEmpty)
	}
	return connect.NewResponse(&auditv1.GetCheckpointResponse{Checkpoint: l.notes[len(l.notes)-1], VerifierKey: l.signer.Verifier().String()}), nil
}

func (l *log) ListCheckpoints(_ context.Context, req *connect.Request[auditv1.ListCheckpointsRequest]) (*connect.Response[auditv1.ListCheckpointsResponse], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := &auditv1.ListCheckpointsResponse{}
	for i, n := range l.notes {
		if l.sizes[i] >= req.Msg.GetFromSize() {
			res.Checkpoints = append(res.Checkpoints, n)
		}
	}
	return connect.NewResponse(res), nil
}

func (l *log) StreamLeaves(_ context.Context, req *connect.Request[auditv1.StreamLeavesRequest], stream *connect.ServerStream[auditv1.StreamLeavesResponse]) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := &auditv1.StreamLeavesResponse{}
	for i := req.Msg.GetFromIndex(); i < min(req.Msg.GetToIndex(), int64(len(l.leaves))); i++ {
		res.Events = append(res.Events, &auditv1.SealedEvent{Index: i, Leaf: l.leaves[i]})
		res.LeafHashes = append(res.LeafHashes, l.hashes[i])
	}
	return stream.Send(res)
}

func TestVerifyRemembersWhatItSawAndHoldsTheLogToIt(t *testing.T) {
	f := newFake(t)
	if r := a3(t, "audit", "verify"); r.code != 0 || !strings.Contains(r.out, "empty") {
		t.Fatalf("an empty log: %+v", r)
	}
	f.log.grow(t, 5)
	if r := a3(t, "audit", "verify"); r.code != 0 || !strings.Contains(r.out, "whole: 5 entries") || !strings.Contains(r.out, "first time") {
		t.Fatalf("the first time: %+v", r)
	}
	file := filepath.Join(f.home, "audit", "admin.checkpoint")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the memory: %v, %v", info, err)
	}
	f.log.grow(t, 3)
	if r := a3(t, "audit", "verify"); r.code != 0 || !strings.Contains(r.out, "whole: 8 entries") || strings.Contains(r.out, "first time") {
		t.Fatalf("the second time: %+v", r)
	}
}

func TestVerifyNamesWhatWasDoneToTheLog(t *testing.T) {
	cases := map[string]struct {
		tamper func(t *testing.T, l *log)
		kind   tlog.Kind
		words  string
	}{
		"one byte of one entry": {func(_ *testing.T, l *log) {
			l.leaves[3] = append([]byte{}, l.leaves[3]...)
			l.leaves[3][10] ^= 1
		}, tlog.EntryChanged, "entry 3 "},
		"an entry with its hash": {func(_ *testing.T, l *log) {
			l.leaves[3] = l.leaves[4]
			l.hashes[3] = l.hashes[4]
		}, tlog.IntervalRewritten, "among the entries 0 to 7"},
		"the end cut off": {func(t *testing.T, l *log) {
			l.leaves, l.hashes, l.notes, l.sizes = l.leaves[:6], l.hashes[:6], nil, nil
			l.sign(t)
		}, tlog.LogTruncated, "entries 6 to 7 are gone"},
		"all of it, signed anew": {func(t *testing.T, l *log) {
			l.leaves[0] = l.leaves[1]
			l.hashes[0] = l.hashes[1]
			l.notes, l.sizes = nil, nil
			l.sign(t)
		}, tlog.HistoryReplaced, "the first 8 entries are not those"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.log.grow(t, 8)
			if r := a3(t, "audit", "verify"); r.code != 0 {
				t.Fatalf("before: %+v", r)
			}
			c.tamper(t, &f.log)
			r := a3(t, "audit", "verify")
			if r.code != 1 || !strings.Contains(r.out, c.words) || !strings.Contains(r.err, string(c.kind)) {
				t.Errorf("told: %+v", r)
			}
			var v struct {
				Whole    bool
				Findings []struct{ Kind tlog.Kind }
			}
			if r := a3(t, "-o", "json", "audit", "verify"); r.code != 1 || json.Unmarshal([]byte(r.out), &v) != nil || v.Whole || v.Findings[0].Kind != c.kind {
				t.Errorf("told programs: %+v", r)
			}
		})
	}
}

func TestLogThatShowsAnotherKeyIsNotTrusted(t *testing.T) {
	f := newFake(t)
	f.log.grow(t, 2)
	other := newSigner(t).Verifier().String()
	if r := a3(t, "audit", "verify", "--verifier-key", other); r.code != 1 || !strings.Contains(r.err, "another key") {
		t.Errorf("against the key that was demanded: %+v", r)
	}
	if r := a3(t, "audit", "verify"); r.code != 0 {
		t.Fatalf("the first time: %+v", r)
	}
	f.log.mu.Lock()
	f.log.signer, f.log.notes, f.log.sizes = newSigner(t), nil, nil
	f.log.sign(t)
	f.log.mu.Unlock()
	if r := a3(t, "audit", "verify"); r.code != 1 || !strings.Contains(r.err, "another key") {
		t.Errorf("against the key that is remembered: %+v", r)
	}
}
