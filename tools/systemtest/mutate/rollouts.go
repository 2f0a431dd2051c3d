package main

// rollouts takes out what keeps a rollout to what was approved.
func rollouts() []mutation {
	const server = "services/registry/internal/server/"
	parts := these("services", "./registry", "TestPartOfARollout|TestStepOfAnotherKind")
	left := these("services", "./registry", "TestTenantThatSomebodyElse")
	return []mutation{
		one("the tenant that nobody else changed, at a rollout's part", server+"rolloutpart.go", "t.GetStateFrom(), t.GetReleaseFrom()); why != \"\" {", "t.GetStateFrom(), t.GetReleaseFrom()); why == \"?\" {", left),
		one("the tenants that go back because of one that was touched", "libs/rollout/rollout.go", "if t.GetState() == failed && begun(t) ||", "if t.GetState() == failed ||", these("libs", "./rollout", "TestWhatGoesBack"), left),
		one("the lease of who begins a part of a rollout", server+"rolloutpart.go", "proven(req.GetRolloutLeaseToken()); err != nil {", "proven(req.GetRolloutLeaseToken()); err != nil && req.GetTenant() == \"\" {", parts),
		one("the steps that a kind of operation has", server+"fit.go", "		case !slices.Contains(lead.steps, s):", "		case s == \"\" && !slices.Contains(lead.steps, s):", parts),
	}
}
