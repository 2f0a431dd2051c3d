// Package rollout carries a rollout out: it begins tenants as the rollout's rules allow, watches those that are changed, and has those
// go back that the policy says. It promises that what it was about to do when it was killed, anywhere, is taken up and done once; that it
// begins nobody once a tenant has failed; and that steering (pause, resume, skip, retarget, abort), by anybody, is noticed within a
// second. What counts as passed the registry decides, by what sets say of themselves; libs/rollout has the rules that both go by. It
// relies on its Operator to change one tenant, safely and once.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/rollout"
	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/operate"
)

// States in short.
const (
	changing    = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING
	baking      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING
	passed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED
	failed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED
	rollingBack = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK
	rolledBack  = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK

	halted = registryv1.RolloutState_ROLLOUT_STATE_HALTED
)

// Operator changes one tenant.
type Operator interface {
	// Bring has a tenant of the rollout run a release, by an operation of its own, and returns when its set itself says so. An operation
	// of the rollout that was cut off is taken up. An error that is operate.ErrAway says nothing of the set, and neither does ErrInHand or the registry's LEASE_HELD or OPERATION_ENDED.
	Bring(ctx context.Context, a Attempt) error
}

// ErrInHand is another command that has a tenant's operation in hand, or had it until just now: what came of it is found by bringing the tenant again.
var ErrInHand = errors.New("another command has the operation in hand")

// Reporter is told what happens.
type Reporter interface {
	Done(step string, took time.Duration)
	Note(text string)
}

// Engine carries rollouts out.
type Engine struct {
	// Conn is the registry, as an operator.
	Conn     *grpc.ClientConn
	Operator Operator
	// Probe asks a tenant something that asks nothing of its users: whether it answers. nil where there is nothing to ask.
	Probe func(ctx context.Context, slug string) error
	// Here refuses a plan, by its hash, that is for another place than this.
	Here   func(ctx context.Context, plan string) error
	Report Reporter
	// Memory knows the processes of this machine that took leases.
	Memory holder.Memory
}

// lookEvery is how soon it is noticed that somebody steers, and how often those watched are looked at.
const lookEvery = time.Second

// carrying is one rollout in hand.
type carrying struct {
	*Engine
	id, token string
	// plan that the rollout goes by, once it is known to be for here: whoever steers may give it another one.
	plan string
	// under are the tenants that work is done for, here.
	under map[string]bool
	// done tells of work that ended.
	done chan ended
	// stopped is why no more is begun here. Who could not go back is stuck, and unable says why: that keeps nobody else from it.
	stopped, unable error
	stuck           map[string]bool
	workers         sync.WaitGroup
	watched         map[string]*watched
	// waits is what is waited for, and inHand by tenant which other command keeps it from going on.
	waits  string
	inHand map[string]string
	mu     sync.Mutex // guards waits and inHand, which the lease's keeper reads
}

type ended struct {
	tenant string
	err    error
	// back says that it was on its way back.
	back bool
}

// Carry takes a rollout's lease and carries it out until it has ended, or halted and gone back. It answers the rollout as it is then.
func (e *Engine) Carry(ctx context.Context, id string) (r *registryv1.Rollout, err error) {
	token, err := e.take(ctx, id)
	if err != nil {
		return nil, err
	}
	c := &carrying{Engine: e, id: id, token: token, under: map[string]bool{}, stuck: map[string]bool{}, done: make(chan ended), watched: map[string]*watched{}, inHand: map[string]string{}}
	ctx, stop := c.keep(ctx)
	defer stop()
	r, err = c.loop(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("rollout %s was interrupted: what is done stays done; take it up with fleet rollout carry %s", id, id)
	}
	c.giveBack(ctx)
	return r, err
}

