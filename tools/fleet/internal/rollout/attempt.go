package rollout

import (
	"context"
	"fmt"
	"sync"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

// Attempt is one attempt at bringing a tenant to a release.
type Attempt struct {
	Rollout *registryv1.Rollout
	Tenant  *registryv1.RolloutTenant
	// Release that the tenant is to run.
	Release string
	// Lease is the secret of the rollout's lease.
	Lease string
	// Begun is told the operation's id before any of it is done.
	Begun func(operation string) error
	// Waits says what else is waited for, of which the tenant is not the cause, until over: the attempt's time stands still meanwhile.
	Waits func(what string) (over func())
}

// attempt brings a tenant to a release, or takes that up.
func (c *carrying) attempt(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, release string) error {
	// What takes longer has failed.
	const within = 10 * time.Minute
	bound, clock := newClock(ctx, within)
	defer clock.end()
	err := c.Operator.Bring(bound, Attempt{
		Rollout: r, Tenant: t, Release: release, Lease: c.token,
		Begun: func(operation string) error { return c.record(bound, t, t.GetState(), what{operation: operation}) },
		Waits: func(what string) (over func()) {
			clock.stop()
			c.keeps(t, fmt.Sprintf("%s: %s", t.GetSlug(), what))
			return func() {
				c.keeps(t, "")
				clock.run()
			}
		},
	})
	switch {
	case err == nil || bound.Err() == nil:
		return err
	case isAway(err) || isInHand(err):
		return fmt.Errorf("it took longer than %s: %w", within, err)
	}
	// That its context was cancelled by the clock is not that somebody interrupted it.
	return fmt.Errorf("it took longer than %s: %s", within, err.Error())
}

// clock ends a context when it has run for a time, less what it stood still for.
type clock struct {
	mu     sync.Mutex
	left   time.Duration
	since  time.Time
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// newClock is a clock that runs, and the context that it ends.
func newClock(ctx context.Context, within time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{left: within, cancel: cancel}
	c.run()
	return ctx, c
}

// stop has it stand still, until run.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer.Stop() {
		c.left -= time.Since(c.since)
	}
}

func (c *clock) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = time.Now()
	c.timer = time.AfterFunc(c.left, func() { c.cancel(context.DeadlineExceeded) })
}

// end ends the context, and the clock with it.
func (c *clock) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	c.cancel(nil)
}
