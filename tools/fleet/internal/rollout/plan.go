package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/rollout"
)

// Ring is the label that waves are made by.
const Ring = "ring"

// Rings in the order in which they are brought to a release. A tenant without the label is of the last.
var rings = []string{"canary", "early", "general"}

// Request is what somebody wants rolled out.
type Request struct {
	// Release to lead to: a name, or a version that the registry knows.
	Release string
	// Tenants by slug or id, and Labels as name=value: whose are chosen. One of them must be named.
	Tenants, Labels []string
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
	// Reason of it, 10 to 500 characters.
	Reason string
}

// Selectors are how the tenants were chosen, as they were written.
func (q Request) Selectors() []string {
	var out []string
	for _, t := range q.Tenants {
		out = append(out, "--tenant "+t)
	}
	for _, l := range q.Labels {
		out = append(out, "--label "+l)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Waves chooses the tenants, in the order of their ids, and says how they are brought to the release.
func (q Request) Waves(all []*registryv1.TenantStatus) (chosen []*registryv1.TenantStatus, policy *registryv1.RolloutPolicy, err error) {
	if chosen, err = q.choose(all); err != nil {
		return nil, nil, err
	}
	scope, ok := registryv1.RollbackScope_value["ROLLBACK_SCOPE_"+strings.ToUpper(q.Rollback)]
	if !ok || scope == 0 {
		return nil, nil, fault.New(fault.InvalidArgument, "--rollback is %q: it is none, tenant, wave or all", q.Rollback)
	}
	policy = &registryv1.RolloutPolicy{
		MaxParallel: q.MaxParallel, Bake: durationpb.New(q.Bake), Samples: q.Samples, Gates: q.Gates, Rollback: registryv1.RollbackScope(scope),
	}
	for _, w := range [][]string{q.Allow, q.Deny} {
		for _, text := range w {
			window, err := rollout.ParseWindow(text, slices.Contains(q.Deny, text))
			if err != nil {
				return nil, nil, fault.New(fault.InvalidArgument, "%v", err)
			}
			policy.Windows = append(policy.Windows, window)
		}
	}
	by := map[string][]string{}
	for _, s := range chosen {
		ring := cmp.Or(s.GetTenant().GetLabels()[Ring], rings[len(rings)-1])
		by[ring] = append(by[ring], s.GetTenant().GetId())
	}
	for _, ring := range rings {
		waves, err := q.split(ring, by[ring])
		if err != nil {
			return nil, nil, err
		}
		policy.Waves = append(policy.Waves, waves...)
		delete(by, ring)
	}
	for ring := range by {
		return nil, nil, fault.New(fault.InvalidArgument, "there is no ring %q: it is canary, early or general", ring)
	}
	return chosen, policy, nil
}

func (q Request) choose(all []*registryv1.TenantStatus) ([]*registryv1.TenantStatus, error) {
	if len(q.Tenants)+len(q.Labels) == 0 {
		return nil, fault.New(fault.InvalidArgument, "say which tenants: --tenant NAME or --label name=value; nothing chooses all of them")
	}
	found := map[string]bool{}
	var chosen []*registryv1.TenantStatus
	for _, s := range all {
		t, is := s.GetTenant(), false
		for _, name := range q.Tenants {
			if name == t.GetSlug() || name == t.GetId() {
				is, found[name] = true, true
			}
		}
		for _, label := range q.Labels {
			name, value, ok := strings.Cut(label, "=")
			if !ok || value == "" || strings.ContainsAny(label, "*?%") {
				return nil, fault.New(fault.InvalidArgument, "the label %q is not of the form name=value", label)
			}
			if t.GetLabels()[name] == value && t.GetState() == registryv1.TenantState_TENANT_STATE_ACTIVE {
				is, found[label] = true, true
			}
		}
		if is {
			chosen = append(chosen, s)
		}
	}
	for _, selector := range slices.Concat(q.Tenants, q.Labels) {
		if !found[selector] {
			return nil, fault.New(fault.NotFound, "%q chooses no tenant: see fleet tenant list", selector)
		}
	}
	slices.SortFunc(chosen, func(a, b *registryv1.TenantStatus) int {
		return cmp.Compare(a.GetTenant().GetId(), b.GetTenant().GetId())
	})
	return chosen, nil
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
