package plane

import (
	"context"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/standing"
	"a3os.app/tools/fleet/internal/state"
)

// Repair brings a tenant's set back to what the registry says that it is, and says whether it was anything else: the release, the
// components, whether it runs at all. It is no change of the tenant. One that waits to leave is kept stopped.
func (p *Plane) Repair(ctx context.Context, tenant string) (changed bool, err error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return false, p.whyNot(err)
	}
	if err := p.openState(); err != nil {
		return false, err
	}
	unlock, err := p.lockAndLook(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := p.open(ctx); err != nil {
		return false, err
	}
	conn, err := p.registry()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	status, err := known(ctx, conn, tenant)
	if err != nil {
		return false, err
	}
	if status == nil {
		return false, fault.New(fault.NotFound, "there is no tenant %q", tenant)
	}
	t := status.GetTenant()
	if op, err := unfinished(ctx, conn, t.GetId()); err != nil {
		return false, err
	} else if op != nil && !standing.Rests(t.GetState(), op) {
		return false, fault.New(fault.FailedPrecondition, "operation %s of %s is not finished: take it up with fleet operation resume %s", op.GetId(), t.GetSlug(), op.GetId())
	}
	switch t.GetState() {
	case registryv1.TenantState_TENANT_STATE_ACTIVE:
		if err := p.upToDate(ctx, conn, status); err != nil {
			return false, err
		}
		// What runs comes up as the platform has it: so that is put right first.
		changed, err := p.mend(ctx, conn, status)
		if err != nil {
			return changed, err
		}
		did, err := p.converge(ctx, conn, status)
		return changed || did, err
	case registryv1.TenantState_TENANT_STATE_SUSPENDED:
		tenantID, err := id.ParseTenant(t.GetId())
		if err != nil {
			return false, err
		}
		err = p.step(&changed, t.GetSlug()+": stopped, for it is suspended", func() (bool, error) {
			return p.carrier().Stop(ctx, p.setOf(state.Tenant{ID: tenantID, Slug: t.GetSlug(), Dedicated: t.GetIsolationTier() == registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, Account: t.GetAccount()}))
		})
		return changed, err
	default:
		return false, fault.New(fault.FailedPrecondition, "%s was never made: plan it with fleet plan provision --tenant %s --reason '…'", t.GetSlug(), t.GetSlug())
	}
}

// mend puts right, where the platform looks that far, what of the set was changed by hand beyond what runs.
func (p *Plane) mend(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus) (changed bool, err error) {
	inspector, is := p.carrier().(platform.Inspector)
	if !is || status.GetServiceSet() == nil {
		return false, nil
	}
	releases, err := p.believedReleases(conn)
	if err != nil {
		return false, err
	}
	b, err := p.madeByName(ctx, releases, status.GetServiceSet().GetRelease())
	if err != nil {
		return false, err
	}
	set, r, err := standing.SetOf(b, status)
	if err != nil {
		return false, err
	}
	err = p.step(&changed, set.Slug+": as its release has it", func() (bool, error) { return inspector.Mend(ctx, set, r) })
	return changed, err
}
