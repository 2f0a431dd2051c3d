package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	rolloutrules "a3os.app/libs/rollout"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/rollout"
)

// rolloutOperator changes one tenant of a rollout, with the engine of operations.
type rolloutOperator struct {
	*Plane
	engine *operate.Engine
	conn   *grpc.ClientConn
}

// Bring implements rollout.Operator: an operation that was cut off is taken up, another is begun by a plan of its own.
func (o *rolloutOperator) Bring(ctx context.Context, a rollout.Attempt) error {
	r, t := a.Rollout, a.Tenant
	kind := registryv1.OperationKind_OPERATION_KIND_UPGRADE
	if t.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK {
		kind = registryv1.OperationKind_OPERATION_KIND_DOWNGRADE
	}
	status, err := o.status(ctx, r, t)
	if err != nil {
		return err
	}
	op, gaveUp, err := o.last(ctx, r, t, status, kind)
	if err != nil {
		return err
	}
	if gaveUp {
		// With an operation that started nothing yet, its release is given up as well.
		if status, err = o.status(ctx, r, t); err != nil {
			return err
		}
	}
	if op == nil {
		if op, err = o.begin(ctx, a.Lease, r, t, status, kind, a.Release); err != nil {
			return err
		}
	}
	if op.GetId() != t.GetOperationId() {
		if err := a.Begun(op.GetId()); err != nil {
			return err
		}
	}
	switch op.GetState() {
	case registryv1.OperationState_OPERATION_STATE_SUCCEEDED:
		return nil
	case registryv1.OperationState_OPERATION_STATE_ABORTED:
		return fmt.Errorf("operation %s was given up by %s: %s", op.GetId(), op.GetAbortedBy(), op.GetAbortReason())
	default:
	}
	_, err = o.waiting(a).Carry(ctx, op.GetId())
	return inHand(err)
}

// waiting is the engine of an attempt, which says when it waits for another command of this machine.
func (o *rolloutOperator) waiting(a rollout.Attempt) *operate.Engine {
	e := *o.engine
	e.Lock = func(ctx context.Context) (unlock func(), err error) {
		over := a.Waits("another command changes this plane")
		defer over()
		return o.engine.Lock(ctx)
	}
	return &e
}

// inHand has it known of an operation whose lease is somebody else's now that it is: that is nothing its tenant did.
func inHand(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == "LEASE_LOST" {
		return fmt.Errorf("%w: %w", rollout.ErrInHand, err)
	}
	return err
}

// status is how the tenant stands; one that somebody else changed is refused.
func (o *rolloutOperator) status(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant) (*registryv1.TenantStatus, error) {
	res, err := registryv1.NewTenantServiceClient(o.conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: t.GetTenantId()})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	status := res.GetStatus()
	if why := rolloutrules.Differs(r, t, status.GetTenant().GetState(), status.GetServiceSet().GetRelease()); why != "" {
		return nil, fault.New(fault.FailedPrecondition, "%s", why)
	}
	return status, nil
}

// last is the tenant's last operation where it is what the rollout does to it now, nil where there is none. One of the rollout's that is in the
// way, because the tenant is to go back from where it was being brought, is given up, and the tenant then stands as gaveUp has it read anew.
func (o *rolloutOperator) last(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, status *registryv1.TenantStatus, kind registryv1.OperationKind) (op *registryv1.Operation, gaveUp bool, err error) {
	last := status.GetTenant().GetLastOperation()
	if last == "" {
		return nil, false, nil
	}
	res, err := registryv1.NewOperationServiceClient(o.conn).GetOperation(ctx, &registryv1.GetOperationRequest{OperationId: last})
	if err != nil {
		return nil, false, fault.FromRPC(err)
	}
	op = res.GetOperation()
	mine := op.GetRolloutId() == r.GetId()
	if mine && op.GetKind() == kind && op.GetCreatedAt().AsTime().After(t.GetChangedAt().AsTime()) {
		return op, false, nil
	}
	if !mine || op.GetState() != registryv1.OperationState_OPERATION_STATE_UNFINISHED {
		return nil, false, nil
	}
	_, err = registryv1.NewOperationWriteServiceClient(o.conn).AbortOperation(ctx, &registryv1.AbortOperationRequest{
		OperationId: op.GetId(), Reason: fmt.Sprintf("%s: the tenant is brought to another release", r.GetId())})
	return nil, err == nil, inHand(fault.FromRPC(err))
}

