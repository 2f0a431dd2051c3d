package registry_test

import (
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// The registry knows which tenant has which account to itself: it is in the plan, shares no server, is not the plane's own and nobody else's, and
// no later plan takes the tenant to be elsewhere.
func TestAccountIsOneTenantsAlone(t *testing.T) {
	h := newHarness(t)
	addr, _ := h.start()
	ann := h.person(addr, "operator-ann")
	const account, home = "210987654321", "123456789012"
	of := func(slug, account string) *registryv1.Plan {
		plan := h.provision(slug)
		plan.Platform, plan.Account, plan.Region, plan.Tenants[0].Account = "aws", home, "eu-central-1", account
		return plan
	}
	shared := of("shared", account)
	shared.Tenants[0].IsolationTier = registryv1.IsolationTier_ISOLATION_TIER_DATABASE
	for name, c := range map[string]struct {
		plan *registryv1.Plan
		want string
	}{"a shared server": {shared, "shares no database server"}, "the plane's own": {of("home", home), "the plane's own"}, "no account": {of("odd", "12345"), ""}} {
		if _, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: c.plan}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	ann.begin(ann.put(of("acme", account)).GetHash(), "acme")
	if got := ann.status("acme").GetTenant().GetAccount(); got != account {
		t.Errorf("the registry has acme in account %q", got)
	}
	if _, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: of("globex", account)}); err == nil || !strings.Contains(err.Error(), "account "+account+" is tenant acme's own") {
		t.Errorf("a second tenant is planned into it: %v", err)
	}
	// A plan that takes it to be in the plane's account.
	elsewhere := h.planned(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, ann.change("acme", registryv1.TenantState_TENANT_STATE_OFFBOARDED, "", "delete"))
	elsewhere.Region = "eu-central-1"
	if _, err := ann.plans.PutPlan(t.Context(), &registryv1.PutPlanRequest{Plan: elsewhere}); err == nil || !strings.Contains(err.Error(), "the account of tenant acme is "+account) {
		t.Errorf("a plan of it elsewhere: %v", err)
	}
}
