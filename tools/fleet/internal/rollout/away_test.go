package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/rollout"
)

// cutOff is an operator that fails with each of some errors, one after the other, before it brings anybody.
type cutOff struct {
	slow
	by []error
}

func (o *cutOff) Bring(ctx context.Context, a rollout.Attempt) error {
	if len(o.brought) > 0 && a.Tenant.GetOperationId() == "" {
		return errors.New("somebody else began the operation on it")
	}
	if err := o.slow.Bring(ctx, a); err != nil || len(o.by) == 0 {
		return err
	}
	err := o.by[0]
	o.by = o.by[1:]
	return err
}

// A registry that is away is nothing that a set did: it is waited for, and what it cut off is taken up. What failed besides has failed all the same.
func TestRegistryThatIsAwayFailsNobody(t *testing.T) {
	const baking = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING
	gone := fmt.Errorf("start: %w", operate.ErrAway)
	held := fault.Declare(fault.FailedPrecondition, "LEASE_HELD", "somebody works on the operation")
	ended := fault.Declare(fault.FailedPrecondition, "OPERATION_ENDED", "the operation has ended, it succeeded")
	lost := fmt.Errorf("%w: it was taken over", rollout.ErrInHand)
	hangs := func(after time.Duration) bool { return after > 5*time.Second && after < 3*time.Minute }
	for name, c := range map[string]struct {
		operator rollout.Operator
		away     func(time.Duration) bool
		recorded []registryv1.RolloutTenantState
		says     string
	}{
		"for the operator":        {&cutOff{by: []error{gone, gone}}, nil, []registryv1.RolloutTenantState{baking, passed}, ""},
		"and its lease ends late": {&cutOff{by: []error{gone, held, held}}, nil, []registryv1.RolloutTenantState{baking, passed}, ""},
		"while it was brought":    {&slow{takes: 10 * time.Second}, hangs, []registryv1.RolloutTenantState{baking, passed}, ""},
		"while it is watched":     {&slow{}, hangs, []registryv1.RolloutTenantState{baking, passed}, ""},
		"while it failed":         {&slow{takes: 10 * time.Second, unable: []string{"t0"}}, hangs, []registryv1.RolloutTenantState{failed}, "it doesn't come up"},
		"and it fails then":       {&cutOff{by: []error{gone, errors.New("it can't be migrated")}}, nil, []registryv1.RolloutTenantState{failed}, "it can't be migrated"},
		"somebody works on it":    {&cutOff{by: []error{held}}, nil, []registryv1.RolloutTenantState{baking, passed}, ""},
		"and does so for long":    {&cutOff{by: slices.Repeat([]error{held}, 900)}, nil, []registryv1.RolloutTenantState{baking, passed}, ""},
		"and has just ended it":   {&cutOff{by: []error{ended}}, nil, []registryv1.RolloutTenantState{baking, passed}, ""},
		"and took it over":        {&cutOff{by: []error{lost}}, nil, []registryv1.RolloutTenantState{baking, passed}, ""},
		"and gives it up":         {&cutOff{by: []error{held, ended, errors.New("it was given up")}}, nil, []registryv1.RolloutTenantState{failed}, "it was given up"},
		"for the operator alone":  {&cutOff{by: slices.Repeat([]error{gone}, 50)}, nil, []registryv1.RolloutTenantState{failed}, "the registry answers others"},
		"for all in between": {&cutOff{by: slices.Repeat([]error{gone}, 4)}, func(after time.Duration) bool { return after > 1500*time.Millisecond && after < 3*time.Minute },
			[]registryv1.RolloutTenantState{baking, passed}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &baked{operator: c.operator, away: c.away}
				b.says = func(*registryv1.TenantStatus, time.Duration) error { return nil }
				x, _ := b.watched(t, func(r *registryv1.Rollout) {
					r.Tenants[0].State, r.Tenants[0].OperationId = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING, ""
				}, nil)
				if !slices.Equal(b.recorded, c.recorded) || !strings.Contains(x.GetDetail(), c.says) {
					t.Errorf("on record is %v: %s", b.recorded, x.GetDetail())
				}
			})
		})
	}
}

// Who else works on a tenant's operation is waited for on the way back as well, and that is said for as long as it is so.
func TestWhoWorksOnATenantIsSaidToBeWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := fault.Declare(fault.FailedPrecondition, "LEASE_HELD", "ben works on operation opr_t0 at elsewhere")
		fake := &remembered{rollout: halted(1)}
		o := &cutOff{slow: slow{takes: time.Second}, by: slices.Repeat([]error{held}, 20)}
		r, err := carried(t, fake, o, nil)
		if err != nil || !slices.Equal(states(r), []registryv1.RolloutTenantState{rolledBack}) {
			t.Errorf("it ended with %v, and the tenants are %v", err, states(r))
		}
		said := func(text string) bool { return strings.HasPrefix(text, "t0: ben works on operation opr_t0 at") }
		if n := len(fake.waits); n < 3 || !slices.ContainsFunc(fake.waits, said) {
			t.Errorf("what was waited for was said to be %q", fake.waits)
		}
	})
}

