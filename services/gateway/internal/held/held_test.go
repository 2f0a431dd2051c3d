package held

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/snapshot"
)

// plane signs snapshots, and believes its own.
type plane struct {
	t        *testing.T
	signer   *snapshot.Signer
	verifier *snapshot.Verifier
}

func newPlane(t *testing.T) plane {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := plane{t: t}
	if p.signer, err = snapshot.NewSigner("dev", private); err != nil {
		t.Fatal(err)
	}
	if p.verifier, err = snapshot.NewVerifier("dev", public); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p plane) open(path string) *Snapshot {
	p.t.Helper()
	s, err := Open(p.t.Context(), path, p.verifier)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// whole has a snapshot take up a version that comes whole.
func (p plane) whole(s *Snapshot, version int64) {
	p.t.Helper()
	signed, err := p.signer.Sign(&registryv1.Snapshot{Plane: "dev", Version: version})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := s.Accept(p.t.Context(), signed); err != nil {
		p.t.Fatal(err)
	}
}

// change has it take up the change to a version.
func (p plane) change(s *Snapshot, version int64) {
	p.t.Helper()
	signed, err := p.signer.SignChange(&registryv1.SnapshotChange{Plane: "dev", FromVersion: version - 1, Version: version})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := s.AcceptChange(p.t.Context(), signed); err != nil {
		p.t.Fatal(err)
	}
}

// block has a file take no writes, as on a disk that is full, until it is given back.
func block(t *testing.T, file string) (giveBack func()) {
	t.Helper()
	aside := file + ".aside"
	if err := os.Rename(file, aside); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// What could not be written leaves no gap on disk: nothing goes after it, nobody is told that it is there, and it is wanted whole until it is.
func TestNothingIsKeptAfterWhatCouldNotBeWritten(t *testing.T) {
	p, path := newPlane(t), filepath.Join(t.TempDir(), "snapshot")
	s := p.open(path)
	holds := func(when string, version, onDisk int64, whole bool) {
		t.Helper()
		if s.Version() != version || s.onDisk.Load() != onDisk || s.WantsWhole() != whole {
			t.Errorf("%s it routes by version %d, has %d on disk, wants the snapshot whole: %t; want %d, %d, %t", when, s.Version(), s.onDisk.Load(), s.WantsWhole(), version, onDisk, whole)
		}
		if again := p.open(path); again.Version() != onDisk {
			t.Errorf("%s whoever starts begins with version %d, %d is said to be on disk", when, again.Version(), onDisk)
		}
	}
	p.whole(s, 1)
	p.change(s, 2)
	holds("at first", 2, 2, false)

	changesBack := block(t, path+".changes")
	p.change(s, 3)
	wholeBack := block(t, path)
	p.whole(s, 3)
	changesBack()
	wholeBack()
	holds("when neither a change nor the whole one could be written", 3, 2, true)
	for v := int64(4); v < 7; v++ {
		p.change(s, v)
	}
	holds("with changes after those", 6, 2, true)
	p.whole(s, 6)
	holds("when the whole one could be written", 6, 6, false)
	p.change(s, 7)
	holds("and a change after that", 7, 7, false)
}
