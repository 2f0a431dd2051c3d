package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/holder"
)

const (
	// renewEvery is a third of how long a lease lasts, and how old what is said to be waited for may be.
	renewEvery = 5 * time.Second
	// mostWaits are the bytes of what is said to be waited for.
	mostWaits = 480
)

// take takes the lease. That of a process of this machine which is gone is replaced at once.
func (e *Engine) take(ctx context.Context, id string) (token string, err error) {
	at, err := e.Memory.Place()
	if err != nil {
		return "", err
	}
	req := &registryv1.TakeRolloutLeaseRequest{RolloutId: id, Place: at, LeaseToken: holder.Secret()}
	client := registryv1.NewRolloutWriteServiceClient(e.Conn)
	for {
		res, err := client.TakeRolloutLease(ctx, req, grpc.WaitForReady(true))
		if err == nil {
			return res.GetLeaseToken(), nil
		}
		err = fault.FromRPC(err)
		f, ok := errors.AsType[*fault.Error](err)
		if !ok || f.Reason != "LEASE_HELD" {
			return "", err
		}
		fence := e.ended(ctx, id)
		if fence == 0 || fence == req.GetInsteadOf() {
			return "", err
		}
		req.InsteadOf = fence
	}
}

// ended is the fence of a rollout's lease where a process of this machine took it which is gone; 0 where that isn't known.
func (e *Engine) ended(ctx context.Context, id string) int64 {
	res, err := registryv1.NewRolloutServiceClient(e.Conn).GetRollout(ctx, &registryv1.GetRolloutRequest{RolloutId: id})
	if l := res.GetRollout().GetLease(); err == nil && l != nil && e.Memory.Ended(l.GetPlace()) {
		return l.GetFence()
	}
	return 0
}

// keep renews the lease until stop, and says what is waited for; the context ends when somebody else has it.
func (c *carrying) keep(ctx context.Context) (context.Context, func()) {
	ctx, lost := context.WithCancelCause(ctx)
	client := registryv1.NewRolloutWriteServiceClient(c.Conn)
	go func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := client.RenewRolloutLease(ctx, &registryv1.RenewRolloutLeaseRequest{RolloutId: c.id, LeaseToken: c.token, WaitsFor: c.waitsFor()})
			switch err = fault.FromRPC(err); fault.KindOf(err) {
			case fault.Aborted, fault.FailedPrecondition, fault.PermissionDenied:
				lost(fmt.Errorf("stopped: %w", err))
				return
			default: // a registry that is away gives the lease to nobody else
			}
		}
	}()
	return ctx, func() { lost(nil) }
}

func (c *carrying) wait(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = what
}

func (c *carrying) waitsFor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, t := range slices.Sorted(maps.Keys(c.inHand)) {
		out = append(out, c.inHand[t])
	}
	if c.waits != "" {
		out = append(out, c.waits)
	}
	return clip.Text(strings.Join(out, "; "), mostWaits)
}

// giveBack gives the lease back, so that whoever takes the rollout up need not wait. Where that fails it ends by itself.
func (c *carrying) giveBack(ctx context.Context) {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()
	_, err := registryv1.NewRolloutWriteServiceClient(c.Conn).ReleaseRolloutLease(ctx, &registryv1.ReleaseRolloutLeaseRequest{RolloutId: c.id, LeaseToken: c.token})
	if err != nil {
		c.Report.Note("the lease could not be given back and ends by itself: " + fault.FromRPC(err).Error())
	}
}
