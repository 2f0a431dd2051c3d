package accounts

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestPickedIDIsNobodys(t *testing.T) {
	if len(mappedSpans()) == 0 {
		t.Skip("this user namespace maps none of the ids that are looked for")
	}
	ids, err := Pick(t.Context(), 0, 0, 3)
	if err != nil || len(ids) != 3 {
		t.Fatalf("asked for three: %v (%v)", ids, err)
	}
	for i, id := range ids {
		if !within(spans, id) || slices.Contains(ids[:i], id) {
			t.Errorf("of %v, %d is outside of what is looked through, or was picked twice", ids, id)
		}
	}
	last := ids[2]
	next, err := Pick(t.Context(), last+1, ids[0], 1)
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

// A span of ten ids is looked through where the small one is: in a user namespace of 65536 ids that is all that a plane can choose from.
func TestIDsAreLookedForAllRoundAndNoneIsGivenTwice(t *testing.T) {
	small := Span{65_000, 65_009}
	before := spans
	spans = []Span{small}
	defer func() { spans = before }()
	if len(mappedSpans()) == 0 {
		t.Skip("this user namespace maps none of the ids that are looked for")
	}
	for _, tc := range []struct {
		near, before uint32
		n            int
		want         []uint32
	}{
		{65_003, 65_002, 3, []uint32{65_003, 65_004, 65_005}},
		{65_009, 65_004, 3, []uint32{65_009, 65_000, 65_001}},
		{65_010, 65_004, 4, []uint32{65_000, 65_001, 65_002, 65_003}}, // the span's last was the latest
		{65_010, 65_004, 5, nil},
		{65_002, 65_004, 2, []uint32{65_002, 65_003}},
		{65_002, 65_004, 3, nil},
		{65_004, 65_004, 1, nil},                             // all are given
		{65_010, 65_000, 1, nil},                             // all are given, from the span's first on
		{65_008, 2_001_000_000, 2, []uint32{65_008, 65_009}}, // a plane that began where more is mapped
		{65_008, 2_001_000_000, 3, nil},
		{2_001_000_009, 2_001_000_000, 1, nil}, // what the plane has is not mapped here
	} {
		got, err := Pick(t.Context(), tc.near, tc.before, tc.n)
		if !slices.Equal(got, tc.want) || (tc.want == nil) != errors.Is(err, ErrNone) {
			t.Errorf("%d from %d on, before %d: %v and not %v (%v)", tc.n, tc.near, tc.before, got, tc.want, err)
		}
	}
	if _, err := Pick(t.Context(), 65_002, 65_004, 3); !strings.Contains(err.Error(), "between 65000 and 65009: 3 are needed, and from 65002 on 2 of 10") {
		t.Errorf("it is not told what was looked through: %v", err)
	}
	if all, err := Pick(t.Context(), 0, 0, 10); err != nil || len(all) != 10 {
		t.Errorf("from anywhere, of ten there are %v (%v)", all, err)
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
