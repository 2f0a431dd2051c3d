package aws

import (
	"fmt"
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/quota"
	"a3os.app/tools/fleet/internal/state"
)

// The plane's shared server takes as many tenants as it has connections for, of whom one that is there already goes on; the next is refused with what to
// do, and one with a server of its own never is.
func TestSharedServerTakesWhatItHasConnectionsFor(t *testing.T) {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	most, err := quota.Shared()
	if err != nil || most < 10 {
		t.Fatal(most, err)
	}
	var last id.Tenant
	for i := range most {
		last = id.NewTenant()
		for slug, of := range map[string]struct {
			id        id.Tenant
			dedicated bool
		}{"shared": {last, false}, "own": {id.NewTenant(), true}} {
			if _, err := st.Remember(fmt.Sprintf("%s-%d", slug, i), of.id, func(t *state.Tenant) { t.ID, t.Dedicated = of.id, of.dedicated }); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := &Platform{State: st}
	set := func(tenant id.Tenant, tier registryv1.IsolationTier) platform.Set {
		return platform.Set{Tenant: tenant, Tier: tier}
	}
	if err := p.carries(set(last, registryv1.IsolationTier_ISOLATION_TIER_DATABASE)); err != nil {
		t.Errorf("one of those that it carries: %v", err)
	}
	if err := p.carries(set(id.NewTenant(), registryv1.IsolationTier_ISOLATION_TIER_DATABASE)); err == nil || !strings.Contains(err.Error(), "--tier dedicated") {
		t.Errorf("one more: %v", err)
	}
	if err := p.carries(set(id.NewTenant(), registryv1.IsolationTier_ISOLATION_TIER_DEDICATED)); err != nil {
		t.Errorf("one with a server of its own: %v", err)
	}
}
