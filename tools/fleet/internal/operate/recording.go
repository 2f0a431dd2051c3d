package operate

import (
	"context"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// recording is what is said of a step.
type recording struct {
	step   string
	state  registryv1.StepState
	detail string
	// next begins in the same moment where the step is done; empty for none.
	next string
}

// after is the step that comes after one of steps; empty for the last.
func after(steps []string, i int) string {
	if i+1 == len(steps) {
		return ""
	}
	return steps[i+1]
}

// at has it on record, under a lease, and answers the next step where that is on record as begun: a registry of a release before this one
// begins none beside another, and is told so again.
func (r recording) at(ctx context.Context, conn grpc.ClientConnInterface, operation, token string) (begun string, err error) {
	const most = 2000
	if len(r.detail) > most {
		r.detail = r.detail[:most]
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	res, err := registryv1.NewOperationWriteServiceClient(conn).RecordStep(ctx, &registryv1.RecordStepRequest{
		OperationId: operation, LeaseToken: token, Step: r.step, State: r.state, Detail: r.detail, ThenBegin: r.next})
	if err != nil {
		return "", fault.FromRPC(err)
	}
	for _, s := range res.GetOperation().GetSteps() {
		if r.next != "" && s.GetName() == r.next && s.GetState() == registryv1.StepState_STEP_STATE_BEGUN {
			return r.next, nil
		}
	}
	return "", nil
}
