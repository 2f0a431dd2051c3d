// Package rollout is the rules of a rollout: which tenants may be begun, which go back, when a tenant has passed. It promises that the
// registry, which refuses what the rules don't allow, and whoever carries a rollout out decide by the same ones. It relies on its
// callers for the time, and for a rollout that is read whole.
package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// States in short.
const (
	pending     = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING
	changing    = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING
	baking      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING
	passed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED
	failed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED
	rollingBack = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK
	rolledBack  = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
	skipped     = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_SKIPPED
)

// Check says what is wrong with a policy for these tenants: each is in one wave, and no other is in any.
func Check(p *registryv1.RolloutPolicy, tenants []string) error {
	names, in := map[string]bool{}, map[string]string{}
	for _, w := range p.GetWaves() {
		if names[w.GetName()] {
			return fmt.Errorf("two waves are called %s", w.GetName())
		}
		names[w.GetName()] = true
		for _, t := range w.GetTenantIds() {
			if other, ok := in[t]; ok {
				return fmt.Errorf("tenant %s is in two waves, %s and %s", t, other, w.GetName())
			}
			in[t] = w.GetName()
			if !slices.Contains(tenants, t) {
				return fmt.Errorf("wave %s has tenant %s, of whom the plan says nothing", w.GetName(), t)
			}
		}
	}
	for _, t := range tenants {
		if _, ok := in[t]; !ok {
			return fmt.Errorf("tenant %s is in no wave", t)
		}
	}
	if p.GetMaxParallel() < 1 {
		return fmt.Errorf("at most %d tenants at once: it is 1 or more", p.GetMaxParallel())
	}
	for _, w := range p.GetWindows() {
		if err := checkWindow(w); err != nil {
			return err
		}
	}
	return nil
}

// Done says whether a tenant needs nothing more: it passed, or was left out.
func Done(t *registryv1.RolloutTenant) bool {
	return t.GetState() == passed || t.GetState() == skipped
}

// Complete says whether every tenant is done.
func Complete(r *registryv1.Rollout) bool {
	return !slices.ContainsFunc(r.GetTenants(), func(t *registryv1.RolloutTenant) bool { return !Done(t) })
}

// Wave is the wave that is under way: the first with a tenant that isn't done, or how many there are.
func Wave(r *registryv1.Rollout) int32 {
	wave := int32(len(r.GetPolicy().GetWaves())) //nolint:gosec // G115: at most 200
	for _, t := range r.GetTenants() {
		if !Done(t) {
			wave = min(wave, t.GetWave())
		}
	}
	return wave
}

// Startable are the tenants that may be begun now, in their order. Where there is none although some wait, it says for what.
func Startable(r *registryv1.Rollout, now time.Time) (tenants []*registryv1.RolloutTenant, waitsFor string) {
	wave, under := Wave(r), 0
	var watched int
	for _, t := range r.GetTenants() {
		switch {
		case t.GetState() == changing || t.GetState() == rollingBack:
			under++
		case t.GetState() == baking:
			watched++
		case t.GetState() == pending && t.GetWave() == wave:
			tenants = append(tenants, t)
		}
	}
	switch {
	case Complete(r):
		return nil, ""
	case r.GetState() == registryv1.RolloutState_ROLLOUT_STATE_PAUSED:
		return nil, "somebody to resume it: it is paused"
	case r.GetState() != registryv1.RolloutState_ROLLOUT_STATE_RUNNING:
		return nil, "an operator: it does not run"
	case len(tenants) == 0:
		return nil, fmt.Sprintf("wave %s: %d are changed, %d are watched", waveName(r, wave), under, watched)
	}
	if open, why := Open(r.GetPolicy().GetWindows(), now); !open {
		return nil, why
	}
	free := int(r.GetPolicy().GetMaxParallel()) - under
	if free <= 0 {
		return nil, fmt.Sprintf("%d tenants that are changed, which is as many as may be at once", under)
	}
	return tenants[:min(free, len(tenants))], ""
}

func waveName(r *registryv1.Rollout, wave int32) string {
	if waves := r.GetPolicy().GetWaves(); int(wave) < len(waves) {
		return waves[wave].GetName()
	}
	return "none"
}