// loop looks, does what may be done, and waits. When it ends, nothing is under way here any more.
func (c *carrying) loop(ctx context.Context) (r *registryv1.Rollout, err error) {
	work, stop := context.WithCancel(ctx)
	defer func() {
		// What is under way is ended in good order first.
		stop()
		for len(c.under) > 0 {
			delete(c.under, (<-c.done).tenant)
		}
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		now, err := c.read(ctx)
		again := false
		if err == nil {
			r = now
			if err = c.here(ctx, r); err == nil {
				again, err = c.step(work, r)
			}
		}
		switch {
		case isAway(err): // the registry restarts: nothing is known to be otherwise
			c.away(err)
		case err != nil:
			return r, err
		case again:
			continue
		case len(c.under) == 0 && c.over(r):
			return r, errors.Join(c.stopped, c.unable)
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-tick.C:
		case x := <-c.done:
			delete(c.under, x.tenant)
			switch {
			case x.err != nil && x.back:
				c.stuck[x.tenant], c.unable = true, errors.Join(c.unable, x.err)
			case x.err != nil:
				c.stopped = x.err
			}
		}
	}
}

func (c *carrying) here(ctx context.Context, r *registryv1.Rollout) error {
	if r.GetPlanHash() == c.plan {
		return nil
	}
	if err := c.Here(ctx, r.GetPlanHash()); err != nil {
		return err
	}
	c.plan = r.GetPlanHash()
	return nil
}

// over says that nothing is left to be done here.
func (c *carrying) over(r *registryv1.Rollout) bool {
	switch {
	case c.stopped != nil:
		return true
	case r.GetEndedAt() != nil:
		return true
	case r.GetState() == halted:
		return len(c.back(r)) == 0
	}
	return false
}

// step does everything that may be done now; again says that the rollout was changed and is to be read anew.
func (c *carrying) step(ctx context.Context, r *registryv1.Rollout) (again bool, err error) {
	if c.stopped != nil {
		return false, nil //nolint:nilerr // why it was stopped is told at the end, when what is under way has ended
	}
	for _, t := range r.GetTenants() {
		switch {
		case c.under[t.GetTenantId()] || c.stuck[t.GetTenantId()]:
		case t.GetState() == changing && c.free(r):
			c.work(ctx, r, t, r.GetRelease(), baking)
		case t.GetState() == rollingBack && c.free(r):
			c.work(ctx, r, t, t.GetReleaseFrom(), rolledBack)
		case t.GetState() == baking && r.GetEndedAt() == nil:
			did, err := c.watch(ctx, r, t)
			if again = again || did; err != nil {
				return again, err
			}
		}
	}
	if again {
		return true, nil
	}
	for _, t := range c.back(r) {
		if t.GetState() != rollingBack && c.free(r) {
			if err := failpoint.Here("fleet.rollout.before-back"); err != nil {
				return false, err
			}
			return true, c.record(ctx, t, rollingBack, what{detail: "the rollout halted: " + r.GetDetail()})
		}
	}
	startable, waits := rollout.Startable(r, time.Now())
	c.wait(waits)
	if len(startable) == 0 {
		return false, nil
	}
	if err := failpoint.Here("fleet.rollout.before-begin"); err != nil {
		return false, err
	}
	err = c.record(ctx, startable[0], changing, what{})
	if isNotNow(err) { // somebody steered since, or the registry's clock is another
		c.wait(err.Error())
		return false, nil //nolint:nilerr // that it may not be now is what is waited for
	}
	return err == nil, err
}

// back are the tenants that are to go back, and that nothing here kept from it.
func (c *carrying) back(r *registryv1.Rollout) []*registryv1.RolloutTenant {
	return slices.DeleteFunc(rollout.Back(r), func(t *registryv1.RolloutTenant) bool { return c.stuck[t.GetTenantId()] })
}

// free says that another tenant may be worked on beside those that are. Whether one may be begun, the rules say; this holds for the way back as
// well, and for what somebody else had in hand.
func (c *carrying) free(r *registryv1.Rollout) bool {
	return len(c.under) < int(r.GetPolicy().GetMaxParallel())
}

