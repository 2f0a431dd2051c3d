// Package plan says what a change will do before it is done. It promises that a plan names everything that it touches: plane, platform,
// account, region, each tenant with its state and its releases, migrations, restarts and steps; that it was made for tenants that were
// named, or chosen by a label that was named, and never for all; and that the same change of the same world has the same hash. It
// relies on the registry, which keeps plans and holds each of their tenants against the world once more when it is carried out, and
// on the platform for where it works.
package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/platform"
)

// Place is what a plan says of the platform that will carry it out (platform.Platform).
type Place interface {
	Name() string
	Where(ctx context.Context) (platform.Where, error)
}

// Planner makes plans of one plane on one platform.
type Planner struct {
	// Plane is `dev` or `prod`.
	Plane string
	// Platform that will carry the plans out.
	Platform Place
	// Blueprint is fleet's own, and MadeBy the one that sets of a release are made and started by, whose manifest is nil where nobody registered
	// it.
	Blueprint *blueprint.Blueprint
	MadeBy    func(release string, m *registryv1.ReleaseManifest) (*blueprint.Blueprint, error)
	// Tenants and Releases read the registry.
	Tenants  registryv1.TenantServiceClient
	Releases registryv1.ReleaseServiceClient
	// Steps of a kind of operation, in order.
	Steps func(registryv1.OperationKind) []string
	// Stacks has changes planned by the platform; nil where it plans none itself.
	Stacks Stacks
	// Built is the release that was built beside this program, which no registry need know; zero for none.
	Built platform.Release
	// Restores is what of a backup a plan says that puts a tenant back to it, with every field; a backup that can't be restored to the tenant is refused.
	// nil where nobody restores.
	Restores func(ctx context.Context, status *registryv1.TenantStatus, r Restore) (*registryv1.RestoreChange, error)
	// Agrees refuses to bring a tenant to a release where more was done with it than the registry knows; nil where nobody knows more.
	Agrees func(ctx context.Context, status *registryv1.TenantStatus, to string) error
}

// Stacks has the change of a tenant planned where it will be made, and says whether one that was planned can still be made.
type Stacks interface {
	Foresee(ctx context.Context, kind registryv1.OperationKind, c *registryv1.TenantChange) (*registryv1.StackChange, error)
	Stands(ctx context.Context, c *registryv1.TenantChange) error
}

// Request is what somebody wants done.
type Request struct {
	// Kind of change.
	Kind registryv1.OperationKind
	// Selection of tenants; the slugs of those that are made, where the kind is provision.
	Selection Selection
	// Release to lead to: `version@sha256:…`, a version that the registry knows, or empty for what was built beside this program.
	Release string
	// Reason of it, 10 to 500 characters.
	Reason string
	// DisplayName, Tier and Labels of tenants that are made. Without a tier it is the plane's own.
	DisplayName string
	Tier        registryv1.IsolationTier
	Labels      map[string]string
	// Account of the cloud that the tenant which is made has to itself; empty for the plane's.
	Account string
	// CopyOf is the tenant, by slug or id, whose backups may be restored to those that are made; empty for tenants that are nobody's copy.
	CopyOf string
	// Restore is the backup that the one tenant is put back to, where the kind is restore; nil elsewhere.
	Restore *Restore
	// Wait is how long the keys of tenants that leave are kept after their export; nil for the plane's own.
	Wait *time.Duration
	// AcceptedTiers below the plane's own, by name.
	AcceptedTiers []registryv1.IsolationTier
	// again says that a stored plan is made once more, of which a part may be done: what was refused when it was planned was looked at then.
	again bool
	// Waves says how the chosen are brought to the release one after the other; nil for a plan that is no rollout.
	Waves func(chosen []*registryv1.TenantStatus) (*registryv1.RolloutPolicy, error)
}

// Restore is a backup that somebody wants restored.
type Restore struct {
	// From is a backup: its directory, or its name.
	From string
	// Replace stops the set where it runs.
	Replace bool
	// RecoveryKey is the file of a recovery key, where the backup's manifest can't be believed without; no plan says it.
	RecoveryKey string
	// Reason of the plan.
	Reason string
}

// Made is a plan with what its making found.
type Made struct {
	Plan *registryv1.Plan
	// LeftOut are tenants that a label chose and that the change can't be made to as they stand, a sentence each.
	LeftOut []string
}

