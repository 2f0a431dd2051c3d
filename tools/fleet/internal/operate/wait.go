package operate

import (
	"context"
	"errors"
	"fmt"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// errWaits ends the work on an operation that waits. It is no failure: whoever takes it up later goes on.
var errWaits = errors.New("the operation waits")

// waited has it on record that the operation has waited for as long as its plan says. The registry refuses that before, by its own clock: what
// this machine's says neither shortens the wait nor prolongs it.
func (w *work) waited(ctx context.Context) error {
	p, err := w.plan(ctx)
	if err != nil {
		return err
	}
	op, err := w.read(ctx)
	if err != nil {
		return err
	}
	if p.GetWait() != nil && op.GetWaitsUntil() == nil {
		return fmt.Errorf("the plan has keys kept for %s and the registry, which counts that, knows nothing of it: it is of an earlier release, bring it up with fleet plane up first",
			p.GetWait().AsDuration())
	}
	err = w.record(ctx, recording{step: StepWait, state: registryv1.StepState_STEP_STATE_DONE})
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Reason == "OPERATION_WAITS" {
		w.waits = f.Message
	}
	return err
}

// waiting tells that the operation waits, and answers it as it stands.
func (w *work) waiting(ctx context.Context) (*registryv1.Operation, error) {
	w.Report.Note(fmt.Sprintf("%s of %s waits: %s", Kind(w.op.GetKind()), w.set.Slug, w.waits))
	return w.read(ctx)
}

// read is the operation as it stands.
func (w *work) read(ctx context.Context) (*registryv1.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	res, err := registryv1.NewOperationServiceClient(w.Conn).GetOperation(ctx, &registryv1.GetOperationRequest{OperationId: w.op.GetId()})
	return res.GetOperation(), fault.FromRPC(err)
}

// stoppedStill refuses to go on towards the destruction of keys where the set runs, which the operation had stopped: it may have been given up and
// the tenant resumed since, and a registry that was restored knows nothing of that.
func (w *work) stoppedStill(ctx context.Context) error {
	if w.op.GetKind() != offboard || w.stands(StepStop) != registryv1.StepState_STEP_STATE_DONE || w.stands(StepShred) != registryv1.StepState_STEP_STATE_UNSPECIFIED {
		return nil
	}
	run, err := w.Platform.Components(ctx, w.set)
	if err != nil || len(run) == 0 {
		return err
	}
	return fault.New(fault.FailedPrecondition, "its set runs, though the operation had stopped it, and nothing is destroyed of one that may be served. Was it given up and the tenant resumed, "+
		"and the registry restored from a backup of before: fleet operation abort %s --reason '…', and fleet plan resume --tenant %s --reason '…'. Else stop it with fleet repair --tenant %s",
		w.op.GetId(), w.set.Slug, w.set.Slug)
}

// stands is where a step of the operation does.
func (w *work) stands(step string) registryv1.StepState {
	for _, s := range w.op.GetSteps() {
		if s.GetName() == step {
			return s.GetState()
		}
	}
	return registryv1.StepState_STEP_STATE_UNSPECIFIED
}
