package plane

import (
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/operate"
)

// Where a blueprint says nothing that anybody may ask a set, nothing is asked, and nothing counts as a request that was answered.
func TestSetThatNobodyCanAskIsNotProbed(t *testing.T) {
	if probe := (&Plane{blueprint: &blueprint.Blueprint{Name: "mute"}}).probe(); probe != nil {
		t.Error("it is probed")
	}
	if probe := (&Plane{blueprint: &blueprint.Blueprint{Name: "notes", Answers: "/up"}}).probe(); probe == nil {
		t.Error("one that answers is not probed")
	}
	if err := (operate.Front{}).Ask(t.Context()); err == nil {
		t.Error("what asked nothing heard that all is well")
	}
}
