package plane

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/state"
)

// Why a plane of this machine is changed by who has it brought up.
const (
	reasonUp     = "fleet plane up: the settings name the tenant"
	reasonCreate = "fleet tenant create"
	reasonNewer  = "fleet plane up: what was built here is newer than what the tenant runs"
)

// setOf is the set of a tenant that the plane remembers, with the blueprint that it was started by.
func (p *Plane) setOf(t state.Tenant) platform.Set {
	tier := registryv1.IsolationTier_ISOLATION_TIER_DATABASE
	if t.Dedicated {
		tier = registryv1.IsolationTier_ISOLATION_TIER_DEDICATED
	}
	b, err := p.remembered(t.ID.String())
	if err != nil {
		// Whoever starts it is told why (madeBy, started); what else is done with it takes no more than what is here.
		b = p.blueprint
	}
	return platform.Set{Blueprint: b, Tenant: t.ID, Slug: t.Slug, Tier: tier, Account: t.Account}
}

// Tenant makes a tenant with its set, or brings what is there up to date, and says whether there was anything to do. The plane's own
// services run. A tenant that is suspended stays so, and so does one that is being suspended or leaves. Without a tier a new one gets the plane's own.
func (p *Plane) Tenant(ctx context.Context, slug, name, admin, reason string, tier registryv1.IsolationTier) (changed bool, err error) {
	conn, err := p.patient()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return p.tenant(ctx, conn, slug, name, admin, reason, tier)
}

// tenant is Tenant over a connection that is open.
func (p *Plane) tenant(ctx context.Context, conn *grpc.ClientConn, slug, name, admin, reason string, tier registryv1.IsolationTier) (changed bool, err error) {
	status, err := whoever(ctx, conn, slug)
	if err != nil {
		return false, err
	}
	if status == nil || left(status) {
		if err := p.strange(slug); err != nil {
			return false, err
		}
		return true, p.provision(ctx, conn, status.GetTenant(), slug, name, admin, reason, tier)
	}
	t := status.GetTenant()
	if tier != registryv1.IsolationTier_ISOLATION_TIER_UNSPECIFIED && tier != t.GetIsolationTier() {
		return false, fault.New(fault.FailedPrecondition, "%s is there already with another isolation tier, and a tenant keeps the one that it was made with: take it away first, or leave --tier out", slug)
	}
	op, err := unfinished(ctx, conn, t.GetId())
	if err != nil {
		return false, err
	}
	if op != nil {
		return p.underWay(ctx, conn, status, op)
	}
	change := changeOf(status)
	switch t.GetState() {
	case registryv1.TenantState_TENANT_STATE_PROVISIONING:
		change.StateTo, change.ReleaseTo = registryv1.TenantState_TENANT_STATE_ACTIVE, p.release.String()
		if err := p.one(ctx, conn, registryv1.OperationKind_OPERATION_KIND_PROVISION, change, reason); err != nil {
			return true, err
		}
		return true, p.served(slug)
	case registryv1.TenantState_TENANT_STATE_ACTIVE:
		if err := p.upToDate(ctx, conn, status); err != nil {
			return false, err
		}
		if outdated(status.GetServiceSet().GetRelease(), p.release) && p.state.Plane == "dev" {
			change.StateTo, change.ReleaseTo = registryv1.TenantState_TENANT_STATE_ACTIVE, p.release.String()
			return true, p.one(ctx, conn, registryv1.OperationKind_OPERATION_KIND_UPGRADE, change, reasonNewer)
		}
		return p.converge(ctx, conn, status)
	default:
		p.report.Note(fmt.Sprintf("%s is suspended and stays so: fleet plan resume --tenant %s --reason '…'", slug, slug))
		p.resting = append(p.resting, slug)
		return false, p.rests(ctx, slug)
	}
}

