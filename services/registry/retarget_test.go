package registry_test

import (
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Where nothing goes back by itself, the way out of a bad release is another target. A tenant that failed before anything of the bad one was started
// runs the one before as soon as that is given up, and a plan that leads from the bad one would have it taken for changed by somebody else, for ever.
func TestTargetThatLeadsFromWhatWasNeverStartedIsRefused(t *testing.T) {
	t.Parallel()
	const begun, done = registryv1.StepState_STEP_STATE_BEGUN, registryv1.StepState_STEP_STATE_DONE
	for name, c := range map[string]struct {
		// steps that the attempt came to before it failed; the last one isn't done.
		steps   []string
		refused bool
	}{
		"it fetched":  {[]string{"fetch"}, true},
		"it started":  {[]string{"fetch", "start"}, false},
		"it did none": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWaved(t, "acme")
			w.register("1.2.0", "sha256:"+strings.Repeat("3", 64))
			newest := "1.2.0@sha256:" + strings.Repeat("3", 64)
			plan := w.planned(newer, "acme")
			plan.Rollout.Rollback = registryv1.RollbackScope_ROLLBACK_SCOPE_NONE
			r := w.begun(plan)
			w.moved("acme", toChanging, "")
			op, err := w.part(w.lease, upgradeKind, "acme", newer, "fetch", "start", "confirm")
			if err != nil {
				t.Fatal(err)
			}
			lease := w.take(op.GetId())
			for i, step := range c.steps {
				if err := w.record(lease, step, begun); err != nil {
					t.Fatal(err)
				}
				if i+1 < len(c.steps) {
					if err := w.record(lease, step, done); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.moved("acme", toFailed, "there is no such program")
			retarget := func() error {
				hash := w.put(w.planned(newest, "acme")).GetHash()
				_, err := w.rolls.RetargetRollout(t.Context(), &registryv1.RetargetRolloutRequest{RolloutId: r.GetId(), PlanHash: hash, Reason: "1.1.0 has a hole"})
				return err
			}
			abort := func() {
				if _, err := w.ops.AbortOperation(t.Context(), &registryv1.AbortOperationRequest{OperationId: op.GetId(), LeaseToken: lease.GetLeaseToken(), Reason: "1.1.0 has a hole"}); err != nil {
					t.Fatal(err)
				}
			}
			err = retarget()
			if c.refused {
				wantReason(t, err, "PLAN_STALE", "a plan from what was never started")
				if err != nil && !strings.Contains(err.Error(), "fleet operation abort "+op.GetId()) {
					t.Errorf("it is refused without a way on: %v", err)
				}
				abort()
				err = retarget()
			} else {
				abort() // as whoever carries the rollout on does
			}
			if err != nil {
				t.Fatal(err)
			}
			w.resume()
			w.moved("acme", toChanging, "")
			if _, err := w.part(w.lease, upgradeKind, "acme", newest, "fetch", "start", "confirm"); err != nil {
				t.Errorf("the other target: %v", err)
			}
		})
	}
}
