package plane

import (
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/state"
)

// What a fleet of before remembered, the release alone, says nothing of what it is made by, and fleet's own blueprint is no answer.
func TestReleaseWithoutItsBlueprintIsNotTakenForOneOfFleets(t *testing.T) {
	s, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &Plane{state: s, blueprint: &blueprint.Blueprint{Digest: "own"}}
	const digest = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for set, c := range map[string]struct {
		runs, by string
		refused  bool
	}{
		"registered":         {"1.4.0" + digest, "", true},
		"registered, by own": {"1.4.0" + digest, "own", false},
		"built here":         {"0.0.0-dev" + digest, "", false},
		"of an old form":     {"dev-1", "", false},
		"never started":      {},
	} {
		if c.runs != "" {
			if err := s.SetRuns(set, c.runs, c.by); err != nil {
				t.Fatal(err)
			}
		}
		b, err := p.remembered(set)
		if c.refused {
			if fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "fleet release register") {
				t.Errorf("%s: %v, %v", set, b, err)
			}
		} else if err != nil || b != p.blueprint {
			t.Errorf("%s: %v, %v", set, b, err)
		}
	}
}
