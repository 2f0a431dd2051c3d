package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/holder"
)

const (
	// renewEvery is a third of how long a lease lasts.
	renewEvery = 10 * time.Second
	// askEvery is how often somebody else's lease is asked for by who waits.
	askEvery = time.Second
)

// lease is the right to work on an operation.
type lease struct {
	*Engine
	operation, token string
}

// take takes the lease. That of a process of this machine which is gone is replaced at once.
func (e *Engine) take(ctx context.Context, operation string) (*lease, *registryv1.Operation, error) {
	at, err := e.Memory.Place()
	if err != nil {
		return nil, nil, err
	}
	req := &registryv1.TakeLeaseRequest{OperationId: operation, Place: at, LeaseToken: holder.Secret()}
	client := registryv1.NewOperationWriteServiceClient(e.Conn)
	told := false
	for {
		var res *registryv1.TakeLeaseResponse
		err := heardOut(ctx, func(ctx context.Context) (err error) {
			res, err = client.TakeLease(ctx, req)
			return err
		})
		if err == nil {
			return &lease{e, operation, res.GetLeaseToken()}, res.GetOperation(), failpoint.Here("fleet.own.leased")
		}
		err = fault.FromRPC(err)
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Reason != "LEASE_HELD" {
			return nil, nil, err
		}
		if fence := e.ended(ctx, operation); fence != 0 && fence != req.GetInsteadOf() {
			req.InsteadOf = fence
			continue
		}
		if !e.Wait {
			return nil, nil, err
		}
		if !told {
			e.Report.Note(f.Message)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(askEvery):
		}
	}
}

// ended is the fence of an operation's lease where a process of this machine took it which is gone; 0 where that isn't known.
func (e *Engine) ended(ctx context.Context, operation string) int64 {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	res, err := registryv1.NewOperationServiceClient(e.Conn).GetOperation(ctx, &registryv1.GetOperationRequest{OperationId: operation})
	if l := res.GetOperation().GetLease(); err == nil && l != nil && e.Memory.Ended(l.GetPlace()) {
		return l.GetFence()
	}
	return 0
}

// heardOut asks for a lease. Who gives up meanwhile hears the answer out all the same, for a moment: a lease that nobody knows of would keep
// others waiting until it ends.
func heardOut(ctx context.Context, ask func(ctx context.Context) error) error {
	const moment = 2 * time.Second
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(moment, cancel) })()
	return ask(asking)
}

// keep renews the lease until stop; the context ends when somebody else has it. A registry that is away takes no lease from anybody,
// and gives it to nobody else.
func (l *lease) keep(ctx context.Context) (context.Context, func()) {
	ctx, lost := context.WithCancelCause(ctx)
	client := registryv1.NewOperationWriteServiceClient(l.Conn)
	go func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := client.RenewLease(ctx, &registryv1.RenewLeaseRequest{OperationId: l.operation, LeaseToken: l.token})
			err = fault.FromRPC(err)
			// A registry that is away is waited for: the lease may last until it is back.
			if slices.Contains([]fault.Kind{fault.Aborted, fault.FailedPrecondition, fault.PermissionDenied}, fault.KindOf(err)) {
				lost(fmt.Errorf("stopped: %w", err))
				return
			}
		}
	}()
	return ctx, func() { lost(nil) }
}

// giveBack gives the lease back, so that whoever takes the operation up need not wait. Where that fails it ends by itself.
func (l *lease) giveBack(ctx context.Context) {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()
	_, err := registryv1.NewOperationWriteServiceClient(l.Conn).ReleaseLease(ctx,
		&registryv1.ReleaseLeaseRequest{OperationId: l.operation, LeaseToken: l.token})
	if err != nil {
		l.Report.Note("the lease could not be given back and ends by itself: " + fault.FromRPC(err).Error())
	}
}