// work brings a tenant to a release, beside others.
func (c *carrying) work(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, release string, then registryv1.RolloutTenantState) {
	c.under[t.GetTenantId()] = true
	c.workers.Go(func() { c.done <- ended{t.GetTenantId(), c.bring(ctx, r, t, release, then), then == rolledBack} })
}

// errEnded is a rollout that somebody ended while a tenant's attempt was cut off, and errLeft one in which the tenant is no longer brought anywhere.
var (
	errEnded = errors.New("somebody ended the rollout since")
	errLeft  = errors.New("somebody took it out of what is brought since")
)

// bring brings a tenant to a release, and has on record what came of it. A registry that is away meanwhile is waited for, and what was cut off by that
// is taken up: it is nothing that the set did, and halts no rollout. Nor is it that another command of an operator's took the tenant's operation up, which
// is waited for as long as somebody works on it. A registry that answers here, and doesn't answer the tenant's own process however
// often that asks, is not away: what keeps the two apart, as an authority that the registry doesn't know, ends by no waiting.
func (c *carrying) bring(ctx context.Context, r *registryv1.Rollout, t *registryv1.RolloutTenant, release string, then registryv1.RolloutTenantState) error {
	// alone is how many attempts in a row found the registry away that had answered here just before.
	const mostAlone = 3
	began, again, away, alone := time.Now(), false, false, 0
	err := c.patiently(ctx, func() error {
		if again {
			// What it was told before it was cut off, it knows.
			now, err := c.read(ctx)
			if err != nil {
				alone = 0
				return err
			}
			if t, err = still(now, t); err != nil {
				return err
			}
		}
		err := c.attempt(ctx, r, t, release)
		again = true
		if c.others(t, err) {
			// Perhaps by who was cut off, which is this process: that ends by itself.
			return err
		}
		if away && isAway(err) {
			alone++
		}
		if alone == mostAlone {
			return fmt.Errorf("the registry answers others, and not who changes this tenant, %d times in a row: %s", alone, err.Error())
		}
		away = isAway(err)
		return err
	})
	c.others(t, nil)
	if err == nil {
		if err := failpoint.Here("fleet.rollout.brought"); err != nil {
			return err
		}
		err = c.patiently(ctx, func() error { return c.confirmed(ctx, t, then) })
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errLeft):
		c.Report.Note(fmt.Sprintf("%s is left as it is: %s", t.GetSlug(), err))
		return nil
	case errors.Is(err, errEnded):
		return fmt.Errorf("%s was cut off on its way to %s, and %w: fleet rollout carry %s takes it up", t.GetSlug(), release, err, c.id)
	case err == nil:
		verb := "runs"
		if then == rolledBack {
			verb = "is back at"
		}
		c.Report.Done(fmt.Sprintf("%s: %s %s %s", waveOf(r, t), t.GetSlug(), verb, release), time.Since(began))
		return failpoint.Here("fleet.rollout.recorded")
	case then == rolledBack:
		// Nothing else can be done for it by itself: an operator looks at it, and has the rollout carried on.
		return fmt.Errorf("%s could not go back to %s: %w", t.GetSlug(), release, err)
	}
	c.Report.Note(fmt.Sprintf("%s failed: %s", t.GetSlug(), fault.FromRPC(err)))
	const mostDetail = 2000
	said := what{detail: clip.Text(err.Error(), mostDetail)}
	return c.patiently(ctx, func() error { return c.record(ctx, t, failed, said) })
}

// still is a tenant as the rollout has it now, or errLeft or errEnded where it is not to be brought any further.
func still(now *registryv1.Rollout, t *registryv1.RolloutTenant) (*registryv1.RolloutTenant, error) {
	i := slices.IndexFunc(now.GetTenants(), func(x *registryv1.RolloutTenant) bool { return x.GetTenantId() == t.GetTenantId() })
	switch {
	case i < 0 || now.GetTenants()[i].GetState() != t.GetState():
		return t, errLeft
	case now.GetEndedAt() != nil:
		return t, errEnded
	}
	return now.GetTenants()[i], nil
}

