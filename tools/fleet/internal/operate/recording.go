package operate

import (
	"context"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
)

// recording is what is said of a step.
type recording struct {
	step   string
	state  registryv1.StepState
	detail string
	// next begins in the same moment where the step is done; empty for none.
	next string
	// finishes ends the operation in the same moment.
	finishes bool
}

// after is the step that comes after one of steps; empty for the last.
func after(steps []string, i int) string {
	if i+1 == len(steps) {
		return ""
	}
	return steps[i+1]
}

// at has it on record, under a lease, and answers the operation.
func (r recording) at(ctx context.Context, conn grpc.ClientConnInterface, operation, token string) (*registryv1.Operation, error) {
	const most = 2000
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	res, err := registryv1.NewOperationWriteServiceClient(conn).RecordStep(ctx, &registryv1.RecordStepRequest{
		OperationId: operation, LeaseToken: token, Step: r.step, State: r.state, Detail: clip.Text(r.detail, most), ThenBegin: r.next, ThenFinish: r.finishes})
	return res.GetOperation(), fault.FromRPC(err)
}

// begunStep is the step of an operation that is on record as begun; empty for none. A registry of a release before this one begins none beside
// another, and is told so by itself.
func begunStep(op *registryv1.Operation) string {
	for _, s := range op.GetSteps() {
		if s.GetState() == registryv1.StepState_STEP_STATE_BEGUN {
			return s.GetName()
		}
	}
	return ""
}
