package plan

import (
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/rollout"
)

// policy is how a rollout goes: whoever approves the plan approves that with it.
func (w *writer) policy(p *registryv1.Plan) {
	r := p.GetRollout()
	if r == nil {
		return
	}
	slugs := map[string]string{}
	for _, t := range p.GetTenants() {
		slugs[t.GetTenantId()] = t.GetSlug()
	}
	for i, wave := range r.GetWaves() {
		var in []string
		for _, id := range wave.GetTenantIds() {
			in = append(in, slugs[id])
		}
		w.field("wave", "%d, %s: %s", i+1, wave.GetName(), strings.Join(in, " "))
	}
	w.field("at once", "%s", count(int(r.GetMaxParallel()), "tenant"))
	w.field("watched", "%s and %s each", r.GetBake().AsDuration(), count(int(r.GetSamples()), "request"))
	w.gates(r.GetGates())
	for _, window := range r.GetWindows() {
		word := "begun in"
		if window.GetDeny() {
			word = "never in"
		}
		w.field(word, "%s", rollout.WindowText(window))
	}
	switch r.GetRollback() {
	case registryv1.RollbackScope_ROLLBACK_SCOPE_TENANT:
		w.field("goes back", "whoever fails")
	case registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE:
		w.field("goes back", "the wave of whoever fails")
	case registryv1.RollbackScope_ROLLBACK_SCOPE_ALL:
		w.field("goes back", "every tenant that was changed, when one fails")
	default:
		w.field("goes back", "nobody: when one fails, an operator decides")
	}
}

// gates are what each tenant must stay within, those that are left out as well.
func (w *writer) gates(g *registryv1.Gates) {
	const percent = 100
	w.field("gate", "at most %.6g %% more of its requests fail than before", percent*g.GetErrorRatioGrowth())
	if g.GetP99Factor() > 0 {
		w.field("gate", "its p99 is at most %.6g times what it was before", g.GetP99Factor())
	} else {
		w.field("no gate", "of its p99")
	}
	w.field("gate", "at most %s, %s given up", count(int(g.GetRestarts()), "restart"), count(int(g.GetFailedJobs()), "job"))
	if g.GetAuditBacklog() > 0 {
		w.field("gate", "at most %s to be sealed", count(int(g.GetAuditBacklog()), "audit event"))
	} else {
		w.field("no gate", "of audit events to be sealed")
	}
}
