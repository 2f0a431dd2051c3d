package accounts

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestPickedIDIsNobodys(t *testing.T) {
	if len(mappedSpans()) == 0 {
		t.Skip("this user namespace maps none of the ids that are looked for")
	}
	id, err := Pick(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !within(spans, id) {
		t.Errorf("%d is outside of what is looked through", id)
	}
	next, err := Pick(t.Context(), id+1)
	if err != nil || next <= id || next > id+100 {
		t.Errorf("near %d the next is %d (%v)", id+1, next, err)
	}
	for _, known := range []uint32{0, uint32(os.Getuid())} { //nolint:gosec // an id
		if free, err := nobodys(t.Context(), known); err != nil || free && known == 0 {
			t.Errorf("id %d is taken for nobody's (%v)", known, err)
		}
	}
	if !runningIDs()[uint32(os.Getuid())] { //nolint:gosec // an id
		t.Error("this process's own user is said to run nothing")
	}
}

func TestLentAndUnmappedIDsAreLeftOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(file, []byte("alice:100000:65536\n\nbroken\nbob:2001000000:10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lent := lentIDs(file)
	for id, want := range map[uint32]bool{99999: false, 100000: true, 165535: true, 165536: false, 2001000009: true, 2001000010: false} {
		if within(lent, id) != want {
			t.Errorf("%d: lent is %v, want %v", id, !want, want)
		}
	}
	if err := os.WriteFile(file, []byte("         0       1000          1\n         1     100000      65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rootless := mapped(file)
	if covers(rootless, spans[0]) || !covers(rootless, spans[1]) {
		t.Errorf("a namespace of %v covers %v and not %v, as it is read", strconv.Itoa(65537), spans[0], spans[1])
	}
}
