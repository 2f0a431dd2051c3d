package rollout_test

import (
	"strings"
	"testing"

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
