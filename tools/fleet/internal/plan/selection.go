package plan

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/snapshot"
	"a3os.app/tools/fleet/internal/pages"
)

// Selection says which tenants, by what was written. Those of all selectors together are chosen: a tenant that is named, or that has
// one of the labels.
type Selection struct {
	// Tenants by slug or id.
	Tenants []string
	// Labels as `name=value`.
	Labels []string
	// Waves are values of the label ring.
	Waves []string
}

// ring is the label that says how early a tenant gets a release.
const ring = "ring"

// Rings in the order in which they are brought to a release. A tenant without the label is of the last.
var Rings = []string{"canary", "early", "general"}

// RingOf is a tenant's ring.
func RingOf(t *registryv1.Tenant) string { return cmp.Or(t.GetLabels()[ring], Rings[len(Rings)-1]) }

var label = regexp.MustCompile(`^[a-z][a-z0-9-]{0,38}=[a-z0-9][a-z0-9._-]{0,62}$`)

// check refuses a selection that is empty, that is a wildcard, or that makes tenants by a label.
func (s Selection) check(kind registryv1.OperationKind) error {
	all := s.written()
	if len(all) == 0 {
		return fault.New(fault.InvalidArgument, "say which tenants: --tenant NAME, --label name=value or --wave RING; nothing chooses all of them")
	}
	for _, word := range slices.Concat(s.Tenants, s.Labels, s.Waves) {
		if strings.TrimSpace(word) == "" || strings.ContainsAny(word, "*?%") {
			return fault.New(fault.InvalidArgument, "the selector %q is empty or a wildcard: name each tenant, or a label", word)
		}
	}
	for _, l := range s.Labels {
		if !label.MatchString(l) {
			return fault.New(fault.InvalidArgument, "the label %q is not of the form name=value", l)
		}
	}
	if kind == provision && len(s.Labels)+len(s.Waves) > 0 {
		return fault.New(fault.InvalidArgument, "provision makes the tenants that --tenant names: no label can choose one that there isn't")
	}
	return nil
}

