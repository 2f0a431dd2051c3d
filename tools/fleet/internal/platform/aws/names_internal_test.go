package aws

import (
	"testing"

	"a3os.app/deploy/blueprint"
)

// What is a task besides a set's components is called as none of them may be.
func TestNoComponentHasANameOfThePlatforms(t *testing.T) {
	for _, scope := range []blueprint.Scope{blueprint.ScopeTenant, blueprint.ScopePlane} {
		for _, name := range (&Platform{}).KeptBeside() {
			if blueprint.Taken(scope)[name] == "" {
				t.Errorf("a component of scope %s may be called %s", scope, name)
			}
		}
	}
}
