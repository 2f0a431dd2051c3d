package welcome

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/proto/gen/go/a3os/integrations/v1/integrationsv1connect"
)

// Answer is a question with what the API says.
type Answer struct {
	// Question that was asked.
	Question Question
	// Path that explains it, as `a → b → SELECT on c`; empty when there is no access.
	Path string
	// Steps are the path's, each with why the system says so: `a → b: GRANT by c`.
	Steps []string
	// Paths is how many there are.
	Paths int
	// Complete says that everything was read that the answer rests on.
	Complete bool
}

// Result reads what a tenant has, as its admin.
func (g Guide) Result(ctx context.Context, t Tenant) (Result, error) {
	out := Result{Slug: t.Slug, URL: t.URL}
	session, err := g.Profiles.Open(AdminProfile(t.Slug))
	if err != nil {
		return out, err
	}
	p, err := session.Profile()
	if err != nil {
		return out, err
	}
	h := house{client: session.Client(), url: t.URL, session: session, workspaceID: p.WorkspaceID}
	all, err := inWorkspace(h, integrationsv1connect.NewIntegrationServiceClient).ListIntegrations(ctx,
		connect.NewRequest(&integrationsv1.ListIntegrationsRequest{PageSize: 500}))
	if err != nil {
		return out, err
	}
	for _, i := range all.Msg.GetIntegrations() {
		run, err := h.newestPublished(ctx, i.GetId())
		if err != nil {
			return out, err
		}
		if run != nil {
			out.Systems = append(out.Systems, System{Name: i.GetName(), Connector: i.GetConnector(), State: word(run), Counts: run.GetCounts(), Gaps: len(run.GetGaps())})
		}
	}
	if t.Postgres != nil && t.Postgres.Question != nil {
		out.Answer, err = h.ask(ctx, *t.Postgres.Question)
	}
	return out, err
}

// ask asks why a principal has access.
func (h house) ask(ctx context.Context, q Question) (*Answer, error) {
	access := inWorkspace(h, discoveryv1connect.NewAccessServiceClient)
	res, err := access.ExplainAccess(ctx, connect.NewRequest(&discoveryv1.ExplainAccessRequest{
		Principal: q.Principal, Resource: q.Resource, Entitlement: q.Entitlement}))
	if err != nil {
		return nil, err
	}
	a := &Answer{Question: q, Paths: len(res.Msg.GetPaths()), Complete: true}
	if a.Paths == 0 {
		return a, nil
	}
	var words []string
	steps := res.Msg.GetPaths()[0].GetSteps()
	used := map[string]bool{}
	for n, s := range steps {
		words = append(words, s.GetPrincipal().GetDisplayName())
		to := s.GetEntitlement() + " on " + s.GetResource().GetDisplayName()
		if n == len(steps)-1 {
			words = append(words, to)
		} else {
			to = steps[n+1].GetPrincipal().GetDisplayName()
		}
		if r := s.GetReason(); r != "" {
			a.Steps = append(a.Steps, s.GetPrincipal().GetDisplayName()+" → "+to+": "+r)
		}
		used[s.GetResource().GetIntegrationId()] = true
	}
	a.Path = strings.Join(words, " → ")
	for _, s := range res.Msg.GetCompleteness().GetSources() {
		if used[s.GetIntegrationId()] && s.GetState() != integrationsv1.RunState_RUN_STATE_COMPLETE {
			a.Complete = false
		}
	}
	return a, nil
}
