package operate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/plan"
)

// Apply carries a stored plan out: an operation for each of its tenants, some at once. Where one fails, no other is begun any more. To
// apply a plan again takes up what was cut off, and does nothing twice.
func (e *Engine) Apply(ctx context.Context, hash string, maxParallel int) ([]*registryv1.Operation, error) {
	stored, _, err := plan.Read(ctx, registryv1.NewPlanServiceClient(e.Conn), hash)
	if err != nil {
		return nil, err
	}
	return e.ApplyStored(ctx, stored, maxParallel)
}

// ApplyStored is Apply of a plan that was read this moment, or put.
func (e *Engine) ApplyStored(ctx context.Context, stored *registryv1.StoredPlan, maxParallel int) ([]*registryv1.Operation, error) {
	planned, err := plan.Open(stored)
	if err != nil {
		return nil, err
	}
	if err := e.Here(ctx, planned); err != nil {
		return nil, err
	}
	if err := e.Recheck(ctx, stored); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var out []*registryv1.Operation
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, maxParallel))
	for _, t := range planned.GetTenants() {
		group.Go(func() error {
			if gctx.Err() != nil {
				return nil //nolint:nilerr // another one failed, which is what is told: nothing more is begun
			}
			target := t.GetTenantId()
			if target == "" {
				target = t.GetSlug()
			}
			// What is under way is ended in good order when another one fails.
			op, err := e.begin(ctx, stored.GetHash(), target)
			if op != nil {
				mu.Lock()
				out = append(out, op)
				mu.Unlock()
			}
			return err
		})
	}
	return out, group.Wait()
}

// ApplyMade carries out a plan of one tenant that was made this moment, of what was read this moment: it is stored, begun and leased by one word
// at the registry, which holds it against what it knows.
func (e *Engine) ApplyMade(ctx context.Context, plan *registryv1.Plan) error {
	if err := e.Here(ctx, plan); err != nil {
		return err
	}
	at, err := e.Memory.Place()
	if err != nil {
		return err
	}
	req := &registryv1.PutPlanRequest{Plan: plan, BeginAt: at, LeaseToken: holder.Secret()}
	w := &work{Engine: e}
	var res *registryv1.PutPlanResponse
	// What of the release is believed is looked for meanwhile.
	var asking errgroup.Group
	asking.Go(func() error {
		return heardOut(ctx, func(ctx context.Context) (err error) {
			res, err = registryv1.NewPlanWriteServiceClient(e.Conn).PutPlan(ctx, req)
			return err
		})
	})
	asking.Go(func() error {
		t := plan.GetTenants()[0]
		w.lookForRelease(ctx, t.GetReleaseFrom(), t.GetReleaseTo())
		return nil
	})
	if err := asking.Wait(); err != nil {
		return fault.FromRPC(err)
	}
	op := res.GetOperation()
	if op == nil {
		// Its operation is there already, or the registry is of a release before this one, which begins nothing with a plan.
		_, err := e.ApplyStored(ctx, res.GetPlan(), 1)
		return err
	}
	w.lease = &lease{e, op.GetId(), req.GetLeaseToken()}
	if err := failpoint.Here("fleet.own.put"); err != nil {
		return err
	}
	w.op, w.tenant, w.begun = op, res.GetTenant(), begunStep(op)
	_, err = w.carry(ctx)
	return err
}

func (e *Engine) begin(ctx context.Context, hash, tenant string) (*registryv1.Operation, error) {
	op, err := e.once(ctx, hash, tenant)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == "OPERATION_ENDED" {
		// Somebody ended it while their lease was waited for; how, it says itself.
		return e.once(ctx, hash, tenant)
	}
	return op, err
}

func (e *Engine) once(ctx context.Context, hash, tenant string) (*registryv1.Operation, error) {
	res, err := registryv1.NewOperationWriteServiceClient(e.Conn).BeginOperation(ctx, &registryv1.BeginOperationRequest{PlanHash: hash, Tenant: tenant})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	op := res.GetOperation()
	if op.GetState() == registryv1.OperationState_OPERATION_STATE_SUCCEEDED {
		e.Report.Note(fmt.Sprintf("operation %s has ended before: nothing is left to do", op.GetId()))
		return op, nil
	}
	if op.GetState() == registryv1.OperationState_OPERATION_STATE_ABORTED {
		return op, fmt.Errorf("operation %s of this plan was given up by %s (%s): make the plan anew", op.GetId(), op.GetAbortedBy(), op.GetAbortReason())
	}
	return e.Carry(ctx, op.GetId())
}

// Here refuses a plan that was made for another place, or by another blueprint.
func (e *Engine) Here(ctx context.Context, plan *registryv1.Plan) error {
	if err := e.place(ctx, plan); err != nil {
		return err
	}
	return e.blueprint(plan)
}

// elsewhere is what of a plan is of another place; nil where it is of here.
func elsewhere(what, planned, is string) error {
	if planned == is {
		return nil
	}
	return fault.New(fault.FailedPrecondition, "the plan is for %s %s and this is %s: apply it there, or make it here", what, planned, is)
}

func (e *Engine) place(ctx context.Context, plan *registryv1.Plan) error {
	where, err := e.Platform.Where(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		elsewhere("plane", plan.GetPlane(), e.Registry.Plane),
		elsewhere("platform", plan.GetPlatform(), e.Platform.Name()),
		elsewhere("account", plan.GetAccount(), where.Account),
		elsewhere("region", plan.GetRegion(), where.Region),
		elsewhere("blueprint", plan.GetBlueprint(), e.Blueprint.Name),
	)
}

func (e *Engine) blueprint(plan *registryv1.Plan) error {
	return elsewhere("a blueprint with the digest", plan.GetBlueprintDigest(), e.Blueprint.Digest)
}
