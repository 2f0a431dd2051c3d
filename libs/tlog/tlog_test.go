package tlog_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	sumdb "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
)

// export is a log as it could lie in a file.
type export struct {
	newest      string
	checkpoints []string
	entries     []tlog.Entry
}

func (e *export) Checkpoint(context.Context) (string, error) {
	if e.newest == "" {
		return "", tlog.ErrEmpty
	}
	return e.newest, nil
}

func (e *export) Checkpoints(context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, c := range e.checkpoints {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (e *export) Leaves(_ context.Context, size uint64) iter.Seq2[tlog.Entry, error] {
	return func(yield func(tlog.Entry, error) bool) {
		for _, l := range e.entries {
			if l.Index < size && !yield(l, nil) {
				return
			}
		}
	}
}

type fataler interface {
	Fatal(...any)
	Helper()
}

func newSigner(t fataler) *tlog.Signer {
	t.Helper()
	secret, _, err := tlog.NewKey(tlog.Origin("dev", id.NewTenant()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write makes a log of n events with a checkpoint after every stride of them and at the end.
func write(t fataler, s *tlog.Signer, n, stride int) *export {
	t.Helper()
	out := new(export)
	grown := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for i := range n {
		event, err := proto.Marshal(&auditv1.Event{Id: id.NewEvent().String(), Action: "iam.user.invited"})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := tlog.Leaf(event, time.Unix(int64(i), 0), "role")
		if err != nil {
			t.Fatal(err)
		}
		hash := tlog.LeafHash(leaf)
		if err := grown.Append(hash, nil); err != nil {
			t.Fatal(err)
		}
		out.entries = append(out.entries, tlog.Entry{Index: uint64(i), Leaf: leaf, Hash: hash})
		if (i+1)%stride == 0 || i == n-1 {
			root, err := grown.GetRootHash(nil)
			if err != nil {
				t.Fatal(err)
			}
			c, err := s.Sign(grown.End(), root)
			if err != nil {
				t.Fatal(err)
			}
			out.newest = c.Note
			out.checkpoints = append(out.checkpoints, c.Note)
		}
	}
	return out
}

func TestUntouchedLogIsWholeAndGoesOnFromEveryCheckpoint(t *testing.T) {
	s := newSigner(t)
	for _, n := range []int{0, 1, 2, 7, 64, 100} {
		log := write(t, s, n, 3)
		for _, remembered := range append([]string{""}, log.checkpoints...) {
			report, err := tlog.Verify(t.Context(), log, s.Verifier(), remembered)
			if err != nil || !report.Whole() || report.Entries != uint64(n) || report.Newest.Note != log.newest {
				t.Errorf("%d entries: %+v, %v", n, report, err)
			}
		}
	}
}

// Whatever single thing is done to the entries of a log, a client that remembers its newest checkpoint is told, and what is named
// lies at or before the entry that was touched first.
func TestNoSingleChangeGoesUnseen(t *testing.T) {
	s := newSigner(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 60).Draw(t, "entries")
		stride := rapid.IntRange(1, 20).Draw(t, "stride")
		log := write(t, s, n, stride)
		remembered := log.newest
		at := rapid.IntRange(0, n-1).Draw(t, "at")
		touched := uint64(at)
		rehash := rapid.Bool().Draw(t, "rehash")
		switch rapid.SampledFrom([]string{"flip", "swap", "delete", "close", "insert", "cut"}).Draw(t, "change") {
		case "flip":
			leaf := bytes.Clone(log.entries[at].Leaf)
			leaf[rapid.IntRange(0, len(leaf)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			log.entries[at].Leaf = leaf
			if rehash {
				log.entries[at].Hash = tlog.LeafHash(leaf)
			}
		case "swap":
			other := (at + 1) % n
			a, b := log.entries[at], log.entries[other]
			a.Index, b.Index = b.Index, a.Index
			log.entries[at], log.entries[other] = b, a
			touched = uint64(min(at, other))
		case "delete":
			log.entries = append(log.entries[:at:at], log.entries[at+1:]...)
		case "close":
			log.entries = append(log.entries[:at:at], log.entries[at+1:]...)
			for i := range log.entries {
				log.entries[i].Index = uint64(i)
			}
		case "insert":
			log.entries = append(log.entries[:at:at], append([]tlog.Entry{log.entries[(at+1)%n]}, log.entries[at:]...)...)
			for i := range log.entries {
				log.entries[i].Index = uint64(i)
			}
		case "cut":
			log.entries = log.entries[:at]
			kept := log.checkpoints[:0:0]
			for _, c := range log.checkpoints {
				if cp, err := s.Verifier().Open(c); err == nil && cp.Size <= uint64(at) {
					kept = append(kept, c)
				}
			}
			log.checkpoints, log.newest = kept, ""
			if len(kept) > 0 {
				log.newest = kept[len(kept)-1]
			}
		}
		report, err := tlog.Verify(context.Background(), log, s.Verifier(), remembered)
		if err != nil {
			t.Fatal(err)
		}
		if report.Whole() {
			t.Fatal("the change was not seen")
		}
		if f := report.Findings[0]; f.From > touched || f.To <= f.From || f.Text == "" {
			t.Errorf("entry %d was touched first, the finding is about %d to %d: %s", touched, f.From, f.To, f.Text)
		}
	})
}

func TestCheckpointsOfAnotherLogAreNotTaken(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	log := write(t, s, 10, 5)
	if _, err := tlog.Verify(t.Context(), log, s.Verifier(), write(t, other, 5, 5).newest); err == nil {
		t.Error("another log's checkpoint passes for a remembered one")
	}
	report, err := tlog.Verify(t.Context(), log, other.Verifier(), "")
	if err != nil || report.Whole() || report.Findings[0].Kind != tlog.CheckpointForged {
		t.Errorf("%+v, %v", report, err)
	}
	// One key, two names: the key must not sign for a log of another name.
	text := strings.Replace(log.newest, s.Verifier().Origin(), other.Verifier().Origin(), 1)
	if _, err := s.Verifier().Open(text); err == nil {
		t.Error("a renamed checkpoint passes")
	}
}

func TestGrowthAndInclusionAreChecked(t *testing.T) {
	s := newSigner(t)
	log := write(t, s, 11, 1)
	var stored []sumdb.Hash
	read := sumdb.HashReaderFunc(func(at []int64) ([]sumdb.Hash, error) {
		out := make([]sumdb.Hash, len(at))
		for i, x := range at {
			out[i] = stored[x]
		}
		return out, nil
	})
	var points []tlog.Checkpoint
	for i, e := range log.entries {
		more, err := sumdb.StoredHashes(int64(i), e.Leaf, read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		c, err := s.Verifier().Open(log.checkpoints[i])
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, c)
	}
	for newer := range int64(11) {
		for older := range newer + 1 {
			p, err := sumdb.ProveTree(newer+1, older+1, read)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckGrowth(points[older], points[newer], raw(p)); err != nil {
				t.Errorf("%d to %d: %v", older+1, newer+1, err)
			}
			if older < newer && tlog.CheckGrowth(points[newer], points[older], raw(p)) == nil {
				t.Errorf("%d to %d: a log may shrink", newer+1, older+1)
			}
			forged := points[older]
			forged.Root = tlog.LeafHash([]byte("another root"))
			if tlog.CheckGrowth(forged, points[newer], raw(p)) == nil {
				t.Errorf("%d to %d: another history passes", older+1, newer+1)
			}
			in, err := sumdb.ProveRecord(newer+1, older, read)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckInclusion(log.entries[older].Leaf, uint64(older), points[newer], raw(sumdb.TreeProof(in))); err != nil {
				t.Errorf("leaf %d in %d: %v", older, newer+1, err)
			}
			if tlog.CheckInclusion([]byte("x"), uint64(older), points[newer], raw(sumdb.TreeProof(in))) == nil {
				t.Errorf("another leaf passes for %d in %d", older, newer+1)
			}
		}
	}
}

func raw(p sumdb.TreeProof) [][]byte {
	out := make([][]byte, len(p))
	for i := range p {
		out[i] = p[i][:]
	}
	return out
}

func TestLeafIsHashedAsRFC6962Says(t *testing.T) {
	leaf, err := tlog.Leaf([]byte("event"), time.UnixMicro(1234567), "tnt_x_iam")
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(append([]byte{0}, leaf...))
	if !bytes.Equal(tlog.LeafHash(leaf), want[:]) {
		t.Error("not SHA-256 over 0x00 and the leaf")
	}
	got, _, _ := tlog.ParseLeaf(leaf)
	if string(got.GetEvent()) != "event" || got.GetRecordedAtUs() != 1234567 || got.GetProducer() != "tnt_x_iam" {
		t.Errorf("%v", got)
	}
}

func TestKeysThatAreNoneAreRefusedWithoutRepeatingThem(t *testing.T) {
	secret, vkey, err := tlog.NewKey("a3os.app/dev/x/audit")
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(" " + secret + "\n")
	if err != nil || s.Verifier().String() != vkey {
		t.Fatalf("the signer's verifier key is not the one made with it: %v", err)
	}
	for _, bad := range []string{"", "x", vkey, secret[:len(secret)-4], strings.Replace(secret, "PRIVATE", "PUBLIC", 1)} {
		if _, err := tlog.NewSigner(bad); err == nil || (bad != "" && bad != "x" && strings.Contains(err.Error(), bad)) {
			t.Errorf("%v", err)
		}
	}
	if _, err := tlog.NewVerifier(secret); err == nil {
		t.Error("a secret passes for a verifier key")
	} else if strings.Contains(err.Error(), secret) {
		t.Error("the error repeats the secret")
	}
}

func TestLogThatCannotBeReadIsAnErrorAndNoFinding(t *testing.T) {
	s := newSigner(t)
	broken := errors.New("broken")
	log := &failing{export: write(t, s, 10, 5), after: 4, err: broken}
	if _, err := tlog.Verify(t.Context(), log, s.Verifier(), ""); !errors.Is(err, broken) {
		t.Errorf("err is %v", err)
	}
}

type failing struct {
	*export
	after uint64
	err   error
}

func (f *failing) Leaves(ctx context.Context, size uint64) iter.Seq2[tlog.Entry, error] {
	return func(yield func(tlog.Entry, error) bool) {
		for e := range f.export.Leaves(ctx, size) {
			if e.Index == f.after {
				yield(tlog.Entry{}, f.err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func FuzzOpenCheckpoint(f *testing.F) {
	secret, _, err := tlog.NewKey("a3os.app/dev/x/audit")
	if err != nil {
		f.Fatal(err)
	}
	s, err := tlog.NewSigner(secret)
	if err != nil {
		f.Fatal(err)
	}
	good := write(f, s, 3, 1).newest
	f.Add(good)
	f.Add("a3os.app/dev/x/audit\n-1\n\n\n— a3os.app/dev/x/audit AAAA\n")
	f.Add(fmt.Sprintf("%s%s", good, good))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := s.Verifier().Open(text)
		if err != nil {
			return
		}
		// Go's own checksum database reads the same format, and is the oracle: of the signature, and of size and root.
		key, kerr := note.NewVerifier(s.Verifier().String())
		if kerr != nil {
			t.Fatal(kerr)
		}
		signed, nerr := note.Open([]byte(text), note.VerifierList(key))
		if nerr != nil {
			t.Fatalf("%q is believed, and x/mod/sumdb/note says: %v", text, nerr)
		}
		// It knows its own log alone, by the first line.
		_, rest, _ := strings.Cut(signed.Text, "\n")
		tree, terr := sumdb.ParseTree([]byte("go.sum database tree\n" + rest))
		if terr == nil && (uint64(tree.N) != c.Size || !bytes.Equal(tree.Hash[:], c.Root)) || c.Note != text || len(c.Root) != tlog.HashSize {
			t.Errorf("%q is read as %+v, by x/mod/sumdb/tlog as %+v, %v", text, c, tree, terr)
		}
	})
}
