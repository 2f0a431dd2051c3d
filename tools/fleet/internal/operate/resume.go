package operate

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// Resume takes up an operation that somebody began: at the place that its plan names, and by the blueprint that was approved with it. Where
// that isn't here, it can be taken up there, or be given up, and what is to be done instead is planned here.
func (e *Engine) Resume(ctx context.Context, operation string) (*registryv1.Operation, error) {
	res, err := registryv1.NewOperationServiceClient(e.Conn).GetOperation(ctx, &registryv1.GetOperationRequest{OperationId: operation})
	if err != nil {
		return nil, fault.FromRPC(err)
	}
	if op := res.GetOperation(); op.GetState() == registryv1.OperationState_OPERATION_STATE_UNFINISHED && op.GetPlanHash() != "" {
		w := &work{Engine: e, op: op}
		planned, err := w.plan(ctx)
		if err != nil {
			return nil, err
		}
		if err := w.ofHere(ctx, planned); err != nil {
			return nil, fmt.Errorf("operation %[1]s is not taken up here: %[2]w; take it up there, or give it up with fleet operation abort %[1]s --reason '…' and plan anew what is to be done", operation, err)
		}
	}
	return e.Carry(ctx, operation)
}

// ofHere refuses an operation whose plan is not for here.
func (w *work) ofHere(ctx context.Context, planned *registryv1.Plan) error {
	if err := w.place(ctx, planned); err != nil {
		where, werr := w.Platform.Where(ctx)
		if werr != nil || !Ends(w.op.GetKind()) || !where.Moved(planned.GetAccount()) {
			return err
		}
		// The plane came here since. Of who leaves and has no keys any more, there is nothing to plan anew.
		was := planned.GetAccount()
		planned = proto.CloneOf(planned)
		planned.Account = where.Account
		if err := w.place(ctx, planned); err != nil {
			return err
		}
		w.Report.Note(fmt.Sprintf("%s was planned on %s, where this plane was before: it goes on here", w.op.GetId(), was))
	}
	err := w.blueprint(planned)
	if err != nil && Ends(w.op.GetKind()) {
		// Who leaves may have waited for weeks, and have no keys to stay with.
		w.Report.Note(fmt.Sprintf("%s was planned by a blueprint with the digest %s and goes on by another, %s, which it starts nothing of", w.op.GetId(), planned.GetBlueprintDigest(), w.Blueprint.Digest))
		return nil
	}
	return err
}

// Ends says that a kind of operation starts nothing, and stops or destroys what there is.
func Ends(kind registryv1.OperationKind) bool {
	return kind == suspend || kind == offboard
}
