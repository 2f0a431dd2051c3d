package aws

import (
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// What is a task besides a set's components is called as none of them may be.
func TestNoComponentHasANameOfThePlatforms(t *testing.T) {
	for _, scope := range []blueprint.Scope{blueprint.ScopeTenant, blueprint.ScopePlane} {
		for _, name := range []string{stack.Migration, stack.OneOff} {
			if blueprint.Taken(scope)[name] == "" {
				t.Errorf("a component of scope %s may be called %s", scope, name)
			}
		}
	}
}
