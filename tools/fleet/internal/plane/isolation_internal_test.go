package plane

import (
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/state"
)

// A tenant that is suspended, or waits to leave, keeps nobody from proving that the others are apart, and the proof says that it was not tried.
func TestWhoseSetDoesNotRunIsLeftOutOfAProofWhichSaysSo(t *testing.T) {
	s, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &Plane{state: s}
	for _, slug := range []string{"acme", "globex", "initech"} {
		if _, err := s.Remember(slug, id.Tenant{}, func(x *state.Tenant) { x.ID, x.Served, x.Suspended = id.NewTenant(), true, slug == "globex" }); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ named, tried, untried []string }{
		{nil, []string{"acme", "initech"}, []string{"globex was not tried, nor others at it: its set doesn't run"}},
		{[]string{"acme"}, []string{"acme"}, []string{"globex was not tried, nor others at it: its set doesn't run", "initech was not tried, nor others at it: it was not named"}},
	} {
		sets, untried, err := p.setsOf(c.named)
		var tried []string
		for _, set := range sets {
			tried = append(tried, set.Slug)
		}
		slices.Sort(tried)
		slices.Sort(untried)
		if err != nil || !slices.Equal(tried, c.tried) || !slices.Equal(untried, c.untried) {
			t.Errorf("of %q %q are tried, and it is said %q (%v)", c.named, tried, untried, err)
		}
	}
	if _, _, err := p.setsOf([]string{"acme", "globex"}); fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "globex") {
		t.Errorf("one that doesn't run, by name: %v", err)
	}
	if _, _, err := p.setsOf([]string{"nobody"}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("one that isn't there: %v", err)
	}
}