// underWay takes up what somebody began with a tenant and what ends with a set that serves. What stops or destroys one goes on by the word of
// somebody who names it, and by no other: a customer may still be talking, and a registry that was restored has what was given up since.
func (p *Plane) underWay(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus, op *registryv1.Operation) (changed bool, err error) {
	slug := status.GetTenant().GetSlug()
	if operate.Ends(op.GetKind()) {
		p.report.Note(fmt.Sprintf("%s of %s is not finished, and is left as it stands: fleet operation resume %[3]s goes on with it, fleet operation abort %[3]s --reason '…' gives it up, while no keys are destroyed",
			operate.Kind(op.GetKind()), slug, op.GetId()))
		p.resting = append(p.resting, slug)
		if status.GetTenant().GetState() == registryv1.TenantState_TENANT_STATE_SUSPENDED {
			err = p.rests(ctx, slug)
		}
		return false, err
	}
	if err := p.upToDate(ctx, conn, status); err != nil {
		return false, err
	}
	e, err := p.operations(conn)
	if err != nil {
		return false, err
	}
	if _, err := e.Resume(ctx, op.GetId()); err != nil {
		return true, err
	}
	return true, p.served(slug)
}

// known is a tenant that the registry has; nil for one that it never had, or that left.
func known(ctx context.Context, conn *grpc.ClientConn, slug string) (*registryv1.TenantStatus, error) {
	status, err := whoever(ctx, conn, slug)
	if left(status) {
		return nil, err
	}
	return status, err
}

// left says that a tenant is one that left.
func left(s *registryv1.TenantStatus) bool {
	return s.GetTenant().GetState() == registryv1.TenantState_TENANT_STATE_OFFBOARDED
}

// whoever is the tenant of a slug or id, also one that left; nil where there never was one.
func whoever(ctx context.Context, conn *grpc.ClientConn, tenant string) (*registryv1.TenantStatus, error) {
	res, err := registryv1.NewTenantServiceClient(conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: tenant})
	if err := fault.FromRPC(err); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			return nil, nil //nolint:nilnil // no such tenant is an answer
		}
		return nil, err
	}
	return res.GetStatus(), nil
}

// unfinished is the operation that a tenant has and that isn't finished; nil for none.
func unfinished(ctx context.Context, conn *grpc.ClientConn, tenant string) (*registryv1.Operation, error) {
	res, err := registryv1.NewOperationServiceClient(conn).ListOperations(ctx, &registryv1.ListOperationsRequest{TenantId: tenant, Unfinished: true, PageSize: 1})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	for _, op := range res.GetOperations() {
		return op, nil
	}
	return nil, nil //nolint:nilnil // none is an answer
}

// changeOf is a change of a tenant as it stands.
func changeOf(s *registryv1.TenantStatus) *registryv1.TenantChange {
	t := s.GetTenant()
	return &registryv1.TenantChange{
		TenantId: t.GetId(), Slug: t.GetSlug(), IsolationTier: t.GetIsolationTier(), Account: t.GetAccount(), StateFrom: t.GetState(),
		ReleaseFrom: s.GetServiceSet().GetRelease(), AfterOperation: t.GetLastOperation(),
	}
}

// outdated says that a set runs what was built here before. A release that somebody registered is not replaced by what was built.
func outdated(runs string, built platform.Release) bool {
	n, err := release.ParseName(runs)
	if err != nil {
		return true // from before releases had this form
	}
	return n.Version == release.Development && n != built.Name
}

// provision makes a tenant. before is the one that had its slug and left; nil where none did.
func (p *Plane) provision(ctx context.Context, conn *grpc.ClientConn, before *registryv1.Tenant, slug, name, admin, reason string, tier registryv1.IsolationTier) error {
	t, err := p.state.Remember(slug, id.Tenant{}, func(t *state.Tenant) {
		if t.Admin = admin; name != "" {
			t.Name = name
		}
	})
	if err != nil {
		return err
	}
	if tier == registryv1.IsolationTier_ISOLATION_TIER_UNSPECIFIED {
		tier = plan.DefaultTier(p.state.Plane)
	}
	err = p.one(ctx, conn, registryv1.OperationKind_OPERATION_KIND_PROVISION, &registryv1.TenantChange{
		Slug: slug, DisplayName: t.Name, IsolationTier: tier, AfterOperation: before.GetLastOperation(),
		StateTo: registryv1.TenantState_TENANT_STATE_ACTIVE, ReleaseTo: p.release.String(),
	}, reason)
	if err == nil {
		return p.served(slug)
	}
	if t, ok := p.state.Tenant(slug); ok && t.ID.IsZero() && isUsage(err) {
		// The registry will never have it: nothing is left behind.
		return errors.Join(err, p.state.Drop(slug))
	}
	return err
}

