package plane

import (
	"maps"
	"slices"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform/docker"
	"a3os.app/tools/fleet/internal/platform/local"
)

// A name that a platform keeps is told where it is this one, and no other.
func TestNamesAreToldThatThisPlatformKeeps(t *testing.T) {
	own, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	onDocker := &docker.Platform{}
	onDocker.Own.Blueprint = own
	for name, taken := range map[string]bool{"notes-gateway.yaml": true, "notes-sample.yaml": true, "notes-word.yaml": false} {
		b, err := local.TakenBefore(name, ofBefore(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := namesTaken(&local.Platform{}, b); len(got) != 0 {
			t.Errorf("%s on local: %v", name, got)
		}
		got := slices.Collect(maps.Keys(namesTaken(onDocker, b)))
		if want := []string{b.Components[0].Name}; taken != slices.Equal(got, want) {
			t.Errorf("%s on docker: %q", name, got)
		}
	}
}
