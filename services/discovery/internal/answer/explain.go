package answer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/types/known/timestamppb"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/access"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/store"
)

const defaultPaths = 100

// Explain answers every path from a principal to a resource, shortest first; none where there is no access.
func (a *Answers) Explain(ctx context.Context, req *discoveryv1.ExplainAccessRequest) (*discoveryv1.ExplainAccessResponse, error) {
	most := int(cmp.Or(req.GetMaxPaths(), defaultPaths))
	var res *discoveryv1.ExplainAccessResponse
	err := a.ask(ctx, req.GetAsOf(), nil, func(ctx context.Context, q *question) error {
		principals, err := q.principals(ctx, req.GetPrincipal())
		if err != nil {
			return about("principal", err)
		}
		resource, err := q.resource(ctx, req.GetResource())
		if err != nil {
			return about("resource", err)
		}
		targets, err := q.targets(ctx, resource, req.GetEntitlement())
		if err != nil {
			return err
		}
		graph, done := a.memory.graph(edges{q: q.q, at: q.at})
		defer done()
		paths, err := paths(ctx, graph, principals, ids(targets), most+1)
		if err != nil {
			return err
		}
		res = &discoveryv1.ExplainAccessResponse{Completeness: q.completeness, Truncated: len(paths) > most}
		return q.explain(ctx, res, principals, resource, paths[:min(len(paths), most)])
	})
	return res, err
}

// about says which of two names an error is about.
func about(what string, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.With("%s: %s", what, f.Message)
	}
	return err
}

// paths are the first paths of all principals, shortest first.
func paths(ctx context.Context, graph *access.Graph, principals []id.Resource, targets []id.Entitlement, most int) ([]access.Path, error) {
	var out []access.Path
	for _, p := range principals {
		n, looked := 0, 0
		shown := map[string][]access.Path{}
		for path, err := range graph.Paths(ctx, p, targets) {
			if err != nil {
				return nil, err
			}
			// A bound on what is looked at, for a chain of n roles has 2^n ways of acting where none is needed.
			if looked++; looked > most*looksPerPath {
				break
			}
			way := stops(path)
			if slices.ContainsFunc(shown[way], func(earlier access.Path) bool { return actsLess(earlier, path) }) {
				continue
			}
			shown[way] = append(shown[way], path)
			out = append(out, path)
			if n++; n == most {
				break
			}
		}
	}
	slices.SortStableFunc(out, func(a, b access.Path) int {
		return cmp.Or(cmp.Compare(len(a.Steps), len(b.Steps)), compareBools(a.Assumption, b.Assumption))
	})
	return out[:min(len(out), most)], nil
}

const looksPerPath = 64

// stops is the resources that a path leads over, and what it ends at.
func stops(p access.Path) string {
	var b strings.Builder
	for _, s := range p.Steps {
		from, on := s.Principal.Bytes(), s.Entitlement.Resource.Bytes()
		b.Write(from[:])
		b.Write(on[:])
	}
	if n := len(p.Steps); n > 0 {
		end := p.Steps[n-1].Entitlement.ID.Bytes()
		b.Write(end[:])
	}
	return b.String()
}

// actsLess says that a path over the same stops takes an act nowhere where the other takes none: who is a member of a role can also SET
// ROLE to it, and to show both for each role of a chain would bury the explanation.
func actsLess(a, b access.Path) bool {
	for i := range a.Steps {
		if a.Steps[i].Assumption && !b.Steps[i].Assumption {
			return false
		}
	}
	return true
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// explain writes paths out: who, what, on what, why, since when.
func (q *question) explain(ctx context.Context, res *discoveryv1.ExplainAccessResponse, principals []id.Resource, resource id.Resource, paths []access.Path) error {
	show := append(slices.Clone(principals), resource)
	for _, p := range paths {
		for _, s := range p.Steps {
			show = append(show, s.Principal, s.Entitlement.Resource)
		}
	}
	v, err := q.views(ctx, show)
	if err != nil {
		return err
	}
	seen, err := q.seen(ctx, paths, v)
	if err != nil {
		return err
	}
	for _, p := range principals {
		res.Principals = append(res.Principals, v.of(p))
	}
	res.Resource = v.of(resource)
	for _, p := range paths {
		path := &discoveryv1.Path{Assumption: p.Assumption, Steps: make([]*discoveryv1.Step, len(p.Steps))}
		for i, s := range p.Steps {
			step := &discoveryv1.Step{Principal: v.of(s.Principal), Entitlement: s.Entitlement.Name, Resource: v.of(s.Entitlement.Resource),
				Assumption: s.Assumption, Implied: s.Expansion != nil}
			e := seen.of(s)
			if step.Reason = e.reason; !e.since.IsZero() {
				step.Since = timestamppb.New(e.since)
				if path.Since == nil || e.since.After(path.GetSince().AsTime()) {
					path.Since = step.GetSince()
				}
			}
			path.Steps[i] = step
		}
		res.Paths = append(res.Paths, path)
	}
	return nil
}

// edge is what is told of a grant or an expansion.
type edge struct {
	reason string
	since  time.Time
}

// seen are the edges of paths.
type seen struct {
	grants     map[id.Grant]edge
	expansions map[[2]id.Entitlement]edge
}

func (s seen) of(step access.Step) edge {
	if step.Expansion != nil {
		return s.expansions[[2]id.Entitlement{step.Expansion.From, step.Expansion.To}]
	}
	return s.grants[step.Grant]
}

func (q *question) seen(ctx context.Context, paths []access.Path, v views) (seen, error) {
	out := seen{grants: map[id.Grant]edge{}, expansions: map[[2]id.Entitlement]edge{}}
	var grants []id.Grant
	var from []id.Entitlement
	// Edges stay within an integration, and the principals say within which.
	in := map[id.Integration]bool{}
	for _, p := range paths {
		for _, s := range p.Steps {
			if s.Expansion != nil {
				from = append(from, s.Expansion.From)
				continue
			}
			grants = append(grants, s.Grant)
			if i, err := id.ParseIntegration(v.of(s.Entitlement.Resource).GetIntegrationId()); err == nil {
				in[i] = true
			}
		}
	}
	integrations := make([]pgtype.UUID, 0, len(in))
	for i := range in {
		integrations = append(integrations, uuid(i))
	}
	rows, err := inBatches(grants, func(ids []pgtype.UUID) ([]store.GrantsByIDRow, error) {
		return q.q.GrantsByID(ctx, store.GrantsByIDParams{Integrations: integrations, Ids: ids, At: q.at})
	})
	if err != nil {
		return seen{}, fmt.Errorf("read the grants of paths: %w", err)
	}
	for _, r := range rows {
		out.grants[r.ID] = edge{reason: r.Reason, since: r.Since}
	}
	expansions, err := inBatches(from, func(ids []pgtype.UUID) ([]store.ExpansionsFromRow, error) {
		return q.q.ExpansionsFrom(ctx, store.ExpansionsFromParams{Ids: ids, At: q.at})
	})
	if err != nil {
		return seen{}, fmt.Errorf("read the expansions of paths: %w", err)
	}
	for _, r := range expansions {
		out.expansions[[2]id.Entitlement{r.FromID, r.ToID}] = edge{reason: r.Reason, since: r.Since}
	}
	return out, nil
}
