package plane

import (
	"errors"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
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

// A version that the registry doesn't know any more is made again by what sets of it run by, and not by what fleet has now.
func TestVersionThatRunsHereIsMadeAgainByItsOwnBlueprint(t *testing.T) {
	s, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &Plane{state: s, blueprint: &blueprint.Blueprint{Digest: "own"}, platform: &local.Platform{Settings: settings.Settings{Home: t.TempDir()}}}
	const digest = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	if err := errors.Join(s.SetRuns("of before", "1.3.0"+digest, ""), s.SetRuns("own", "1.4.0"+digest, "own"), s.SetRuns("forgot", "1.4.0"+digest, ""), s.SetRuns("earlier", "1.2.0"+digest, "not here")); err != nil {
		t.Fatal(err)
	}
	for version, says := range map[string]string{"1.3.0": "--blueprint", "1.2.0": "not here", "1.4.0": "", "1.5.0": ""} {
		b, err := p.ranBy(version)
		if says == "" {
			if err != nil || b != p.blueprint {
				t.Errorf("%s: %v, %v", version, b, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v, want it to say %q", version, b, err, says)
		}
	}
}