// begin plans what the rollout does to the tenant, and begins it as a part of the rollout.
func (o *rolloutOperator) begin(ctx context.Context, lease string, r *registryv1.Rollout, t *registryv1.RolloutTenant, status *registryv1.TenantStatus, kind registryv1.OperationKind, release string) (*registryv1.Operation, error) {
	change := changeOf(status)
	change.StateTo, change.ReleaseTo, change.Steps = registryv1.TenantState_TENANT_STATE_ACTIVE, release, operate.Steps(kind)
	b, err := o.madeByName(ctx, o.engine.Releases, release)
	if err != nil {
		return nil, err
	}
	for _, c := range b.Components {
		change.Restarts = append(change.Restarts, c.Name)
	}
	if change.StackChange, err = o.planned(ctx, r, t, kind, release); err != nil {
		return nil, err
	}
	if change.StackChange == nil {
		if err := o.foresee(ctx, o.conn, kind, change); err != nil {
			return nil, err
		}
	}
	plan, err := o.plan(ctx, kind, fmt.Sprintf("%s, attempt %d: %s", r.GetId(), t.GetAttempts(), r.GetReason()), change)
	if err != nil {
		return nil, err
	}
	put, err := registryv1.NewPlanWriteServiceClient(o.conn).PutPlan(ctx, &registryv1.PutPlanRequest{Plan: plan})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	res, err := registryv1.NewOperationWriteServiceClient(o.conn).BeginOperation(ctx, &registryv1.BeginOperationRequest{
		PlanHash: put.GetPlan().GetHash(), Tenant: t.GetTenantId(), RolloutId: r.GetId(), RolloutLeaseToken: lease})
	return res.GetOperation(), fault.FromRPC(err)
}

// planned is the change of a tenant's stack that the rollout's own plan names, where it is what is made of the tenant now: a second attempt,
// another release and the way back are planned anew.
func (o *rolloutOperator) planned(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, kind registryv1.OperationKind, release string) (*registryv1.StackChange, error) {
	if kind != registryv1.OperationKind_OPERATION_KIND_UPGRADE || t.GetAttempts() > 1 {
		return nil, nil //nolint:nilnil // none is an answer
	}
	_, plan, err := storedPlan(ctx, o.conn, r.GetPlanHash())
	if err != nil {
		return nil, err
	}
	for _, c := range plan.GetTenants() {
		if c.GetTenantId() != t.GetTenantId() || c.GetReleaseTo() != release || c.GetStackChange() == nil {
			continue
		}
		planner, err := o.planner(o.conn)
		if err != nil || planner.Stacks == nil {
			return nil, err
		}
		return c.GetStackChange(), planner.Stacks.Stands(ctx, c)
	}
	return nil, nil //nolint:nilnil // none is an answer
}

// plan is a plan of this plane, less what it does.
func (p *Plane) plan(ctx context.Context, kind registryv1.OperationKind, reason string, changes ...*registryv1.TenantChange) (*registryv1.Plan, error) {
	where, err := p.carrier().Where(ctx)
	if err != nil {
		return nil, err
	}
	const most = 500
	plan := &registryv1.Plan{
		Plane: p.state.Plane, Platform: p.carrier().Name(), Account: where.Account, Region: where.Region,
		Blueprint: p.blueprint.Name, BlueprintDigest: p.blueprint.Digest, Kind: kind, Tenants: changes, Reason: clip.Text(reason, most),
	}
	for _, c := range changes {
		plan.Selectors = append(plan.Selectors, "--tenant "+c.GetSlug())
	}
	return plan, nil
}

// PlanRollout makes the plan of a rollout, and stores it. Nothing is changed.
func (p *Plane) PlanRollout(ctx context.Context, q rollout.Request) (*registryv1.StoredPlan, *plan.Made, error) {
	r, err := p.Release(ctx, q.Release)
	if err != nil {
		return nil, nil, err
	}
	q.Blueprint = p.blueprint
	if q.Unfinished, err = p.Operations(ctx, "", true); err != nil {
		return nil, nil, err
	}
	return p.Plan(ctx, plan.Request{Kind: registryv1.OperationKind_OPERATION_KIND_UPGRADE, Selection: q.Selection, Release: r.GetName(), Reason: q.Reason, Waves: q.Waves})
}

// storedPlan reads a plan by its hash, whole or its beginning.
func storedPlan(ctx context.Context, conn *grpc.ClientConn, hash string) (*registryv1.StoredPlan, *registryv1.Plan, error) {
	return plan.Read(ctx, registryv1.NewPlanServiceClient(conn), hash)
}

// IsRollout says whether a plan is one.
func (p *Plane) IsRollout(ctx context.Context, hash string) (bool, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	_, plan, err := storedPlan(ctx, conn, hash)
	return plan.GetRollout() != nil, err
}

