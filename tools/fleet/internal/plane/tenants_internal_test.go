package plane

import (
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/supervise"
)

// A set serves when each of its components is there and serves, and no machine beside it says so for it.
func TestSetServesWhenAllOfItDoes(t *testing.T) {
	tenant := id.NewTenant()
	set := platform.Set{Tenant: tenant, Blueprint: &blueprint.Blueprint{Components: []blueprint.Component{{Name: "iam"}, {Name: "audit"}}}}
	unit := func(component string, state supervise.State) supervise.Status {
		return supervise.Status{Name: set.Name() + "/" + component, Group: set.Name(), State: state}
	}
	other := supervise.Status{Name: "plane/gateway", Group: "plane", State: supervise.NotAnswering}
	for want, processes := range map[string][]supervise.Status{
		"serving":                             {other, unit("iam", supervise.Serving), unit("audit", supervise.Serving)},
		"not started":                         {other, unit("machine-reader", supervise.Serving)},
		set.Name() + "/audit is not started":  {unit("iam", supervise.Serving)},
		set.Name() + "/iam is not answering":  {unit("iam", supervise.NotAnswering), unit("audit", supervise.Serving)},
		set.Name() + "/postgres is not ready": {unit("postgres", supervise.NotReady), unit("iam", supervise.NotReady), unit("audit", supervise.Serving)},
		set.Name() + "/audit is backing off":  {unit("iam", supervise.Serving), unit("audit", supervise.BackingOff)},
	} {
		if got := setState(processes, set); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
