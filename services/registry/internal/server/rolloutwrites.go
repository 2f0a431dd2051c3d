package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/rollout"
	"a3os.app/services/registry/internal/store"
)

// errNotNow is returned where the rules of a rollout don't allow something yet: whoever carries it out waits, and asks again.
var errNotNow = fault.Declare(fault.FailedPrecondition, "ROLLOUT_NOT_NOW", "the rollout's rules don't allow that now")

type rolloutWrites struct {
	registryv1.UnimplementedRolloutWriteServiceServer
	Config
}

// heldRollout is a rollout that a change holds the lock of.
type heldRollout struct {
	change
	// rollout as it is, with its tenants.
	*registryv1.Rollout
	id     id.Rollout
	row    store.Rollout
	leased bool
	// now is the database's clock, which every time of a rollout is read from.
	now time.Time
}

// onRollout runs fn with the rollout locked, and answers the rollout as it is afterwards.
func (s *rolloutWrites) onRollout(ctx context.Context, text string, fn func(ctx context.Context, h *heldRollout) error) (after *registryv1.Rollout, err error) {
	rolloutID, err := id.ParseRollout(text)
	if err != nil {
		return nil, errNoRollout
	}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		locked, err := ch.q.LockRollout(ctx, rolloutID)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoRollout
		}
		if err != nil {
			return fmt.Errorf("lock the rollout: %w", err)
		}
		h := &heldRollout{change: ch, id: rolloutID, row: locked.Rollout, leased: locked.Leased, now: locked.Now}
		if h.Rollout, err = withTenants(ctx, ch.q, locked.Rollout); err != nil {
			return err
		}
		if err := fn(ctx, h); err != nil {
			return err
		}
		after, err = h.finish(ctx)
		return err
	})
	return after, err
}

// finish ends a rollout of which nothing is left to do, and tells those who watch.
func (h *heldRollout) finish(ctx context.Context) (*registryv1.Rollout, error) {
	r, err := readRollout(ctx, h.q, h.id)
	if err != nil {
		return nil, err
	}
	if r.GetState() == registryv1.RolloutState_ROLLOUT_STATE_RUNNING && rollout.Complete(r) {
		if err := h.setState(ctx, "succeeded", ""); err != nil {
			return nil, err
		}
		if err := h.tell(ctx, "succeeded", id.Tenant{}, ""); err != nil {
			return nil, err
		}
		if r, err = readRollout(ctx, h.q, h.id); err != nil {
			return nil, err
		}
	}
	return r, h.q.NotifyChange(ctx, h.id.String())
}

func (h *heldRollout) setState(ctx context.Context, state, detail string) error {
	if err := h.q.SetRolloutState(ctx, store.SetRolloutStateParams{ID: h.id, State: state, Detail: detail}); err != nil {
		return fmt.Errorf("set the rollout's state: %w", err)
	}
	if state != "succeeded" && state != "aborted" {
		return nil
	}
	if err := h.q.CloseRolloutTenants(ctx, h.id); err != nil {
		return fmt.Errorf("let go of the rollout's tenants: %w", err)
	}
	return nil
}

// tell writes a line of the rollout's history and of the operations log.
func (h *heldRollout) tell(ctx context.Context, action string, tenant id.Tenant, reason string) error {
	err := h.q.AppendRolloutEvent(ctx, store.AppendRolloutEventParams{RolloutID: h.id, TenantID: tenant, Actor: h.actor, Action: action, Reason: reason})
	if err != nil {
		return fmt.Errorf("write the rollout's history: %w", err)
	}
	about := ""
	if !tenant.IsZero() {
		about = tenant.String() + ": "
	}
	return h.log(ctx, "registry.rollout."+action, h.id.String(), about+reason)
}

func (h *heldRollout) tenant(text string) (*registryv1.RolloutTenant, id.Tenant, error) {
	for _, t := range h.GetTenants() {
		if t.GetTenantId() == text {
			parsed, err := id.ParseTenant(text)
			return t, parsed, err
		}
	}
	return nil, id.Tenant{}, fault.New(fault.NotFound, "tenant %s is not in rollout %s", text, h.id)
}

