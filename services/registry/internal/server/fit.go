package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/release"
	"a3os.app/services/registry/internal/naming"
	"a3os.app/services/registry/internal/publish"
	"a3os.app/services/registry/internal/store"
)

// provisioning is the state of a tenant whose set is being made; none that of a tenant that there isn't.
const (
	provisioning = "provisioning"
	none         = "unspecified"
)

// leads says from which states a kind of operation leads where, and which steps it may have; one without an end leaves the state as it is. A plan may have fewer, and in another order, as
// those of earlier fleets do; a step of another kind would do what nobody who read the kind expects: only who leaves has keys destroyed.
var leads = map[registryv1.OperationKind]struct {
	from  []string
	to    string
	steps []string
}{
	registryv1.OperationKind_OPERATION_KIND_PROVISION: {
		[]string{none, provisioning}, publish.Active,
		[]string{"fetch", "identity", "database", "migrate", "mark", stepStart, "publish", "answer"},
	},
	registryv1.OperationKind_OPERATION_KIND_UPGRADE:   {[]string{publish.Active}, publish.Active, []string{"fetch", "migrate", stepStart, "confirm"}},
	registryv1.OperationKind_OPERATION_KIND_DOWNGRADE: {[]string{publish.Active}, publish.Active, []string{"fetch", stepStart, "confirm"}},
	registryv1.OperationKind_OPERATION_KIND_SUSPEND:   {[]string{publish.Active}, suspended, []string{"unpublish", "stop"}},
	registryv1.OperationKind_OPERATION_KIND_RESUME:    {[]string{suspended}, publish.Active, []string{"identity", "database", stepStart, "publish", "answer"}},
	registryv1.OperationKind_OPERATION_KIND_OFFBOARD: {
		[]string{provisioning, publish.Active, suspended}, offboarded,
		[]string{"unpublish", "stop", stepExport, stepWait, stepShred, "delete", "remains"},
	},
	registryv1.OperationKind_OPERATION_KIND_RESTORE: {[]string{provisioning, publish.Active, suspended}, "", []string{"rehearse", "stop", "restore", stepStart}},
}

// wellFormed refuses a plan that could fit no world of this plane.
func (c Config) wellFormed(plan *registryv1.Plan) error {
	if plan.GetPlane() != c.Plane {
		return errPlanStale.With("the plan is for plane %s and this is %s: planes are sealed, make it at the plane that it is for", plan.GetPlane(), c.Plane)
	}
	for _, s := range plan.GetSelectors() {
		if strings.TrimSpace(s) == "" || strings.ContainsAny(s, "*?") {
			return fault.New(fault.InvalidArgument, "the selector %q is empty or a wildcard: name tenants or labels", s)
		}
	}
	seen := map[string]bool{}
	for i, t := range plan.GetTenants() {
		if seen[target(t)] || seen[t.GetSlug()] {
			return fault.New(fault.InvalidArgument, "tenant %s comes twice in the plan", t.GetSlug())
		}
		seen[target(t)], seen[t.GetSlug()] = true, true
		if i > 0 && target(plan.GetTenants()[i-1]) > target(t) {
			return fault.New(fault.InvalidArgument, "the plan's tenants are not in the order of their ids")
		}
		if err := c.sound(plan, t); err != nil {
			return err
		}
	}
	return nil
}

// target is what a plan calls a tenant: its id, or its slug where the plan makes it.
func target(t *registryv1.TenantChange) string {
	if t.GetTenantId() != "" {
		return t.GetTenantId()
	}
	return t.GetSlug()
}

