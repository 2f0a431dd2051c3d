package docker

import (
	"slices"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// What stands in a network, runs in a container or has a user besides a set's components is called as none of them may be.
func TestNoComponentHasANameOfThePlatforms(t *testing.T) {
	plane, tenant := blueprint.Taken(blueprint.ScopePlane), blueprint.Taken(blueprint.ScopeTenant)
	for _, name := range []string{postgresComponent, databasesUnit, sampleUnit, frontUnit, local.Migrator} {
		if plane[strings.TrimPrefix(name, "plane/")] == "" {
			t.Errorf("a component of the plane may be called %s", name)
		}
	}
	own, err := blueprint.Plane()
	if err != nil {
		t.Fatal(err)
	}
	kept := (&Platform{Own: platform.Set{Blueprint: own}}).KeptBeside()
	for _, name := range kept {
		if tenant[name] == "" {
			t.Errorf("a component of a tenant may be called %s", name)
		}
	}
	for _, c := range own.Components {
		if !slices.Contains(kept, c.Name) {
			t.Errorf("a tenant's component may have the address of the plane's %s in its network, and nobody is told", c.Name)
		}
	}
}