// others says whether somebody else has a tenant's operation in hand, which is then what is waited for.
func (c *carrying) others(t *registryv1.RolloutTenant, err error) bool {
	if !isInHand(err) {
		c.keeps(t, "")
		return false
	}
	if first := c.keeps(t, fmt.Sprintf("%s: %s", t.GetSlug(), err)); first {
		c.Report.Note(fmt.Sprintf("%s is waited for: %s", t.GetSlug(), err))
	}
	return true
}

// keeps notes which other command keeps a tenant from going on, empty for none, and says whether none did before.
func (c *carrying) keeps(t *registryv1.RolloutTenant, what string) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.inHand[t.GetTenantId()] == ""
	if c.inHand[t.GetTenantId()] = what; what == "" {
		delete(c.inHand, t.GetTenantId())
	}
	return first
}

// patiently does something until it did not fail because the registry was away, or because somebody else was at it.
func (c *carrying) patiently(ctx context.Context, do func() error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := do()
		switch {
		case ctx.Err() != nil:
			return err
		case isAway(err):
			c.away(err)
		case !isInHand(err):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *carrying) away(err error) {
	c.Report.Note("the registry does not answer, waiting for it: " + err.Error())
}

// confirmed records that a tenant was brought to a release, once the registry has heard so from its set: where nothing had to be started
// anew, that is with its next report.
func (c *carrying) confirmed(ctx context.Context, t *registryv1.RolloutTenant, then registryv1.RolloutTenantState) error {
	const most, every = 2 * time.Minute, 250 * time.Millisecond
	tick, end := time.NewTicker(every), time.Now().Add(most)
	defer tick.Stop()
	for {
		err := c.record(ctx, t, then, what{})
		if !isNotNow(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func waveOf(r *registryv1.Rollout, t *registryv1.RolloutTenant) string {
	if w := r.GetPolicy().GetWaves(); int(t.GetWave()) < len(w) {
		return w[t.GetWave()].GetName()
	}
	return ""
}

// what is said of a tenant besides its state.
type what struct {
	operation       string
	samples, probes int64
	detail          string
}

func (c *carrying) record(ctx context.Context, t *registryv1.RolloutTenant, state registryv1.RolloutTenantState, w what) error {
	_, err := registryv1.NewRolloutWriteServiceClient(c.Conn).RecordRolloutTenant(ctx, &registryv1.RecordRolloutTenantRequest{
		RolloutId: c.id, LeaseToken: c.token, TenantId: t.GetTenantId(), State: state,
		OperationId: w.operation, Samples: w.samples, Probes: w.probes, Detail: w.detail,
	}, grpc.WaitForReady(true))
	return fault.FromRPC(err)
}

func (c *carrying) read(ctx context.Context) (*registryv1.Rollout, error) {
	res, err := registryv1.NewRolloutServiceClient(c.Conn).GetRollout(ctx, &registryv1.GetRolloutRequest{RolloutId: c.id}, grpc.WaitForReady(true))
	return res.GetRollout(), fault.FromRPC(err)
}

// isNotNow is the registry's word that the rules don't allow something yet.
func isNotNow(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Reason == "ROLLOUT_NOT_NOW"
}

// isAway says that something failed because the registry did not answer, which nobody's set is the cause of.
func isAway(err error) bool { return errors.Is(err, operate.ErrAway) }

// isInHand says that something failed because somebody else has the tenant's operation in hand, or ended it just now.
func isInHand(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return errors.Is(err, ErrInHand) || ok && (f.Reason == "LEASE_HELD" || f.Reason == "OPERATION_ENDED")
}