// sound refuses a change that contradicts itself, or the plane.
func (c Config) sound(plan *registryv1.Plan, t *registryv1.TenantChange) error {
	lead, from, to := leads[plan.GetKind()], stateWord(t.GetStateFrom()), stateWord(t.GetStateTo())
	kind := word(kindPrefix, plan.GetKind())
	makes := t.GetTenantId() == ""
	switch {
	case !slices.Contains(lead.from, from) || to != cmp.Or(lead.to, from) || makes != (from == none):
		return fault.New(fault.InvalidArgument, "%s leads no tenant from %s to %s", kind, from, to)
	case makes && c.Plane == prod && t.GetIsolationTier() != registryv1.IsolationTier_ISOLATION_TIER_DEDICATED &&
		!slices.Contains(plan.GetAcceptedTiers(), t.GetIsolationTier()):
		return fault.New(fault.FailedPrecondition, "in plane %s a tenant gets a database server of its own: plan %s with tier dedicated, or accept the tier %s by name",
			c.Plane, t.GetSlug(), word(tierPrefix, t.GetIsolationTier()))
	case t.GetAccount() != "" && t.GetIsolationTier() != registryv1.IsolationTier_ISOLATION_TIER_DEDICATED:
		return fault.New(fault.InvalidArgument, "a tenant with an account of its own shares no database server: plan %s with tier dedicated", t.GetSlug())
	case t.GetAccount() != "" && t.GetAccount() == plan.GetAccount():
		return fault.New(fault.InvalidArgument, "account %s is the plane's own: tenant %s is there without being told so", t.GetAccount(), t.GetSlug())
	case t.GetCopyOf() != "" && !makes:
		return fault.New(fault.InvalidArgument, "tenant %s is there: whose copy a tenant is is said when it is made", t.GetSlug())
	case (t.GetRestore() != nil) != (plan.GetKind() == registryv1.OperationKind_OPERATION_KIND_RESTORE):
		return fault.New(fault.InvalidArgument, "%s of tenant %s: a restore names the backup, and nothing else does", kind, t.GetSlug())
	case t.GetRestore() != nil && (len(plan.GetTenants()) != 1 || plan.GetRollout() != nil || t.GetReleaseTo() != t.GetReleaseFrom()):
		return fault.New(fault.InvalidArgument, "a restore is of one tenant, in no waves, and leaves its release as it is")
	case makes && t.GetDisplayName() == "":
		return fault.New(fault.InvalidArgument, "tenant %s has no display name", t.GetSlug())
	case (t.GetReleaseTo() == "") != (to == offboarded):
		return fault.New(fault.InvalidArgument, "%s of tenant %s must name the release that it leads to, and offboard none", kind, t.GetSlug())
	case to == suspended && t.GetReleaseTo() != t.GetReleaseFrom():
		return fault.New(fault.InvalidArgument, "suspend changes no release, and the plan moves %s to %s", t.GetSlug(), t.GetReleaseTo())
	}
	if t.GetReleaseTo() != t.GetReleaseFrom() && t.GetReleaseTo() != "" {
		if _, err := release.ParseName(t.GetReleaseTo()); err != nil {
			return fault.New(fault.InvalidArgument, "tenant %s: %v", t.GetSlug(), err)
		}
	}
	if makes {
		if err := naming.Check(t.GetSlug()); err != nil {
			return err
		}
	}
	steps := map[string]bool{}
	for _, s := range t.GetSteps() {
		switch {
		case steps[s]:
			return fault.New(fault.InvalidArgument, "step %s comes twice for tenant %s", s, t.GetSlug())
		case !slices.Contains(lead.steps, s):
			return fault.New(fault.InvalidArgument, "%s of tenant %s has the step %s, which is none of %s's: it has %s", kind, t.GetSlug(), s, kind, strings.Join(lead.steps, ", "))
		}
		steps[s] = true
	}
	if plan.GetWait() != nil {
		if err := waits(plan, t); err != nil {
			return err
		}
	}
	return checkLabels(t.GetLabels())
}

// waits refuses a plan that waits for nothing, or destroys before it has waited.
func waits(plan *registryv1.Plan, t *registryv1.TenantChange) error {
	export, wait, shred := slices.Index(t.GetSteps(), stepExport), slices.Index(t.GetSteps(), stepWait), slices.Index(t.GetSteps(), stepShred)
	switch {
	case plan.GetKind() != registryv1.OperationKind_OPERATION_KIND_OFFBOARD:
		return fault.New(fault.InvalidArgument, "wait: %s destroys no keys, and has nothing to wait for", word(kindPrefix, plan.GetKind()))
	case export < 0 || export > wait || wait > shred:
		return fault.New(fault.InvalidArgument, "wait: tenant %s needs the steps %s, %s and %s, in this order", t.GetSlug(), stepExport, stepWait, stepShred)
	}
	return nil
}

// fits compares changes with the world, and names each difference.
func (c Config) fits(ctx context.Context, q *store.Queries, plan *registryv1.Plan, changes []*registryv1.TenantChange) error {
	var ids []id.Tenant
	for _, t := range changes {
		if t.GetTenantId() == "" {
			continue
		}
		tenant, err := id.ParseTenant(t.GetTenantId())
		if err != nil {
			return errNoTenant
		}
		ids = append(ids, tenant)
	}
	var rows []store.Tenant
	var err error
	if len(ids) > 0 {
		if rows, err = q.TenantsByID(ctx, ids); err != nil {
			return fmt.Errorf("read the tenants: %w", err)
		}
	}
	present, err := statuses(ctx, q, rows)
	if err != nil {
		return err
	}
	by := map[string]*registryv1.TenantStatus{}
	for _, s := range present {
		by[s.GetTenant().GetId()] = s
	}
	differences, err := c.unknownReleases(ctx, q, changes)
	if err != nil {
		return err
	}
	for _, t := range changes {
		var found []string
		if t.GetTenantId() == "" {
			found, err = c.slugDifferences(ctx, q, t)
		} else {
			found = tenantDifferences(plan, t, by[t.GetTenantId()])
		}
		if err != nil {
			return err
		}
		differences = append(differences, found...)
	}
	return stale(differences)
}

