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

// A set of a release of before is put back, and its lost store emptied, by the statements that its product has by now, and by its own blueprint in all
// else; that of another product is left alone, and so is a store that is another one by now.
func TestReleaseOfBeforeIsMendedByTheStatementsOfNow(t *testing.T) {
	stores := func(emptied string) map[string]blueprint.Store {
		return map[string]blueprint.Store{
			"secrets": {Kind: blueprint.StoreSecret, Named: "SELECT 1", Emptied: emptied},
			"others":  {Kind: blueprint.StoreSecret, Named: "SELECT " + emptied, Emptied: emptied},
		}
	}
	now := &blueprint.Blueprint{Name: "accessos", Digest: "now", Backup: &blueprint.Backup{Key: "backup", PutBack: "SELECT 1"}, Stores: stores("UPDATE t")}
	then := &blueprint.Blueprint{Name: "accessos", Digest: "then", Backup: &blueprint.Backup{Key: "old"}, Stores: stores("")}
	got := mended(then, now)
	if got.Backup.PutBack != "SELECT 1" || got.Backup.Key != "old" || got.Digest != "then" {
		t.Errorf("it is put back by %+v of %s", got.Backup, got.Digest)
	}
	if got.Stores["secrets"].Emptied != "UPDATE t" || got.Stores["others"].Emptied != "" {
		t.Errorf("its stores are emptied by %+v", got.Stores)
	}
	if then.Backup.PutBack != "" || then.Stores["secrets"].Emptied != "" {
		t.Errorf("what is kept was changed: %+v %+v", then.Backup, then.Stores)
	}
	own := &blueprint.Blueprint{Name: "accessos", Backup: &blueprint.Backup{PutBack: "SELECT 2"}, Stores: stores("DELETE")}
	if got := mended(own, now); got.Backup.PutBack != "SELECT 2" || got.Stores["secrets"].Emptied != "DELETE" {
		t.Errorf("its own statements are not its own any more: %+v %+v", got.Backup, got.Stores)
	}
	if none := mended(&blueprint.Blueprint{Name: "accessos"}, now); none.Backup != nil || len(none.Stores) != 0 {
		t.Errorf("what isn't backed up is %+v", none)
	}
	other := &blueprint.Blueprint{Name: "notes", Backup: &blueprint.Backup{}}
	if mended(other, now) != other {
		t.Error("another product's is mended")
	}
}