// Kinds says from which states a kind of operation leads where; one without an end leaves the state as it is. (The registry holds plans to the same.)
var kinds = map[registryv1.OperationKind]struct {
	from []registryv1.TenantState
	to   registryv1.TenantState
}{
	registryv1.OperationKind_OPERATION_KIND_PROVISION: {[]registryv1.TenantState{provisioning}, active},
	registryv1.OperationKind_OPERATION_KIND_UPGRADE:   {[]registryv1.TenantState{active}, active},
	registryv1.OperationKind_OPERATION_KIND_DOWNGRADE: {[]registryv1.TenantState{active}, active},
	registryv1.OperationKind_OPERATION_KIND_SUSPEND:   {[]registryv1.TenantState{active}, suspended},
	registryv1.OperationKind_OPERATION_KIND_RESUME:    {[]registryv1.TenantState{suspended}, active},
	registryv1.OperationKind_OPERATION_KIND_OFFBOARD:  {[]registryv1.TenantState{provisioning, active, suspended}, offboarded},
	restore: {[]registryv1.TenantState{provisioning, active, suspended}, registryv1.TenantState_TENANT_STATE_UNSPECIFIED},
}

const (
	provisioning = registryv1.TenantState_TENANT_STATE_PROVISIONING
	active       = registryv1.TenantState_TENANT_STATE_ACTIVE
	suspended    = registryv1.TenantState_TENANT_STATE_SUSPENDED
	offboarded   = registryv1.TenantState_TENANT_STATE_OFFBOARDED

	provision = registryv1.OperationKind_OPERATION_KIND_PROVISION
	upgrade   = registryv1.OperationKind_OPERATION_KIND_UPGRADE
	downgrade = registryv1.OperationKind_OPERATION_KIND_DOWNGRADE
	resume    = registryv1.OperationKind_OPERATION_KIND_RESUME
	offboard  = registryv1.OperationKind_OPERATION_KIND_OFFBOARD
	restore   = registryv1.OperationKind_OPERATION_KIND_RESTORE
)

// Make makes a plan. It changes nothing, and stores nothing.
func (p *Planner) Make(ctx context.Context, r Request) (*Made, error) {
	if err := r.Selection.check(r.Kind); err != nil {
		return nil, err
	}
	where, err := p.Platform.Where(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask platform %s where it works: %w", p.Platform.Name(), err)
	}
	to, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	made := &Made{Plan: &registryv1.Plan{
		Plane: p.Plane, Platform: p.Platform.Name(), Account: where.Account, Region: where.Region,
		Blueprint: p.Blueprint.Name, BlueprintDigest: p.Blueprint.Digest, Kind: r.Kind, Selectors: r.Selection.written(),
		Reason: r.Reason, AcceptedTiers: sorted(r.AcceptedTiers), Wait: p.wait(r),
	}}
	chosen, err := p.choose(ctx, r.Kind, r.Selection)
	if err != nil {
		return nil, err
	}
	if err := p.agree(ctx, r, to, chosen); err != nil {
		return nil, err
	}
	made.LeftOut = chosen.leftOut
	if r.Waves != nil {
		if made.Plan.Rollout, err = r.Waves(chosen.tenants); err != nil {
			return nil, err
		}
	}
	for _, s := range chosen.tenants {
		t, err := p.change(ctx, r, s, to)
		if err != nil {
			return nil, err
		}
		made.Plan.Tenants = append(made.Plan.Tenants, t)
	}
	if err := p.Foresee(ctx, r.Kind, made.Plan.GetTenants()); err != nil {
		return nil, err
	}
	if r.CopyOf, err = p.copied(ctx, r.CopyOf); err != nil {
		return nil, err
	}
	for slug, last := range chosen.toMake {
		made.Plan.Tenants = append(made.Plan.Tenants, p.newTenant(r, slug, last, to))
	}
	if len(made.Plan.GetTenants()) == 0 {
		return nil, nobody(r.Selection, chosen.leftOut)
	}
	for _, label := range r.Selection.Without(slices.Concat(chosen.tenants, chosen.labelled)) {
		if !r.again {
			return nil, fault.New(fault.NotFound, "%q chooses no tenant: see fleet tenant list", label)
		}
	}
	slices.SortFunc(made.Plan.GetTenants(), func(a, b *registryv1.TenantChange) int { return cmp.Compare(Target(a), Target(b)) })
	return made, nil
}

