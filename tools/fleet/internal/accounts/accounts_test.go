package accounts

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func TestPickedIDIsNobodys(t *testing.T) {
	if len(mappedSpans()) == 0 {
		t.Skip("this user namespace maps none of the ids that are looked for")
	}
	ids, err := Pick(t.Context(), 0, 3)
	if err != nil || len(ids) != 3 {
		t.Fatalf("asked for three: %v (%v)", ids, err)
	}
	for i, id := range ids {
		if !within(spans, id) || slices.Contains(ids[:i], id) {
			t.Errorf("of %v, %d is outside of what is looked through, or was picked twice", ids, id)
		}
	}
	last := ids[2]
	next, err := Pick(t.Context(), last+1, 1)
	if err != nil || len(next) != 1 || next[0] <= last || next[0] > last+100 {
		t.Errorf("near %d the next is %v (%v)", last+1, next, err)
	}
	// Root has an entry as a user and as a group: of several, it alone is left out.
	if free, err := nobodys(t.Context(), []uint32{last, 0, last + 1}); err != nil || !slices.Equal(free, []uint32{last, last + 1}) {
		t.Errorf("of %d, 0 and %d nobody's are %v (%v)", last, last+1, free, err)
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
