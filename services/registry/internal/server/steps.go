package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/rollout"
	"a3os.app/services/registry/internal/store"
)

const (
	stepBegun  = "begun"
	stepDone   = "done"
	stepFailed = "failed"

	succeeded = "succeeded"
	aborted   = "aborted"
)

// errWaits is an operation that waits, as its plan has it wait.
var errWaits = fault.Declare(fault.FailedPrecondition, "OPERATION_WAITS", "the operation waits")

// RecordStep says that a step begins, is done, or failed; of one that is done also which one begins then, or that it was the last.
func (s *operationWrites) RecordStep(ctx context.Context, req *registryv1.RecordStepRequest) (*registryv1.RecordStepResponse, error) {
	if req.GetThenFinish() {
		return s.recordLast(ctx, req)
	}
	res := &registryv1.RecordStepResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		row, err := ch.leased(ctx, req.GetOperationId(), req.GetLeaseToken())
		if err != nil {
			return err
		}
		if err := open(row.Operation); err != nil {
			return err
		}
		if err := ch.recordAll(ctx, row.Operation, req); err != nil {
			return err
		}
		res.Operation, err = whole(ctx, ch.q, row.Operation)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// recordLast is RecordStep of the last step, which ends the operation. To say so again under the same lease answers it.
func (s *operationWrites) recordLast(ctx context.Context, req *registryv1.RecordStepRequest) (*registryv1.RecordStepResponse, error) {
	if req.GetState() != registryv1.StepState_STEP_STATE_DONE || req.GetThenBegin() != "" {
		return nil, fault.New(fault.InvalidArgument, "then_finish: an operation ends when its last step is done, and none begins then")
	}
	res := &registryv1.RecordStepResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		if !ch.tenant.IsZero() {
			return fault.New(fault.PermissionDenied, "then_finish: a provisioner records steps, and an operator ends the operation")
		}
		t, row, err := ch.leasedWithTenant(ctx, req.GetOperationId(), req.GetLeaseToken())
		if err != nil {
			return err
		}
		if row.Operation.State != succeeded {
			if err := open(row.Operation); err != nil {
				return err
			}
			if err := ch.recordAll(ctx, row.Operation, req); err != nil {
				return err
			}
		}
		res.Operation, err = ch.finish(ctx, t, row.Operation)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// recordAll moves a step on, and has the one begin that is to begin then.
func (ch change) recordAll(ctx context.Context, o store.Operation, of *registryv1.RecordStepRequest) error {
	if err := ch.record(ctx, o, of.GetStep(), word(stepPrefix, of.GetState()), of.GetDetail()); err != nil {
		return err
	}
	next := of.GetThenBegin()
	if next == "" {
		return nil
	}
	if of.GetState() != registryv1.StepState_STEP_STATE_DONE {
		return fault.New(fault.InvalidArgument, "step %s begins when the one before it is done, and %s is not", next, of.GetStep())
	}
	return ch.record(ctx, o, next, stepBegun, "")
}

// record moves a step on. What is done stays done, and to say so again changes nothing.
func (ch change) record(ctx context.Context, o store.Operation, name, to, detail string) error {
	steps, err := ch.q.StepsBetween(ctx, store.StepsBetweenParams{Lowest: o.ID, Highest: o.ID})
	if err != nil {
		return fmt.Errorf("read the steps: %w", err)
	}
	at := slices.IndexFunc(steps, func(s store.OperationStep) bool { return s.Name == name })
	if at < 0 {
		return fault.New(fault.InvalidArgument, "operation %s has no step %s", o.ID, name)
	}
	step := steps[at]
	if step.State == stepDone {
		if to == stepDone {
			return nil
		}
		return fault.New(fault.FailedPrecondition, "step %s of operation %s is done, and stays done", name, o.ID)
	}
	if name == stepWait && to == stepDone || name == stepShred && to == stepBegun {
		if err := ch.waited(ctx, o); err != nil {
			return err
		}
	}
	if to == stepBegun {
		err = ch.beginStep(ctx, o, steps, at, detail)
	} else {
		err = ch.endStep(ctx, o, step, to, detail)
	}
	if err != nil {
		return err
	}
	return ch.noteOperation(ctx, o, "step_"+to, "step", name, "detail", detail)
}

// waited refuses to go on while the operation's plan has it wait.
func (ch change) waited(ctx context.Context, o store.Operation) error {
	until, err := ch.q.WaitsUntil(ctx, o.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whether the operation waits: %w", err)
	}
	return errWaits.With("its keys are not destroyed before %s: take it up then with fleet operation resume %s, or give it up with fleet operation abort %s --reason '…'",
		until.UTC().Format(time.RFC3339), o.ID, o.ID)
}

func (ch change) beginStep(ctx context.Context, o store.Operation, steps []store.OperationStep, at int, detail string) error {
	for _, earlier := range steps[:at] {
		if earlier.State != stepDone {
			return fault.New(fault.FailedPrecondition, "step %s of operation %s comes after %s, which is not done", steps[at].Name, o.ID, earlier.Name)
		}
	}
	begunBefore := slices.ContainsFunc(steps, func(s store.OperationStep) bool { return s.Attempts > 0 })
	if !begunBefore && o.ReleaseTo != "" && o.ReleaseTo != o.ReleaseFrom {
		// From here on the set is meant to run the new release: what is found of the earlier one is on its way.
		if err := ch.q.SetRelease(ctx, store.SetReleaseParams{TenantID: o.TenantID, Release: o.ReleaseTo}); err != nil {
			return fmt.Errorf("set the release: %w", err)
		}
	}
	err := ch.q.BeginStep(ctx, store.BeginStepParams{OperationID: o.ID, Name: steps[at].Name, Fence: o.LeaseFence, Detail: detail})
	if err != nil {
		return fmt.Errorf("begin the step: %w", err)
	}
	return nil
}

// endStep takes a step's end from whoever began it under the present lease: under an earlier one it may have been cut off anywhere.
func (ch change) endStep(ctx context.Context, o store.Operation, step store.OperationStep, to, detail string) error {
	if to == stepFailed && step.State == stepFailed && step.Fence == o.LeaseFence {
		return nil
	}
	if step.State != stepBegun || step.Fence != o.LeaseFence {
		return fault.New(fault.FailedPrecondition, "step %s of operation %s was not begun under lease %s: begin it first",
			step.Name, o.ID, strconv.FormatInt(o.LeaseFence, 10))
	}
	if err := ch.q.EndStep(ctx, store.EndStepParams{OperationID: o.ID, Name: step.Name, State: to, Detail: detail}); err != nil {
		return fmt.Errorf("end the step: %w", err)
	}
	return nil
}

// FinishOperation ends an operation whose steps are all done. To finish it again under the same lease answers it.
func (s *operationWrites) FinishOperation(ctx context.Context, req *registryv1.FinishOperationRequest) (*registryv1.FinishOperationResponse, error) {
	res := &registryv1.FinishOperationResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		t, row, err := ch.leasedWithTenant(ctx, req.GetOperationId(), req.GetLeaseToken())
		if err != nil {
			return err
		}
		res.Operation, err = ch.finish(ctx, t, row.Operation)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// finish ends an operation whose steps are all done, unless it has ended so before, and moves its tenant on, which is locked.
func (ch change) finish(ctx context.Context, t store.Tenant, o store.Operation) (*registryv1.Operation, error) {
	if o.State == succeeded {
		return whole(ctx, ch.q, o)
	}
	if err := open(o); err != nil {
		return nil, err
	}
	if err := ch.allDone(ctx, o); err != nil {
		return nil, err
	}
	o, err := ch.q.EndOperation(ctx, store.EndOperationParams{ID: o.ID, State: succeeded})
	if err != nil {
		return nil, fmt.Errorf("end the operation: %w", err)
	}
	if err := ch.noteOperation(ctx, o, succeeded); err != nil {
		return nil, err
	}
	ended, err := whole(ctx, ch.q, o)
	if err != nil {
		return nil, err
	}
	return ended, ch.move(ctx, t, o.StateTo)
}

// leasedWithTenant is leased, with the operation's tenant, which is locked before it.
func (ch change) leasedWithTenant(ctx context.Context, operation, token string) (store.Tenant, store.LockOperationRow, error) {
	t, err := ch.tenantOfOperation(ctx, operation)
	if err != nil {
		return t, store.LockOperationRow{}, err
	}
	row, err := ch.leased(ctx, operation, token)
	return t, row, err
}

// tenantOfOperation locks the tenant of an operation. A tenant's lock comes before its operation's everywhere, so that no two callers
// wait for each other.
func (ch change) tenantOfOperation(ctx context.Context, text string) (store.Tenant, error) {
	opr, err := id.ParseOperation(text)
	if err != nil {
		return store.Tenant{}, errNoOperation
	}
	o, err := operationRow(ctx, ch.q, opr)
	if err != nil {
		return store.Tenant{}, err
	}
	return ch.lock(ctx, o.TenantID.String())
}

func (ch change) allDone(ctx context.Context, o store.Operation) error {
	steps, err := ch.q.StepsBetween(ctx, store.StepsBetweenParams{Lowest: o.ID, Highest: o.ID})
	if err != nil {
		return fmt.Errorf("read the steps: %w", err)
	}
	for _, s := range steps {
		if s.State != stepDone {
			return fault.New(fault.FailedPrecondition, "step %s of operation %s is not done: an operation is finished when all its steps are", s.Name, o.ID)
		}
	}
	return nil
}

// Steps of which the registry knows more than the name.
const (
	// stepStart is the one from which on programs of another release run.
	stepStart = "start"
	// stepExport is the one whose end stepWait waits from.
	stepExport = "export"
	stepWait   = "wait"
	// stepShred destroys a tenant's keys.
	stepShred = "shred"
)

// AbortOperation gives an operation up. What was done stays done, and the tenant stays where it stands: a set of which nothing was started anew
// is to run what it runs. A tenant whose keys were destroyed can only leave.
func (s *operationWrites) AbortOperation(ctx context.Context, req *registryv1.AbortOperationRequest) (*registryv1.AbortOperationResponse, error) {
	res := &registryv1.AbortOperationResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		row, err := ch.operation(ctx, req.GetOperationId())
		if err != nil {
			return err
		}
		o := row.Operation
		if o.State == aborted {
			res.Operation, err = whole(ctx, ch.q, o)
			return err
		}
		if err := open(o); err != nil {
			return err
		}
		if row.Leased || req.GetLeaseToken() != "" {
			if _, err := ch.leased(ctx, req.GetOperationId(), req.GetLeaseToken()); err != nil {
				return err
			}
		}
		if err := ch.giveUp(ctx, o); err != nil {
			return err
		}
		o, err = ch.q.EndOperation(ctx, store.EndOperationParams{ID: o.ID, State: aborted, AbortedBy: ch.actor, AbortReason: req.GetReason()})
		if err != nil {
			return fmt.Errorf("end the operation: %w", err)
		}
		if res.Operation, err = whole(ctx, ch.q, o); err != nil {
			return err
		}
		return ch.noteOperation(ctx, o, aborted, "reason", req.GetReason())
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// giveUp looks how far an operation came: whether there is a way but on, and what its set is to run.
func (ch change) giveUp(ctx context.Context, o store.Operation) error {
	as, err := whole(ctx, ch.q, o)
	if err != nil {
		return err
	}
	shreds := func(s *registryv1.Step) bool { return s.GetAttempts() > 0 && s.GetName() == stepShred }
	if slices.ContainsFunc(as.GetSteps(), shreds) {
		return fault.New(fault.FailedPrecondition, "operation %s began to destroy the tenant's keys, and without them nothing can be read that is left: go on with fleet operation resume %s", o.ID, o.ID)
	}
	if !rollout.SetsBack(as) {
		return nil
	}
	if err := ch.q.SetRelease(ctx, store.SetReleaseParams{TenantID: o.TenantID, Release: o.ReleaseFrom}); err != nil {
		return fmt.Errorf("set the release: %w", err)
	}
	return nil
}
