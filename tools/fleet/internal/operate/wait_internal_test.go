package operate

import (
	"context"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// runningSet is a platform that has so many components of the set running. That real ones say so, their own tests see.
type runningSet struct {
	platform.Platform
	components int
}

func (r runningSet) Components(context.Context, platform.Set) ([]platform.ComponentStatus, error) {
	return make([]platform.ComponentStatus, r.components), nil
}

// Whoever stayed after all, and whose registry was restored from a backup in which they leave, is served by a set that the operation says it stopped:
// nothing is destroyed of them, whoever takes it up. One that was killed in the midst of destroying goes on.
func TestOffboardingDestroysNothingOfASetThatRuns(t *testing.T) {
	const done, begun, failed, none = registryv1.StepState_STEP_STATE_DONE, registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_FAILED,
		registryv1.StepState_STEP_STATE_UNSPECIFIED
	for name, c := range map[string]struct {
		kind        registryv1.OperationKind
		stop, shred registryv1.StepState
		components  int
		refused     bool
	}{
		"stopped, and runs again":             {offboard, done, none, 1, true},
		"stopped, and is":                     {offboard, done, none, 0, false},
		"is to be stopped":                    {offboard, none, none, 5, false},
		"was being stopped":                   {offboard, begun, none, 2, false},
		"could not be stopped":                {offboard, failed, none, 2, false},
		"its keys were begun to be destroyed": {offboard, done, begun, 1, false},
		"its keys are destroyed":              {offboard, done, done, 1, false},
		"is suspended":                        {suspend, done, none, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			op := &registryv1.Operation{Id: "opr_1", Kind: c.kind, Steps: []*registryv1.Step{{Name: StepStop, State: c.stop}, {Name: StepShred, State: c.shred}}}
			w := &work{Engine: &Engine{Platform: runningSet{components: c.components}, Blueprint: &blueprint.Blueprint{}}, op: op, looked: true,
				tenant: &registryv1.TenantStatus{Tenant: &registryv1.Tenant{Id: id.NewTenant().String(), Slug: "acme"}}}
			err := w.look(t.Context())
			if !c.refused {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if fault.KindOf(err) != fault.FailedPrecondition {
				t.Fatalf("it goes on: %v", err)
			}
			for _, next := range []string{"fleet operation abort opr_1", "fleet plan resume --tenant acme", "fleet repair --tenant acme"} {
				if !strings.Contains(err.Error(), next) {
					t.Errorf("it says nothing of %s: %v", next, err)
				}
			}
		})
	}
}
