package plane

import (
	"context"
	"fmt"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/state"
)

// Adopt makes a tenant known to the registry again whose set is here and which the registry does not know: it was restored from a backup
// that is older than the tenant. What is made known is read at the set: each service that runs proves with its certificate whose it is, and the mark
// on the database, which this plane signed, has to say so to the registry. The tenant is suspended then; nothing of its set is touched.
func (p *Plane) Adopt(ctx context.Context, name, reason string) (*registryv1.Tenant, error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return nil, p.whyNot(err)
	}
	if err := p.openState(); err != nil {
		return nil, err
	}
	unlock, err := p.lockAndLook(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	t, ok := p.state.Tenant(name)
	if !ok || t.ID.IsZero() {
		return nil, fault.New(fault.NotFound, "this machine has no set of a tenant %q: one is adopted where its set is", name)
	}
	set := p.setOf(t)
	if err := p.platform.NotRestoring(set); err != nil {
		return nil, err
	}
	req, err := p.adoption(ctx, t, set)
	if err != nil {
		return nil, err
	}
	req.Reason = strings.TrimSpace(reason)
	conn, err := p.registry()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	res, err := registryv1.NewTenantWriteServiceClient(conn).AdoptTenant(ctx, req)
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return res.GetTenant(), nil
}

// adoption is what the set says of itself.
func (p *Plane) adoption(ctx context.Context, t state.Tenant, set platform.Set) (*registryv1.AdoptTenantRequest, error) {
	r, err := platform.ParseRelease(p.state.Runs()[set.Name()])
	if err != nil {
		return nil, fmt.Errorf("what the set of %s runs: %w", set.Slug, err)
	}
	where, err := p.carrier().Where(ctx)
	if err != nil {
		return nil, err
	}
	placed, err := p.carrier().Placed(ctx, set, r)
	if err != nil {
		return nil, err
	}
	if err := p.meet(ctx, set, placed); err != nil {
		return nil, err
	}
	mark, err := p.platform.DatabaseMark(ctx, set)
	if err != nil {
		return nil, err
	}
	return &registryv1.AdoptTenantRequest{TenantId: set.Tenant.String(), Slug: t.Slug, DisplayName: t.Name, IsolationTier: set.Tier, Account: set.Account, Region: where.Region,
		ServiceSet: placed, Mark: mark}, nil
}

// meet has each service of a set prove whose it is. One that has been stopped, with the machine perhaps, is known by its mark alone.
func (p *Plane) meet(ctx context.Context, set platform.Set, placed *registryv1.ServiceSet) error {
	run, err := p.carrier().Components(ctx, set)
	if err != nil {
		return err
	}
	if len(run) == 0 {
		p.report.Note("no service of " + set.Slug + " runs: the mark on its database alone says whose it is")
		return nil
	}
	for _, c := range placed.GetComponents() {
		if err := p.platform.Meet(ctx, set, c.GetName(), c.GetAddress()); err != nil {
			return fmt.Errorf("%s of %s does not prove whose it is: %w: see docs/operations.md, A set that nobody knows", c.GetName(), set.Slug, err)
		}
	}
	return nil
}

// strange refuses to make a tenant in the place of one whose set is here and which the registry does not know.
func (p *Plane) strange(slug string) error {
	t, here := p.state.Tenant(slug)
	if !here || t.ID.IsZero() {
		return nil
	}
	return fault.New(fault.FailedPrecondition, "the set of %s (%s) is here, and the registry does not know it: it is older than the tenant, or the tenant left; make it known again with fleet tenant adopt %s --reason '…'", slug, t.ID, slug)
}