// Foresee has changes of tenants that there are planned by the platform, a few at once, and has them say so.
func (p *Planner) Foresee(ctx context.Context, kind registryv1.OperationKind, tenants []*registryv1.TenantChange) error {
	const atOnce = 4
	if p.Stacks == nil || kind == restore { // what a set is made of stays as it is
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, t := range tenants {
		group.Go(func() (err error) {
			if t.StackChange, err = p.Stacks.Foresee(ctx, kind, t); err != nil {
				return fmt.Errorf("tenant %s: %w", t.GetSlug(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

func nobody(s Selection, leftOut []string) error {
	why := ""
	if len(leftOut) > 0 {
		why = "; left out: " + strings.Join(leftOut, ", ")
	}
	return fault.New(fault.NotFound, "%s chooses no tenant%s: see fleet tenant list", strings.Join(s.written(), " "), why)
}

func sorted(tiers []registryv1.IsolationTier) []registryv1.IsolationTier {
	tiers = slices.Clone(tiers)
	slices.Sort(tiers)
	return slices.Compact(tiers)
}

// Target is what a plan calls a tenant: its id, or its slug where the plan makes it.
func Target(t *registryv1.TenantChange) string { return cmp.Or(t.GetTenantId(), t.GetSlug()) }

// change is what is done to a tenant that there is.
func (p *Planner) change(ctx context.Context, r Request, s *registryv1.TenantStatus, to *target) (*registryv1.TenantChange, error) {
	t := s.GetTenant()
	c := &registryv1.TenantChange{
		TenantId: t.GetId(), Slug: t.GetSlug(), IsolationTier: t.GetIsolationTier(), StateFrom: t.GetState(), StateTo: cmp.Or(kinds[r.Kind].to, t.GetState()),
		ReleaseFrom: s.GetServiceSet().GetRelease(), AfterOperation: t.GetLastOperation(), Account: t.GetAccount(),
	}
	made, before, err := p.madeBy(ctx, r.Kind, c.GetReleaseFrom(), to)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", t.GetSlug(), err)
	}
	p.withSteps(r.Kind, c, made)
	switch r.Kind {
	case offboard:
		c.Notes = []string{
			"It is stopped, and what the tenant may take along is exported; after the wait its keys are destroyed and everything of it is deleted, which can't be undone.",
			fmt.Sprintf("Nobody else can have the slug %s until its quarantine has ended, and nobody ever has the id %s again.", t.GetSlug(), t.GetId()),
		}
		copies, err := CopiesOf(ctx, p.Tenants, t.GetId())
		if err != nil {
			return nil, fmt.Errorf("look for copies of tenant %s: %w", t.GetSlug(), err)
		}
		for _, slug := range copies {
			c.Notes = append(c.Notes, fmt.Sprintf("Tenant %s is a copy of it, and keeps what it was given of it, backups among it: that one leaves by a plan of its own.", slug))
		}
	case provision, upgrade, downgrade:
		c.ReleaseTo = to.name
		if c.Migrations, c.Notes, err = p.migrations(ctx, r.Kind, c.GetReleaseFrom(), to); err != nil {
			return nil, fmt.Errorf("tenant %s: %w", t.GetSlug(), err)
		}
		if before != nil && before.Digest != made.Digest {
			c.Notes = append(c.Notes, fmt.Sprintf("What the set consists of changes, or what it is told: the release was made by the blueprint %s, the present one by %s.", short(made.Digest), short(before.Digest)))
		}
	case restore:
		c.ReleaseTo = c.GetReleaseFrom()
		return c, p.restores(ctx, r, s, c)
	default:
		c.ReleaseTo = c.GetReleaseFrom()
	}
	return c, nil
}

// restores has a change say to what its tenant is put back, and what is given up for it.
func (p *Planner) restores(ctx context.Context, r Request, s *registryv1.TenantStatus, c *registryv1.TenantChange) error {
	if r.Restore == nil || p.Restores == nil {
		return fault.New(fault.InvalidArgument, "a restore is planned with its backup: fleet plan restore --from BACKUP --to TENANT --reason '…'")
	}
	wanted := *r.Restore
	wanted.Reason = r.Reason
	var err error
	if c.Restore, err = p.Restores(ctx, s, wanted); err != nil {
		return fmt.Errorf("tenant %s: %w", c.GetSlug(), err)
	}
	c.Notes = []string{"What was done since is undone, removals of people and of what they may do among it, and everybody has to sign in again."}
	return nil
}

// copied is the id of the tenant whose copy is to be made; empty for none.
func (p *Planner) copied(ctx context.Context, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	res, err := p.Tenants.GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: name})
	if err != nil {
		return "", fmt.Errorf("look for the tenant of --copy-of: %w", fault.FromRPC(err))
	}
	return res.GetStatus().GetTenant().GetId(), nil
}

// CopiesOf are the slugs of the tenants that were made to be a tenant's copies and haven't left.
func CopiesOf(ctx context.Context, tenants registryv1.TenantServiceClient, id string) ([]string, error) {
	var out []string
	for status, err := range pages.Each(ctx, tenants.ListTenants, &registryv1.ListTenantsRequest{PageSize: 500}, (*registryv1.ListTenantsResponse).GetTenants) {
		if err != nil {
			return nil, fault.FromRPC(err)
		}
		if t := status.GetTenant(); t.GetCopyOf() == id && t.GetState() != offboarded {
			out = append(out, t.GetSlug())
		}
	}
	return out, nil
}

// newTenant is what is done to a tenant that there isn't.
func (p *Planner) newTenant(r Request, slug, last string, to *target) *registryv1.TenantChange {
	tier := r.Tier
	if tier == registryv1.IsolationTier_ISOLATION_TIER_UNSPECIFIED {
		tier = DefaultTier(p.Plane)
	}
	return p.withSteps(r.Kind, &registryv1.TenantChange{
		Slug: slug, DisplayName: cmp.Or(r.DisplayName, slug), IsolationTier: tier, StateTo: active, ReleaseTo: to.name,
		AfterOperation: last, Labels: r.Labels, Migrations: to.migrations(), Account: r.Account, CopyOf: r.CopyOf,
	}, to.made)
}

// DefaultTier is a plane's own: a server of the tenant's own where it is for customers.
func DefaultTier(plane string) registryv1.IsolationTier {
	if plane == "prod" {
		return registryv1.IsolationTier_ISOLATION_TIER_DEDICATED
	}
	return registryv1.IsolationTier_ISOLATION_TIER_DATABASE
}

// wait is how long the keys of tenants that leave are kept after their export: where it is for customers, long enough for them to say that they
// have everything. None is left out, so that a plan without a wait has one hash.
func (p *Planner) wait(r Request) *durationpb.Duration {
	const customers = 30 * 24 * time.Hour
	switch {
	case r.Kind != offboard:
		return nil
	case r.Wait != nil && *r.Wait != 0:
		return durationpb.New(*r.Wait)
	case r.Wait == nil && p.Plane == "prod":
		return durationpb.New(customers)
	}
	return nil
}

// madeBy is the blueprint that a set is made by after a change, and before it, nil where that isn't known. One that can't be gone back to is
// refused before anything is changed; where nothing is started, any does.
func (p *Planner) madeBy(ctx context.Context, kind registryv1.OperationKind, from string, to *target) (made, before *blueprint.Blueprint, err error) {
	if from == "" {
		return cmp.Or(to.made, p.Blueprint), nil, nil
	}
	res, err := p.Releases.GetRelease(ctx, &registryv1.GetReleaseRequest{Name: from})
	if err = fault.FromRPC(err); err != nil && fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.InvalidArgument {
		// It isn't believed, which is no hindrance to leave it; whoever starts it is told.
		return cmp.Or(to.made, p.Blueprint), nil, nil //nolint:nilerr // as above
	}
	before, err = p.MadeBy(from, res.GetRelease().GetManifest())
	switch {
	case err != nil && kind == upgrade:
		return nil, nil, fmt.Errorf("it could not go back to the release that it runs: %w", err)
	case err != nil && kind == resume:
		return nil, nil, err
	}
	return cmp.Or(to.made, before, p.Blueprint), before, nil
}

func (p *Planner) withSteps(kind registryv1.OperationKind, c *registryv1.TenantChange, made *blueprint.Blueprint) *registryv1.TenantChange {
	c.Steps = p.Steps(kind)
	for _, wave := range made.Waves() {
		for _, component := range wave {
			c.Restarts = append(c.Restarts, component.Name)
		}
	}
	return c
}

// target is the release that a plan leads to, and the blueprint that its sets are made by, nil where a plan leads to none; its manifest is nil
// where the registry doesn't know it.
type target struct {
	name     string
	manifest *registryv1.ReleaseManifest
	made     *blueprint.Blueprint
}

func (t *target) migrations() []string {
	var out []string
	for _, m := range t.manifest.GetMigrations() {
		out = append(out, m.GetName())
	}
	return out
}

// target finds the release that is asked for. A version names one where the registry knows it; a tag never does.
func (p *Planner) target(ctx context.Context, r Request) (*target, error) {
	takes := r.Kind == provision || r.Kind == upgrade || r.Kind == downgrade
	switch {
	case !takes && r.Release != "":
		return nil, fault.New(fault.InvalidArgument, "--release is for provision, upgrade and downgrade: nothing else changes a release")
	case !takes:
		return &target{}, nil
	case r.Release == "" && (p.Built.String() == "" || p.Plane == "prod"):
		return nil, fault.New(fault.InvalidArgument, "say which release: --release VERSION, of fleet release list")
	}
	asked := cmp.Or(r.Release, p.Built.String())
	res, err := p.Releases.GetRelease(ctx, &registryv1.GetReleaseRequest{Name: asked})
	err = fault.FromRPC(err)
	if err == nil {
		to := &target{name: res.GetRelease().GetName(), manifest: res.GetRelease().GetManifest()}
		to.made, err = p.MadeBy(to.name, to.manifest)
		return to, err
	}
	if fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	// What was built here, on a plane for development, is known by its digest and by nothing else.
	if p.Plane != "prod" && asked == p.Built.String() {
		return &target{name: asked, made: p.Blueprint}, nil
	}
	if _, perr := release.ParseName(asked); perr != nil {
		return nil, fault.New(fault.InvalidArgument, "the registry knows no release %q and %v", asked, perr)
	}
	return nil, fault.New(fault.NotFound, "the registry knows no release %s: register it with fleet release register", asked)
}

// migrations are those that will run: what the release to come brings and the present one didn't.
func (p *Planner) migrations(ctx context.Context, kind registryv1.OperationKind, from string, to *target) (names, notes []string, err error) {
	if err := order(kind, from, to); err != nil {
		return nil, nil, err
	}
	if kind == downgrade {
		return nil, []string{"The database stays as it is: migrations are not taken back."}, nil
	}
	if to.manifest == nil {
		return nil, []string{"Which migrations will run is not known: nobody registered the release, it was built here."}, nil
	}
	had := map[string]bool{}
	if from != "" {
		res, err := p.Releases.GetRelease(ctx, &registryv1.GetReleaseRequest{Name: from})
		switch err = fault.FromRPC(err); {
		case err == nil:
			for _, m := range res.GetRelease().GetManifest().GetMigrations() {
				had[m.GetName()] = true
			}
		case errors.Is(err, release.ErrUnsigned), errors.Is(err, release.ErrChanged):
			// It is left, and a key that isn't trusted any more may be why.
			notes = []string{"Some of the migrations may have run already: what the registry says of the present release is not believed."}
		case fault.KindOf(err) == fault.NotFound || fault.KindOf(err) == fault.InvalidArgument:
			notes = []string{"Some of the migrations may have run already: nobody registered the present release."}
		default:
			return nil, nil, err
		}
	}
	for _, name := range to.migrations() {
		if !had[name] {
			names = append(names, name)
		}
	}
	return names, notes, nil
}

func named(text string) (release.Name, bool) {
	n, err := release.ParseName(text)
	return n, err == nil
}

// order refuses an upgrade that goes back, one that skips what it may not, and a downgrade that goes on.
func order(kind registryv1.OperationKind, from string, to *target) error {
	// What has no version of its own has no order: it was built, or it is from before releases had names.
	old, oldNamed := named(from)
	next, nextNamed := named(to.name)
	if !oldNamed || !nextNamed || old.Version == release.Development || next.Version == release.Development {
		return nil
	}
	switch c := release.Compare(next.Version, old.Version); {
	case kind == upgrade && c < 0:
		return fault.New(fault.FailedPrecondition, "it runs %s, and %s is older: plan a downgrade", old.Version, next.Version)
	case kind == downgrade && c > 0:
		return fault.New(fault.FailedPrecondition, "it runs %s, and %s is newer: plan an upgrade", old.Version, next.Version)
	}
	least := to.manifest.GetMinimumVersion()
	if kind == upgrade && least != "" && release.Compare(old.Version, least) < 0 {
		return fault.New(fault.FailedPrecondition, "it runs %s, and %s is reached from %s or later: upgrade it to that first", old.Version, next.Version, least)
	}
	return nil
}
