package main

// rollouts takes out what keeps a rollout to what was approved.
func rollouts() []mutation {
	const server = "services/registry/internal/server/"
	parts := these("services", "./registry", "TestPartOfARollout|TestStepOfAnotherKind")
	return []mutation{
		one("the lease of who begins a part of a rollout", server+"rolloutpart.go", "proven(req.GetRolloutLeaseToken()); err != nil {", "proven(req.GetRolloutLeaseToken()); err != nil && req.GetTenant() == \"\" {", parts),
		one("the steps that a kind of operation has", server+"fit.go", "		case !slices.Contains(lead.steps, s):", "		case s == \"\" && !slices.Contains(lead.steps, s):", parts),
	}
}