// BeginRollout begins what a plan says, once.
func (s *rolloutWrites) BeginRollout(ctx context.Context, req *registryv1.BeginRolloutRequest) (*registryv1.BeginRolloutResponse, error) {
	res := &registryv1.BeginRolloutResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		begun, err := ch.q.RolloutOfPlan(ctx, req.GetPlanHash())
		if err == nil {
			res.Rollout, err = readRollout(ctx, ch.q, begun)
			return err
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look for the plan's rollout: %w", err)
		}
		p, err := s.rolloutPlan(ctx, ch, req.GetPlanHash())
		if err != nil {
			return err
		}
		h := &heldRollout{change: ch, id: id.NewRollout()}
		added, err := ch.q.InsertRollout(ctx, store.InsertRolloutParams{ID: h.id, PlanHash: req.GetPlanHash(), Release: p.release, Policy: p.policy, Actor: ch.actor, Reason: p.plan.GetReason()})
		if err != nil {
			return fmt.Errorf("insert the rollout: %w", err)
		}
		if added == 0 {
			return fault.New(fault.Aborted, "the plan is being begun by another call; try again")
		}
		for _, t := range p.tenants {
			err := ch.q.InsertRolloutTenant(ctx, store.InsertRolloutTenantParams{RolloutID: h.id, TenantID: t.id, Wave: t.wave, Position: t.position, ReleaseFrom: t.change.GetReleaseFrom()})
			if isUniqueTenant(err) {
				return fault.New(fault.FailedPrecondition, "tenant %s is in another rollout that is not finished: see fleet rollout list", t.change.GetSlug())
			}
			if err != nil {
				return fmt.Errorf("insert a tenant of the rollout: %w", err)
			}
		}
		if err := h.tell(ctx, "begun", id.Tenant{}, p.plan.GetReason()); err != nil {
			return err
		}
		res.Rollout, err = h.finish(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// RecordRolloutTenant moves a tenant on, where the rules allow it.
func (s *rolloutWrites) RecordRolloutTenant(ctx context.Context, req *registryv1.RecordRolloutTenantRequest) (*registryv1.RecordRolloutTenantResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		if err := h.lease().proven(req.GetLeaseToken()); err != nil {
			return err
		}
		t, tenant, err := h.tenant(req.GetTenantId())
		if err != nil {
			return err
		}
		if err := s.allow(ctx, h, t, tenant, req); err != nil {
			return err
		}
		move := store.MoveRolloutTenantParams{
			RolloutID: h.id, TenantID: tenant, State: word(rolloutTenantPrefix, req.GetState()),
			Detail: req.GetDetail(), Samples: req.GetSamples(), Probes: req.GetProbes(),
		}
		if req.GetOperationId() != "" {
			operation, err := id.ParseOperation(req.GetOperationId())
			if err != nil {
				return fault.New(fault.InvalidArgument, "operation_id: it is no operation")
			}
			move.WithOperation, move.OperationID = true, operation
		}
		if err := h.q.MoveRolloutTenant(ctx, move); err != nil {
			return fmt.Errorf("move the tenant on: %w", err)
		}
		if t.GetState() == req.GetState() {
			return nil // it says more of where it stands, and is no other line of the history
		}
		if err := h.tell(ctx, "tenant."+move.State, tenant, req.GetDetail()); err != nil {
			return err
		}
		if req.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED {
			return nil
		}
		return h.halt(ctx, t.GetSlug()+": "+req.GetDetail())
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.RecordRolloutTenantResponse{Rollout: r}, nil
}

// halt stops the rollout with the failure that it stops for, in one transaction: nobody can be begun between the two.
func (h *heldRollout) halt(ctx context.Context, why string) error {
	if h.GetState() != registryv1.RolloutState_ROLLOUT_STATE_RUNNING && h.GetState() != registryv1.RolloutState_ROLLOUT_STATE_PAUSED {
		return nil
	}
	if err := h.setState(ctx, "halted", why); err != nil {
		return err
	}
	return h.tell(ctx, "halted", id.Tenant{}, why)
}

// allow says why a tenant may not be moved on, or nil.
func (s *rolloutWrites) allow(ctx context.Context, h *heldRollout, t *registryv1.RolloutTenant, tenant id.Tenant, req *registryv1.RecordRolloutTenantRequest) error {
	const (
		pending     = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING
		changing    = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING
		baking      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_BAKING
		passed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PASSED
		failed      = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED
		rollingBack = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK
		rolledBack  = registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK
	)
	from, to := t.GetState(), req.GetState()
	if from == to && (from == changing || from == baking || from == rollingBack) {
		return nil
	}
	switch {
	case from == pending && to == changing:
		if err := h.mayBegin(t); err != nil {
			return err
		}
		return s.stillApproved(ctx, h)
	case from == changing && to == baking:
		return s.runs(ctx, h, tenant, h.GetRelease(), t.GetChangedAt().AsTime())
	case from == baking && to == passed:
		if ok, why := rollout.Passes(h.GetPolicy(), t, req.GetSamples(), h.now); !ok {
			return errNotNow.With("tenant %s has not passed: %s", t.GetSlug(), why)
		}
		// Who is not to be watched at all has said all that there is to say when the change was confirmed. Whoever is, says so at the end as well:
		// one word at the beginning speaks for no bake.
		since := t.GetSince().AsTime()
		if h.GetPolicy().GetBake().AsDuration() == 0 {
			since = t.GetChangedAt().AsTime()
		}
		if least := h.now.Add(-rollout.Silent); since.Before(least) {
			since = least
		}
		return s.runs(ctx, h, tenant, h.GetRelease(), since)
	case (from == changing || from == baking) && to == failed:
		if req.GetDetail() == "" {
			return fault.New(fault.InvalidArgument, "detail: say why tenant %s failed", t.GetSlug())
		}
		return nil
	case to == rollingBack && slices.Contains(rollout.Back(h.Rollout), t):
		return nil
	case from == rollingBack && to == rolledBack:
		return s.runs(ctx, h, tenant, t.GetReleaseFrom(), t.GetChangedAt().AsTime())
	}
	return fault.New(fault.FailedPrecondition, "tenant %s is %s in a rollout that is %s, and can't become %s", t.GetSlug(),
		word(rolloutTenantPrefix, from), word(rolloutPrefix, h.GetState()), word(rolloutTenantPrefix, to))
}

// stillApproved has no further tenant begun by a word that is void since the rollout began. What is under way is finished, and what is to go
// back goes back.
func (s *rolloutWrites) stillApproved(ctx context.Context, h *heldRollout) error {
	p, err := h.plan(ctx, h.row.PlanHash)
	if err != nil {
		return err
	}
	_, err = s.approved(ctx, h.q, p.Plan)
	if errors.Is(err, errNotApproved) {
		return errNotNow.With("the rollout's plan is approved by nobody any more: have it approved anew, or, where it has expired, plan the same tenants anew, have that approved, and fleet rollout retarget %s HASH --reason '…'; %v", h.id, err)
	}
	return err
}

func (h *heldRollout) mayBegin(t *registryv1.RolloutTenant) error {
	startable, why := rollout.Startable(h.Rollout, h.now)
	if slices.Contains(startable, t) {
		return nil
	}
	switch {
	case why == "" && t.GetWave() > rollout.Wave(h.Rollout):
		why = "the wave before its own"
	case why == "":
		why = "its turn in the wave"
	}
	return errNotNow.With("tenant %s can't be begun: waiting for %s", t.GetSlug(), why)
}

// runs says why a tenant's set isn't known to run a release, by its own word, since a time.
func (s *rolloutWrites) runs(ctx context.Context, h *heldRollout, tenant id.Tenant, release string, since time.Time) error {
	rows, err := h.q.TenantsByID(ctx, []id.Tenant{tenant})
	if err != nil {
		return fmt.Errorf("read the tenant: %w", err)
	}
	status, err := statuses(ctx, h.q, rows)
	if err != nil {
		return err
	}
	if len(status) == 0 {
		return errNoTenant
	}
	var names []string
	for _, c := range status[0].GetServiceSet().GetComponents() {
		names = append(names, c.GetName())
	}
	if ok, why := rollout.Runs(release, since, names, status[0].GetReports()); !ok {
		return errNotNow.With("tenant %s does not say that it runs %s: %s", status[0].GetTenant().GetSlug(), release, why)
	}
	return nil
}