// kept is an operator that works on a tenant, waits for another command of the machine, and works on.
type kept struct {
	slow
	before, waits time.Duration
}

func (o *kept) Bring(ctx context.Context, a rollout.Attempt) error {
	waits := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	waits(o.before)
	over := a.Waits("another command changes this plane")
	waits(o.waits)
	over()
	return o.slow.Bring(ctx, a)
}

// The time that a tenant's change may take is what is done for it: another command of the machine that is waited for uses none of it up.
func TestTimeOfATenantStandsStillWhileAnotherCommandIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		before, waits, after time.Duration
		state                registryv1.RolloutTenantState
	}{
		"it waits for long":              {0, 11 * time.Minute, 9 * time.Minute, rolledBack},
		"and did something before":       {4 * time.Minute, 30 * time.Minute, 5 * time.Minute, rolledBack},
		"it takes too long before":       {11 * time.Minute, 0, 0, rollingBack},
		"it takes too long after":        {0, time.Minute, 11 * time.Minute, rollingBack},
		"it takes too long, in two goes": {6 * time.Minute, 11 * time.Minute, 6 * time.Minute, rollingBack},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &remembered{rollout: halted(1)}
				r, err := carried(t, fake, &kept{slow{takes: c.after}, c.before, c.waits}, nil)
				if !slices.Equal(states(r), []registryv1.RolloutTenantState{c.state}) {
					t.Errorf("the tenants are %v: %v", states(r), err)
				}
				if c.state == rollingBack && (err == nil || !strings.Contains(err.Error(), "it took longer than 10m0s")) {
					t.Errorf("it ended with %v", err)
				}
				said := func(text string) bool { return strings.HasPrefix(text, "t0: another command changes this plane; ") }
				if c.waits > 10*time.Second && !slices.ContainsFunc(fake.waits, said) {
					t.Errorf("what was waited for was said to be %q", fake.waits)
				}
				if n := len(fake.waits); n > 0 && said(fake.waits[n-1]) {
					t.Errorf("at the end it is said to wait for %q", fake.waits[n-1])
				}
			})
		})
	}
}

// steered is an operator that is cut off with every tenant it is asked to bring, while somebody steers.
type steered struct {
	cutOff
	meanwhile func()
}

func (o *steered) Bring(ctx context.Context, a rollout.Attempt) error {
	defer o.meanwhile()
	return o.cutOff.Bring(ctx, a)
}

// What somebody steers while a tenant's attempt is cut off is noticed before the next one, and that no attempt gets through ends a way back as well.
func TestWhoIsCutOffIsSteered(t *testing.T) {
	const (
		changing = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING
		skipped  = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_SKIPPED
	)
	gone := fmt.Errorf("start: %w", operate.ErrAway)
	for name, c := range map[string]struct {
		before    []registryv1.RolloutTenantState
		cut       int
		meanwhile func(r *registryv1.Rollout)
		brought   []string
		after     []registryv1.RolloutTenantState
		says      string
	}{
		"the rollout is aborted": {[]registryv1.RolloutTenantState{changing}, 50, func(r *registryv1.Rollout) {
			r.State, r.EndedAt = registryv1.RolloutState_ROLLOUT_STATE_ABORTED, timestamppb.Now()
		}, []string{"t0 to 2.0.0"}, []registryv1.RolloutTenantState{changing, failed}, "somebody ended the rollout since: fleet rollout carry rol_1 takes it up"},
		"the tenant is left out": {[]registryv1.RolloutTenantState{changing}, 1, func(r *registryv1.Rollout) {
			r.Tenants[0].State = skipped
		}, []string{"t0 to 2.0.0", "t1 to 1.0.0"}, []registryv1.RolloutTenantState{skipped, rolledBack}, ""},
		"nobody steers, on the way back": {nil, 50, func(*registryv1.Rollout) {},
			slices.Repeat([]string{"t0 to 1.0.0"}, 4), []registryv1.RolloutTenantState{rollingBack}, "t0 could not go back to 1.0.0: the registry answers others"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &remembered{rollout: halted(1, c.before...)}
				o := &steered{cutOff{by: slices.Repeat([]error{gone}, c.cut)}, func() {
					fake.mu.Lock()
					defer fake.mu.Unlock()
					c.meanwhile(fake.rollout)
				}}
				r, err := carried(t, fake, o, nil)
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("it ended with %v, want %q", err, c.says)
				}
				if !slices.Equal(o.brought, c.brought) || !slices.Equal(states(r), c.after) {
					t.Errorf("brought were %q, and the tenants are %v", o.brought, states(r))
				}
			})
		})
	}
}
