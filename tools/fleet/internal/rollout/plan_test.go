package rollout_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/rollout"
)

// A number of requests is promised only of sets that can be asked, for else a quiet tenant would be waited for without an end.
func TestRequestsAreCountedOfSetsThatCanBeAsked(t *testing.T) {
	for name, c := range map[string]struct {
		answers string
		samples int64
		refused bool
	}{
		"one that answers":            {"/up", 100, false},
		"one that nobody can ask":     {"", 100, true},
		"one of which none is wanted": {"", 0, false},
	} {
		q := rollout.Request{Blueprint: &blueprint.Blueprint{Name: "notes", Answers: c.answers}, Samples: c.samples, Rollback: "wave", MaxParallel: 1}
		p, err := q.Waves([]*registryv1.TenantStatus{{Tenant: &registryv1.Tenant{Id: "tnt_1"}}})
		if refused := fault.KindOf(err) == fault.InvalidArgument && strings.Contains(err.Error(), "blueprint notes") && strings.Contains(err.Error(), "--samples 0"); refused != c.refused {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if err == nil && p.GetSamples() != c.samples {
			t.Errorf("%s: %d samples", name, p.GetSamples())
		}
	}
}

// A tenant that another rollout left on its way, before anything was started, is planned for once that is given up: it doesn't run what it is said to.
func TestTenantThatWasLeftOnItsWayIsPlannedForOnceThatIsGivenUp(t *testing.T) {
	left := func(change func(*registryv1.Operation)) *registryv1.Operation {
		o := &registryv1.Operation{Id: "opr_1", TenantId: "tnt_1", RolloutId: "rol_1", ReleaseFrom: "1.3.0", ReleaseTo: "1.4.0",
			Steps: []*registryv1.Step{{Name: "fetch", Attempts: 1}, {Name: "start"}}}
		change(o)
		return o
	}
	for name, c := range map[string]struct {
		operation *registryv1.Operation
		refused   bool
	}{
		"left at fetch":        {left(func(*registryv1.Operation) {}), true},
		"left at start":        {left(func(o *registryv1.Operation) { o.Steps[1].Attempts = 1 }), false},
		"left before it began": {left(func(o *registryv1.Operation) { o.Steps[0].Attempts = 0 }), false},
		"another tenant's":     {left(func(o *registryv1.Operation) { o.TenantId = "tnt_2" }), false},
		"of no rollout":        {left(func(o *registryv1.Operation) { o.RolloutId = "" }), false},
		"somebody works on it": {left(func(o *registryv1.Operation) {
			o.Lease = &registryv1.Lease{ExpiresAt: timestamppb.New(time.Now().Add(time.Minute))}
		}), false},
		"nobody works on it more": {left(func(o *registryv1.Operation) {
			o.Lease = &registryv1.Lease{ExpiresAt: timestamppb.New(time.Now().Add(-time.Minute))}
		}), true},
	} {
		q := rollout.Request{Blueprint: &blueprint.Blueprint{Name: "notes", Answers: "/up"}, Rollback: "wave", MaxParallel: 1, Unfinished: []*registryv1.Operation{c.operation}}
		_, err := q.Waves([]*registryv1.TenantStatus{{Tenant: &registryv1.Tenant{Id: "tnt_1", Slug: "acme"}}})
		if refused := fault.KindOf(err) == fault.FailedPrecondition && strings.Contains(err.Error(), "fleet operation abort opr_1"); refused != c.refused || err != nil && !refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