// isUsage says that the registry refused what was asked for, whoever asks again.
func isUsage(err error) bool {
	k := fault.KindOf(err)
	return k == fault.InvalidArgument || k == fault.AlreadyExists || k == fault.FailedPrecondition
}

// served remembers that a tenant was reached.
func (p *Plane) served(slug string) error {
	if _, ok := p.state.Tenant(slug); !ok {
		return nil
	}
	_, err := p.state.Change(slug, func(t *state.Tenant) { t.Served, t.Suspended, t.URL = true, false, p.Settings.URL(slug) })
	return err
}

// converge has a set be again what it is to be already: after the machine was started anew, or a file was lost. It is no change of
// the tenant.
func (p *Plane) converge(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus) (changed bool, err error) {
	t, ok := p.state.Tenant(status.GetTenant().GetId())
	if !ok {
		return false, fmt.Errorf("tenant %s is not of this machine: its set is made and changed where that runs", status.GetTenant().GetSlug())
	}
	r, err := platform.ParseRelease(status.GetServiceSet().GetRelease())
	if err != nil {
		return false, err
	}
	releases, err := p.believedReleases(conn)
	if err != nil {
		return false, err
	}
	pf, set := p.carrier(), p.setOf(t)
	if set.Blueprint, err = p.madeByName(ctx, releases, r.String()); err != nil {
		return false, err
	}
	if set.Tier = status.GetTenant().GetIsolationTier(); set.Dedicated() != t.Dedicated {
		// It was made before its tier was remembered.
		if t, err = p.state.Change(t.Slug, func(t *state.Tenant) { t.Dedicated = set.Dedicated() }); err != nil {
			return false, err
		}
	}
	if err := p.platform.NotRestoring(set); err != nil {
		return false, err
	}
	steps := []struct {
		what string
		do   func() (bool, error)
	}{
		{"keys and certificates of its own", sequence(
			func() (bool, error) { return pf.Fetch(ctx, r) },
			func() (bool, error) { return pf.Identity(ctx, set) },
			func() (bool, error) { return p.ahead(ctx, set) },
			func() (bool, error) { return p.licensed(ctx, conn, set) },
			func() (bool, error) { return p.nameFirstAdmin(set, t.Admin) })},
		{"database and roles of its own", sequence(
			func() (bool, error) { return pf.Database(ctx, set) },
			func() (bool, error) { return pf.Migrate(ctx, set, r) },
			func() (bool, error) { return pf.Mark(ctx, set) })},
		{fmt.Sprintf("its %d services", len(set.Blueprint.Components)), func() (bool, error) { return pf.Start(ctx, set, r) }},
		{"reachable at " + p.Settings.URL(t.Slug), sequence(
			func() (bool, error) { return false, p.place(ctx, conn, set, r, status.GetServiceSet()) },
			func() (bool, error) { return p.reach(ctx, t, set) })},
	}
	for _, s := range steps {
		if err := p.step(&changed, t.Slug+": "+s.what, s.do); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// ahead makes the keys that fleet's own blueprint has beside those of the set's, where a change of the set is foreseen: what a stack is told of
// a key has to be there then.
func (p *Plane) ahead(ctx context.Context, set platform.Set) (changed bool, err error) {
	if _, foresees := p.carrier().(platform.Foreseer); !foresees || set.Blueprint.Digest == p.blueprint.Digest {
		return false, nil
	}
	set.Blueprint = p.blueprint
	return p.platform.Identity(ctx, set)
}

// place says to the registry where the set is, where that isn't what it knows.
func (p *Plane) place(ctx context.Context, conn *grpc.ClientConn, set platform.Set, r platform.Release, known *registryv1.ServiceSet) error {
	placed, err := p.carrier().Placed(ctx, set, r)
	if err != nil || proto.Equal(placed, known) {
		return err
	}
	_, err = registryv1.NewTenantWriteServiceClient(conn).PutServiceSet(ctx, &registryv1.PutServiceSetRequest{TenantId: set.Tenant.String(), ServiceSet: placed})
	return fault.FromRPC(err)
}

// reach returns when the tenant answers through the gateway.
func (p *Plane) reach(ctx context.Context, t state.Tenant, set platform.Set) (bool, error) {
	if err := p.front(set).Await(ctx); err != nil {
		return false, err
	}
	first := !t.Served
	return first, p.served(t.Slug)
}