// written are the selectors as they were written, in one order.
func (s Selection) written() []string {
	var out []string
	for _, t := range s.Tenants {
		out = append(out, "--tenant "+t)
	}
	for _, l := range s.Labels {
		out = append(out, "--label "+l)
	}
	for _, w := range s.Waves {
		out = append(out, "--wave "+w)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ParseSelection reads what a plan's selectors say.
func ParseSelection(selectors []string) (Selection, error) {
	var s Selection
	for _, text := range selectors {
		flag, value, ok := strings.Cut(text, " ")
		switch {
		case ok && flag == "--tenant":
			s.Tenants = append(s.Tenants, value)
		case ok && flag == "--label":
			s.Labels = append(s.Labels, value)
		case ok && flag == "--wave":
			s.Waves = append(s.Waves, value)
		default:
			return Selection{}, fault.New(fault.InvalidArgument, "the plan has the selector %q, which this fleet doesn't know: use the fleet that made it", text)
		}
	}
	return s, nil
}

// chosen are the tenants of a selection.
type chosen struct {
	tenants []*registryv1.TenantStatus
	// toMake are the slugs of tenants that there aren't, with the last operation of whoever had the slug before.
	toMake map[string]string
	// labelled are those of a label, and leftOut the ones of them that the change can't be made to.
	labelled []*registryv1.TenantStatus
	leftOut  []string
}

// choose finds a selection's tenants. One that is named must be there, and in a state that the change begins in; of those with a label
// the others are left out, and said.
func (p *Planner) choose(ctx context.Context, kind registryv1.OperationKind, s Selection) (*chosen, error) {
	out := &chosen{toMake: map[string]string{}}
	seen := map[string]bool{}
	for _, name := range s.Tenants {
		status, err := p.tenant(ctx, name)
		if err != nil {
			return nil, err
		}
		if kind == provision && (status == nil || status.GetTenant().GetState() == offboarded) {
			if !snapshot.IsLabel(name) {
				return nil, fault.New(fault.InvalidArgument, "%q is not a slug: lower-case letters, digits and hyphens, a letter first, at most 40 characters", name)
			}
			out.toMake[name] = status.GetTenant().GetLastOperation()
			continue
		}
		if status == nil {
			return nil, fault.New(fault.NotFound, "there is no tenant %q: see fleet tenant list", name)
		}
		if t := status.GetTenant(); !slices.Contains(kinds[kind].from, t.GetState()) {
			return nil, fault.New(fault.FailedPrecondition, "tenant %s is %s, and can't be made to %s from there", t.GetSlug(), word(t.GetState()), Kind(kind))
		}
		if !seen[status.GetTenant().GetId()] {
			seen[status.GetTenant().GetId()] = true
			out.tenants = append(out.tenants, status)
		}
	}
	if len(s.Labels)+len(s.Waves) == 0 {
		return out, nil
	}
	return out, p.chooseByLabel(ctx, kind, s, out, seen)
}

func (p *Planner) chooseByLabel(ctx context.Context, kind registryv1.OperationKind, s Selection, out *chosen, seen map[string]bool) error {
	for status, err := range pages.Each(ctx, p.Tenants.ListTenants, &registryv1.ListTenantsRequest{PageSize: 500}, (*registryv1.ListTenantsResponse).GetTenants) {
		if err != nil {
			return err
		}
		t := status.GetTenant()
		if seen[t.GetId()] || t.GetState() == offboarded || !s.has(t) {
			continue
		}
		seen[t.GetId()] = true
		out.labelled = append(out.labelled, status)
		if !slices.Contains(kinds[kind].from, t.GetState()) {
			out.leftOut = append(out.leftOut, fmt.Sprintf("%s is %s", t.GetSlug(), word(t.GetState())))
			continue
		}
		out.tenants = append(out.tenants, status)
	}
	return nil
}

// agree leaves out, of those whom a label chose, the tenants with whom more was done than the registry knows, and refuses one that was named.
func (p *Planner) agree(ctx context.Context, r Request, to *target, c *chosen) error {
	if p.Agrees == nil || r.Kind != upgrade && r.Kind != downgrade {
		return nil
	}
	var agreed []*registryv1.TenantStatus
	for _, status := range c.tenants {
		err := p.Agrees(ctx, status, to.name)
		t := status.GetTenant()
		named := slices.Contains(r.Selection.Tenants, t.GetSlug()) || slices.Contains(r.Selection.Tenants, t.GetId())
		switch {
		case err == nil:
			agreed = append(agreed, status)
		case named || fault.KindOf(err) != fault.FailedPrecondition:
			return err
		default:
			c.leftOut = append(c.leftOut, err.Error())
		}
	}
	c.tenants = agreed
	return nil
}

// Without are the labels and the rings that it names and none of these tenants has.
func (s Selection) Without(tenants []*registryv1.TenantStatus) []string {
	named := slices.Clone(s.Labels)
	for _, w := range s.Waves {
		named = append(named, ring+"="+w)
	}
	return slices.DeleteFunc(named, func(label string) bool {
		only := Selection{Labels: []string{label}}
		return slices.ContainsFunc(tenants, func(t *registryv1.TenantStatus) bool { return only.has(t.GetTenant()) })
	})
}

// has says whether a tenant has one of the labels chosen by, or is in one of the rings.
func (s Selection) has(t *registryv1.Tenant) bool {
	if of := RingOf(t); slices.Contains(s.Waves, of) || slices.Contains(s.Labels, ring+"="+of) {
		return true
	}
	for name, value := range t.GetLabels() {
		if slices.Contains(s.Labels, name+"="+value) {
			return true
		}
	}
	return false
}

// tenant reads one, by id or slug; nil where there is none.
func (p *Planner) tenant(ctx context.Context, name string) (*registryv1.TenantStatus, error) {
	res, err := p.Tenants.GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: name})
	if err = fault.FromRPC(err); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			return nil, nil //nolint:nilnil // that there is none is an answer
		}
		return nil, err
	}
	return res.GetStatus(), nil
}

// Kind is what people call a kind of operation: `provision`.
func Kind(k registryv1.OperationKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "OPERATION_KIND_"))
}

func word(s registryv1.TenantState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TENANT_STATE_"))
}

func tierWord(t registryv1.IsolationTier) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "ISOLATION_TIER_"))
}
