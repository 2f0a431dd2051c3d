package plane

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/operator"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/supervise"
)

// planner makes plans of this plane, over a connection that is open.
func (p *Plane) planner(conn *grpc.ClientConn) (*plan.Planner, error) {
	releases, err := p.believedReleases(conn)
	if err != nil {
		return nil, err
	}
	planner := &plan.Planner{
		Plane: p.state.Plane, Platform: p.carrier(), Blueprint: p.blueprint, MadeBy: p.madeBy, Steps: operate.Steps,
		Tenants: registryv1.NewTenantServiceClient(conn), Releases: releases,
		Agrees: func(ctx context.Context, status *registryv1.TenantStatus, to string) error {
			return p.agrees(ctx, conn, status, to)
		},
		Restores: p.restores,
	}
	if foreseer, is := p.carrier().(platform.Foreseer); is {
		planner.Stacks = &stacks{Plane: p, foreseer: foreseer, releases: releases}
	}
	planner.Built, err = local.Built(p.Program)
	return planner, err
}

// Plan makes a plan and has the registry keep it.
func (p *Plane) Plan(ctx context.Context, r plan.Request) (*registryv1.StoredPlan, *plan.Made, error) {
	if p.away() {
		return nil, nil, p.whyNot(supervise.ErrNotRunning)
	}
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	if r.Account != "" && p.carrier().Name() != aws.Name {
		return nil, nil, fault.New(fault.InvalidArgument, "--account is of a plane on AWS, and this one is on %s", p.carrier().Name())
	}
	if r.Restore != nil && slices.Contains(r.Selection.Tenants, p.own.Name()) {
		return nil, nil, fault.New(fault.InvalidArgument, "the plane's own registry is restored without a plan, for it holds them: fleet restore --from BACKUP --to %s --reason '…'", p.own.Name())
	}
	if r.Restore != nil { // what a set ran, and by which blueprint, is known of a plane that is open
		if err := p.whereBackupsAre(); err != nil {
			return nil, nil, err
		}
		if err := p.open(ctx); err != nil {
			return nil, nil, err
		}
	}
	planner, err := p.planner(conn)
	if err != nil {
		return nil, nil, err
	}
	made, err := planner.Make(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	res, err := registryv1.NewPlanWriteServiceClient(conn).PutPlan(ctx, &registryv1.PutPlanRequest{Plan: made.Plan})
	if err != nil {
		return nil, nil, fault.FromRPC(err)
	}
	if _, err := plan.Open(res.GetPlan()); err != nil {
		return nil, nil, err
	}
	return res.GetPlan(), made, nil
}

// Recheck holds a stored plan against the world as it is now, and refuses it with each difference. Tenants whose operation of it was
// begun already are taken up as they are.
func (p *Plane) Recheck(ctx context.Context, conn *grpc.ClientConn, stored *registryv1.StoredPlan) error {
	planner, err := p.planner(conn)
	if err != nil {
		return err
	}
	client, begun := registryv1.NewOperationServiceClient(conn), map[string]bool{}
	req := &registryv1.ListOperationsRequest{PlanHash: stored.GetHash(), PageSize: 500}
	for o, err := range pages.Each(ctx, client.ListOperations, req, (*registryv1.ListOperationsResponse).GetOperations) {
		if err != nil {
			return err
		}
		begun[o.GetPlanTarget()] = true
	}
	return planner.Recheck(ctx, stored, begun)
}

// StoredPlan reads a plan by its hash, whole or its beginning, with or without `sha256:`.
func (p *Plane) StoredPlan(ctx context.Context, hash string) (*registryv1.StoredPlan, *registryv1.Plan, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	return storedPlan(ctx, conn, hash)
}

// Plans lists the plans that can still be carried out, the newest first.
func (p *Plane) Plans(ctx context.Context) ([]*registryv1.StoredPlan, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return pages.All(ctx, registryv1.NewPlanServiceClient(conn).ListPlans, &registryv1.ListPlansRequest{}, (*registryv1.ListPlansResponse).GetPlans)
}

// Approve is the operator's word for a plan that somebody else made.
func (p *Plane) Approve(ctx context.Context, hash, reason string) (*registryv1.StoredPlan, error) {
	// What is approved is what is shown: the hash is made whole by reading the plan, whose text it must be of.
	stored, _, err := p.StoredPlan(ctx, hash)
	if err != nil {
		return nil, err
	}
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := registryv1.NewPlanWriteServiceClient(conn).ApprovePlan(ctx, &registryv1.ApprovePlanRequest{Hash: stored.GetHash(), Reason: reason})
	return res.GetPlan(), fault.FromRPC(err)
}

// Label sets and removes a tenant's labels.
func (p *Plane) Label(ctx context.Context, tenant string, set map[string]string, remove []string) (*registryv1.TenantStatus, error) {
	status, err := p.ShowTenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := registryv1.NewTenantWriteServiceClient(conn).SetTenantLabels(ctx, &registryv1.SetTenantLabelsRequest{
		TenantId: status.GetTenant().GetId(), Set: maps.Clone(set), Remove: remove})
	status.Tenant = res.GetTenant()
	return status, fault.FromRPC(err)
}

// connected is the registry of a plane that is up, for who changes nothing on this machine: of the plane that is here or, where none is, of
// the one that A3_OPERATOR_DIR is for.
func (p *Plane) connected(ctx context.Context) (*grpc.ClientConn, func(), error) {
	if p.away() {
		o, err := operator.Open(p.Settings.OperatorDir)
		if err != nil {
			return nil, nil, err
		}
		conn, err := o.Dial()
		if err != nil {
			return nil, nil, err
		}
		return conn, func() { _ = conn.Close() }, nil
	}
	if err := p.supervisor.Ping(ctx); err != nil {
		return nil, nil, p.whyNot(err)
	}
	if p.platform == nil {
		if err := p.openState(); err != nil {
			return nil, nil, err
		}
	}
	conn, err := p.registry()
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { _ = conn.Close() }, nil
}