// unknownReleases are those that a plan leads to and that nobody signed for this plane. On planes for development what was built there
// is known by its digest alone.
func (c Config) unknownReleases(ctx context.Context, q *store.Queries, changes []*registryv1.TenantChange) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, t := range changes {
		name := t.GetReleaseTo()
		if c.Plane != prod || name == "" || name == t.GetReleaseFrom() || seen[name] {
			continue
		}
		seen[name] = true
		_, err := q.ReleaseByName(ctx, name)
		if errors.Is(err, pgx.ErrNoRows) {
			out = append(out, fmt.Sprintf("release %s is not registered in plane %s", name, c.Plane))
		} else if err != nil {
			return nil, fmt.Errorf("look for the release: %w", err)
		}
	}
	return out, nil
}

// stale is the error that names differences; nil where there are none.
func stale(differences []string) error {
	const most = 20
	if len(differences) == 0 {
		return nil
	}
	if more := len(differences) - most; more > 0 {
		differences = append(differences[:most:most], fmt.Sprintf("and %d more", more))
	}
	return errPlanStale.With("the plan doesn't fit what the registry knows, make it anew: %s", strings.Join(differences, "; "))
}

// tenantDifferences says what of a tenant isn't as a plan takes it to be.
func tenantDifferences(plan *registryv1.Plan, want *registryv1.TenantChange, have *registryv1.TenantStatus) []string {
	t := have.GetTenant()
	if t == nil {
		return []string{fmt.Sprintf("tenant %s is not there", want.GetTenantId())}
	}
	var out []string
	differ := func(what, planned, is string) {
		if planned != is {
			out = append(out, fmt.Sprintf("the %s of tenant %s is %s, the plan has %s", what, t.GetSlug(), orNone(is), orNone(planned)))
		}
	}
	differ("slug", want.GetSlug(), t.GetSlug())
	differ("region", plan.GetRegion(), t.GetRegion())
	differ("isolation tier", word(tierPrefix, want.GetIsolationTier()), word(tierPrefix, t.GetIsolationTier()))
	differ("state", stateWord(want.GetStateFrom()), stateWord(t.GetState()))
	differ("release", want.GetReleaseFrom(), have.GetServiceSet().GetRelease())
	differ("last operation", want.GetAfterOperation(), t.GetLastOperation())
	differ("account", want.GetAccount(), t.GetAccount())
	return out
}

// slugDifferences says what keeps a plan from making a tenant.
func (c Config) slugDifferences(ctx context.Context, q *store.Queries, want *registryv1.TenantChange) ([]string, error) {
	if err := c.slugFree(ctx, q, want.GetSlug()); err != nil {
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind == fault.AlreadyExists {
			return []string{f.Message}, nil
		}
		return nil, err
	}
	switch other, err := q.SlugOfAccount(ctx, want.GetAccount()); {
	case err == nil:
		return []string{fmt.Sprintf("account %s is tenant %s's own", want.GetAccount(), other)}, nil
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("look whose account it is: %w", err)
	}
	if out, err := copyDifferences(ctx, q, want); err != nil || out != nil {
		return out, err
	}
	last, err := q.LastOperationOfSlug(ctx, want.GetSlug())
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read the slug's last operation: %w", err)
	}
	if last.String() != want.GetAfterOperation() {
		return []string{fmt.Sprintf("the last operation of whoever was %s before is %s, the plan has %s", want.GetSlug(), orNone(last.String()), orNone(want.GetAfterOperation()))}, nil
	}
	return nil, nil
}

// copyDifferences says what keeps a tenant from being made as another one's copy. Nothing can be restored of one that left.
func copyDifferences(ctx context.Context, q *store.Queries, want *registryv1.TenantChange) ([]string, error) {
	if want.GetCopyOf() == "" {
		return nil, nil
	}
	of, err := id.ParseTenant(want.GetCopyOf())
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "tenant %s is to be a copy: %v", want.GetSlug(), err)
	}
	switch t, err := q.TenantByID(ctx, of); {
	case errors.Is(err, pgx.ErrNoRows):
		return []string{fmt.Sprintf("tenant %s, whose copy %s is to be, is not there", of, want.GetSlug())}, nil
	case err != nil:
		return nil, fmt.Errorf("look for the tenant that is to be copied: %w", err)
	case t.State == offboarded:
		return []string{fmt.Sprintf("tenant %s, whose copy %s is to be, has left: its keys are destroyed, and no backup of it opens", t.Slug, want.GetSlug())}, nil
	}
	return nil, nil
}

// slugFree refuses a slug that is somebody's, is in its quarantine, or reads like one that is.
func (c Config) slugFree(ctx context.Context, q *store.Queries, slug string) error {
	held, err := q.SlugHeld(ctx, store.SlugHeldParams{Slug: slug, QuarantineSeconds: c.SlugQuarantine.Seconds()})
	if err != nil {
		return fmt.Errorf("look for the slug: %w", err)
	}
	if held {
		return fault.New(fault.AlreadyExists, "the slug %q is taken, or was freed not long ago: choose another", slug)
	}
	like, err := q.LookAlike(ctx, store.LookAlikeParams{Slug: slug, QuarantineSeconds: c.SlugQuarantine.Seconds()})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for look-alikes of the slug: %w", err)
	}
	return fault.New(fault.AlreadyExists, "the slug %q reads like %q, which is taken: choose one that nobody can take for it", slug, like)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