// Rollout begins what a plan says, or takes it up, and carries it out. What begins is held against the world once more.
func (p *Plane) Rollout(ctx context.Context, hash string) (*registryv1.Rollout, error) {
	e, done, err := p.working(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	stored, planned, err := storedPlan(ctx, e.Conn, hash)
	if err != nil {
		return nil, err
	}
	begun, err := isBegun(ctx, e.Conn, stored.GetHash())
	if err != nil {
		return nil, err
	}
	if !begun {
		if err := stillStands(ctx, e, stored, planned); err != nil {
			return nil, err
		}
	}
	res, err := registryv1.NewRolloutWriteServiceClient(e.Conn).BeginRollout(ctx, &registryv1.BeginRolloutRequest{PlanHash: stored.GetHash()})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	return p.carryRollout(ctx, e, res.GetRollout().GetId())
}

// isBegun says whether there is a rollout that a plan began, whatever plan it has now.
func isBegun(ctx context.Context, conn *grpc.ClientConn, hash string) (bool, error) {
	client := registryv1.NewRolloutServiceClient(conn)
	for r, err := range pages.Each(ctx, client.ListRollouts, &registryv1.ListRolloutsRequest{}, (*registryv1.ListRolloutsResponse).GetRollouts) {
		if err != nil {
			return false, err
		}
		if cmp.Or(r.GetBegunBy(), r.GetPlanHash()) == hash {
			return true, nil
		}
	}
	return false, nil
}

// stillStands refuses the plan of a rollout that is for another place, or of another world.
func stillStands(ctx context.Context, e *operate.Engine, stored *registryv1.StoredPlan, planned *registryv1.Plan) error {
	if err := e.Here(ctx, planned); err != nil {
		return err
	}
	return e.Recheck(ctx, stored)
}

// RetargetRollout gives a rollout another plan, which is held against the world as one is that begins.
func (p *Plane) RetargetRollout(ctx context.Context, id, hash, reason string) (*registryv1.Rollout, error) {
	e, done, err := p.working(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	stored, planned, err := storedPlan(ctx, e.Conn, hash)
	if err != nil {
		return nil, err
	}
	if err := stillStands(ctx, e, stored, planned); err != nil {
		return nil, err
	}
	res, err := registryv1.NewRolloutWriteServiceClient(e.Conn).RetargetRollout(ctx, &registryv1.RetargetRolloutRequest{RolloutId: id, PlanHash: stored.GetHash(), Reason: reason})
	return res.GetRollout(), fault.FromRPC(err)
}

// CarryRollout takes a rollout up.
func (p *Plane) CarryRollout(ctx context.Context, id string) (*registryv1.Rollout, error) {
	e, done, err := p.working(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return p.carryRollout(ctx, e, id)
}

func (p *Plane) carryRollout(ctx context.Context, e *operate.Engine, id string) (*registryv1.Rollout, error) {
	p.report.Note(fmt.Sprintf("rollout %s: see fleet rollout status %s", id, id))
	engine := &rollout.Engine{
		Conn: e.Conn, Operator: &rolloutOperator{Plane: p, engine: e, conn: e.Conn}, Report: p.report, Memory: p.holders(),
		Probe: p.probe(),
		Here: func(ctx context.Context, hash string) error {
			_, planned, err := storedPlan(ctx, e.Conn, hash)
			if err != nil {
				return err
			}
			if err := e.Here(ctx, planned); err != nil {
				return fmt.Errorf("rollout %[1]s goes by a plan that is not of here, and is not carried on: %[2]w; carry it on there, or plan the same tenants here and "+
					"fleet rollout retarget %[1]s HASH --reason '…', or give it up with fleet rollout abort %[1]s --reason '…'", id, err)
			}
			return nil
		},
	}
	return engine.Carry(ctx, id)
}

// probe asks a tenant's set what anybody may; nil where its blueprint has no such thing: what asks nothing counts as no request.
func (p *Plane) probe() func(ctx context.Context, slug string) error {
	if p.blueprint.Answers == "" {
		return nil
	}
	return func(ctx context.Context, slug string) error {
		return p.front(platform.Set{Blueprint: p.blueprint, Slug: slug}).Ask(ctx)
	}
}

// Rollouts are the registry's, for who reads and steers them.
func (p *Plane) Rollouts(ctx context.Context) (registryv1.RolloutServiceClient, registryv1.RolloutWriteServiceClient, func(), error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	return registryv1.NewRolloutServiceClient(conn), registryv1.NewRolloutWriteServiceClient(conn), done, nil
}