// Back are the tenants that the policy wants back at the release before, and that are not there yet. Nobody goes back who was never
// touched, or because of one who was never touched, and nobody while the rollout has not halted.
func Back(r *registryv1.Rollout) []*registryv1.RolloutTenant {
	if r.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED {
		return nil
	}
	scope := r.GetPolicy().GetRollback()
	broken := map[int32]bool{}
	for _, t := range r.GetTenants() {
		if t.GetState() == failed && begun(t) || t.GetState() == rollingBack || t.GetState() == rolledBack {
			broken[t.GetWave()] = true
		}
	}
	var out []*registryv1.RolloutTenant
	for _, t := range r.GetTenants() {
		touched := t.GetState() == baking || t.GetState() == passed
		switch {
		case t.GetState() == rollingBack,
			t.GetState() == failed && begun(t) && scope != registryv1.RollbackScope_ROLLBACK_SCOPE_NONE,
			touched && scope == registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE && broken[t.GetWave()],
			touched && scope == registryv1.RollbackScope_ROLLBACK_SCOPE_ALL && len(broken) > 0:
			out = append(out, t)
		}
	}
	return out
}

// begun says that an operation of the rollout was begun on a tenant, in this attempt.
func begun(t *registryv1.RolloutTenant) bool { return t.GetOperationId() != "" }

// Differs says in what a tenant is not as the rollout knows it, which somebody else made it since the rollout was approved, and what is left to
// do; empty where it is. A rollout neither brings such a tenant on nor takes it back: it would undo what others did for a reason.
func Differs(r *registryv1.Rollout, t *registryv1.RolloutTenant, state registryv1.TenantState, release string) string {
	var is string
	switch {
	case state != registryv1.TenantState_TENANT_STATE_ACTIVE:
		is = "is " + strings.ToLower(strings.TrimPrefix(state.String(), "TENANT_STATE_"))
	case release == t.GetReleaseFrom(), release == r.GetRelease() && (begun(t) || t.GetAttempts() > 1):
		return ""
	default:
		is = "runs " + release
	}
	return fmt.Sprintf("tenant %[1]s %[2]s, and the rollout was to bring it from %[3]s to %[4]s: somebody else changed it since, and it is left as it is. "+
		"Leave it out with fleet rollout skip %[5]s %[1]s --reason '…', or change it back; then go on with fleet rollout resume %[5]s --reason '…'",
		t.GetSlug(), is, t.GetReleaseFrom(), r.GetRelease(), r.GetId())
}

// SetsBack says whether giving an operation up has its tenant's set meant to run the release of before again: it was begun, and none of the programs
// that it leads to was started. What is planned for that tenant meanwhile leads from a release that it doesn't run.
func SetsBack(o *registryv1.Operation) bool {
	const start = "start"
	begun, started := false, false
	for _, s := range o.GetSteps() {
		begun = begun || s.GetAttempts() > 0
		started = started || s.GetAttempts() > 0 && s.GetName() == start
	}
	return o.GetReleaseFrom() != "" && o.GetReleaseFrom() != o.GetReleaseTo() && begun && !started
}

// Silent is how long a set that is watched may say nothing: what it said before that says nothing of how it is.
const Silent = 90 * time.Second

// Runs says whether every component of a set itself reports a release, healthy, and has done so since a time: a report from before
// counts for nothing. components are those that the set is known to have. Where it doesn't, why says what is missing.
func Runs(release string, since time.Time, components []string, reports []*registryv1.ComponentReport) (ok bool, why string) {
	heard := map[string]bool{}
	for _, r := range reports {
		heard[r.GetName()] = true
		switch {
		case !r.GetReportedAt().AsTime().After(since):
			return false, fmt.Sprintf("%s has not reported since %s", r.GetName(), since.UTC().Format(time.RFC3339))
		case r.GetHealth() != registryv1.Health_HEALTH_SERVING:
			return false, r.GetName() + " does not serve"
		case r.GetRelease() != release:
			return false, fmt.Sprintf("%s says that it runs %s", r.GetName(), r.GetRelease())
		}
	}
	for _, c := range components {
		if !heard[c] {
			return false, c + " has not reported"
		}
	}
	return len(components) > 0 || len(reports) > 0, "nothing has reported"
}

// Passes says whether a tenant that is watched has passed: long enough, asked often enough, and running the release. Where it hasn't,
// why says what is missing. samples are the requests that it answered since its change.
func Passes(p *registryv1.RolloutPolicy, t *registryv1.RolloutTenant, samples int64, now time.Time) (ok bool, why string) {
	if left := t.GetSince().AsTime().Add(p.GetBake().AsDuration()).Sub(now); left > 0 {
		return false, fmt.Sprintf("it is watched for another %s", left.Round(time.Second))
	}
	if samples < p.GetSamples() {
		return false, fmt.Sprintf("it answered %d of %d requests", samples, p.GetSamples())
	}
	return true, ""
}
