package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/rollout"
	"a3os.app/tools/fleet/internal/plan"
)

// Request is what somebody wants rolled out.
type Request struct {
	// Release to lead to: a name, or a version that the registry knows.
	Release string
	// Selection of tenants.
	Selection plan.Selection
	// Size bounds a wave: a number of tenants, or a share of the ring as `25%`; empty has each ring be one wave.
	Size string
	// MaxParallel tenants are changed at once.
	MaxParallel int32
	// Bake and Samples are how long, and over how many requests, each tenant is watched.
	Bake    time.Duration
	Samples int64
	// Gates that it must stay within.
	Gates *registryv1.Gates
	// Rollback is none, tenant, wave or all.
	Rollback string
	// Allow and Deny are windows.
	Allow, Deny []string
	// Blueprint of the sets, which says whether probes can ask them anything.
	Blueprint *blueprint.Blueprint
	// Unfinished operations of the plane's tenants.
	Unfinished []*registryv1.Operation
	// Reason of it, 10 to 500 characters.
	Reason string
}

// Waves says how the chosen are brought to the release: each ring in waves, in the order of its tenants' ids. A label that chose nobody is
// refused: a ring of it would be left out, and nobody would know.
func (q Request) Waves(chosen []*registryv1.TenantStatus) (*registryv1.RolloutPolicy, error) {
	for _, label := range q.Selection.Without(chosen) {
		return nil, fault.New(fault.NotFound, "%q chooses no tenant that can be brought to a release: see fleet tenant list", label)
	}
	if q.Samples > 0 && q.Blueprint.Answers == "" {
		return nil, fault.New(fault.InvalidArgument, "blueprint %s says nothing that anybody may ask a set (answers), so no probe can ask what users don't: plan with --samples 0, "+
			"which has each tenant watched for its --bake", q.Blueprint.Name)
	}
	if err := q.leadOn(chosen); err != nil {
		return nil, err
	}
	scope, ok := registryv1.RollbackScope_value["ROLLBACK_SCOPE_"+strings.ToUpper(q.Rollback)]
	if !ok || scope == 0 {
		return nil, fault.New(fault.InvalidArgument, "--rollback is %q: it is none, tenant, wave or all", q.Rollback)
	}
	policy := &registryv1.RolloutPolicy{
		MaxParallel: q.MaxParallel, Bake: durationpb.New(q.Bake), Samples: q.Samples, Gates: q.Gates, Rollback: registryv1.RollbackScope(scope),
	}
	for _, w := range [][]string{q.Allow, q.Deny} {
		for _, text := range w {
			window, err := rollout.ParseWindow(text, slices.Contains(q.Deny, text))
			if err != nil {
				return nil, fault.New(fault.InvalidArgument, "%v", err)
			}
			policy.Windows = append(policy.Windows, window)
		}
	}
	by := map[string][]string{}
	for _, s := range chosen {
		ring := plan.RingOf(s.GetTenant())
		by[ring] = append(by[ring], s.GetTenant().GetId())
	}
	for _, ring := range plan.Rings {
		slices.Sort(by[ring])
		waves, err := q.split(ring, by[ring])
		if err != nil {
			return nil, err
		}
		policy.Waves = append(policy.Waves, waves...)
		delete(by, ring)
	}
	for ring := range by {
		return nil, fault.New(fault.InvalidArgument, "there is no ring %q: it is canary, early or general", ring)
	}
	return policy, nil
}

// leadOn refuses a tenant that another rollout left on its way to a release of which nothing was started: it is at the one before as soon as that is
// given up, and the plan would lead from where it isn't. What somebody works on may get there yet.
func (q Request) leadOn(chosen []*registryv1.TenantStatus) error {
	for _, s := range chosen {
		for _, o := range q.Unfinished {
			if o.GetTenantId() != s.GetTenant().GetId() || o.GetRolloutId() == "" || !rollout.SetsBack(o) || o.GetLease().GetExpiresAt().AsTime().After(time.Now()) {
				continue
			}
			return fault.New(fault.FailedPrecondition, "rollout %s left %s on its way to %s, of which nothing was started: give that up with fleet operation abort %s --reason '…', and plan then",
				o.GetRolloutId(), s.GetTenant().GetSlug(), o.GetReleaseTo(), o.GetId())
		}
	}
	return nil
}

// split divides a ring into waves.
func (q Request) split(ring string, tenants []string) ([]*registryv1.Wave, error) {
	if len(tenants) == 0 {
		return nil, nil
	}
	size := len(tenants)
	if q.Size != "" {
		text, isShare := strings.CutSuffix(q.Size, "%")
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || isShare && n > percent {
			return nil, fault.New(fault.InvalidArgument, "--wave-size is %q: it is a number of tenants, or a share of the ring as 25%%", q.Size)
		}
		size = n
		if isShare {
			size = (len(tenants)*n + percent - 1) / percent
		}
	}
	var out []*registryv1.Wave
	for part := range slices.Chunk(tenants, size) {
		out = append(out, &registryv1.Wave{Name: ring, TenantIds: part})
	}
	if len(out) > 1 {
		for i := range out {
			out[i].Name = fmt.Sprintf("%s-%d", ring, i+1)
		}
	}
	return out, nil
}
