package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/release"
	"a3os.app/libs/rollout"
	"a3os.app/services/registry/internal/store"
)

// rolloutPlan is a plan that a rollout can be made of.
type rolloutPlan struct {
	plan    *registryv1.Plan
	release string
	policy  []byte
	tenants []plannedTenant
}

type plannedTenant struct {
	id             id.Tenant
	wave, position int32
	change         *registryv1.TenantChange
}

// usablePlan is a plan that can be carried out: of this plane, not expired, approved where that is demanded, and still fitting the world.
func (s *rolloutWrites) usablePlan(ctx context.Context, ch change, hash string) (*registryv1.Plan, error) {
	row, err := ch.plan(ctx, hash)
	if err != nil {
		return nil, err
	}
	plan := &registryv1.Plan{}
	if err := proto.Unmarshal(row.Plan.Document, plan); err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	if err := s.current(row, plan); err != nil {
		return nil, err
	}
	if _, err := s.approved(ctx, ch.q, row.Plan); err != nil {
		return nil, err
	}
	return plan, s.fits(ctx, ch.q, plan, plan.GetTenants())
}

// rolloutPlan reads a plan, and holds it against the world: every tenant must stand where the plan says.
func (s *rolloutWrites) rolloutPlan(ctx context.Context, ch change, hash string) (*rolloutPlan, error) {
	plan, err := s.usablePlan(ctx, ch, hash)
	if err != nil {
		return nil, err
	}
	if plan.GetRollout() == nil || plan.GetKind() != registryv1.OperationKind_OPERATION_KIND_UPGRADE {
		return nil, fault.New(fault.FailedPrecondition, "plan %s is no rollout: make one with fleet rollout plan --release VERSION --reason '…'", hash)
	}
	out := &rolloutPlan{plan: plan, release: plan.GetTenants()[0].GetReleaseTo()}
	var ids []string
	for _, c := range plan.GetTenants() {
		ids = append(ids, c.GetTenantId())
	}
	if err := rollout.Check(plan.GetRollout(), ids); err != nil {
		return nil, fault.New(fault.InvalidArgument, "the plan's waves: %v", err)
	}
	if out.policy, err = (proto.MarshalOptions{Deterministic: true}).Marshal(plan.GetRollout()); err != nil {
		return nil, fmt.Errorf("encode the policy: %w", err)
	}
	row, err := findRelease(ctx, ch.q, out.release)
	if err != nil {
		return nil, err
	}
	target, err := releaseOf(row)
	if err != nil {
		return nil, err
	}
	for w, wave := range plan.GetRollout().GetWaves() {
		for i, text := range wave.GetTenantIds() {
			change := plan.GetTenants()[slices.Index(ids, text)]
			tenant, err := ch.standsAs(ctx, change, target)
			if err != nil {
				return nil, err
			}
			out.tenants = append(out.tenants, plannedTenant{id: tenant, wave: place(w), position: place(i), change: change})
		}
	}
	return out, nil
}

// standsAs locks a tenant, and says why it can't be brought where a plan wants it. That it stands where the plan says was looked at.
func (ch change) standsAs(ctx context.Context, c *registryv1.TenantChange, target *registryv1.Release) (id.Tenant, error) {
	t, err := ch.lock(ctx, c.GetTenantId())
	if err != nil {
		return id.Tenant{}, err
	}
	if c.GetReleaseTo() != target.GetName() {
		return id.Tenant{}, fault.New(fault.InvalidArgument, "tenant %s is to run %s, and others %s: a rollout is of one release", c.GetSlug(), c.GetReleaseTo(), target.GetName())
	}
	return t.ID, upgradable(c, target.GetManifest())
}

// upgradable says why a release can't be what comes after the one that a tenant runs.
func upgradable(c *registryv1.TenantChange, target *registryv1.ReleaseManifest) error {
	from, err := release.ParseName(c.GetReleaseFrom())
	if err != nil {
		return fault.New(fault.FailedPrecondition, "tenant %s runs no release that has a name: %v", c.GetSlug(), err)
	}
	if err := release.CanUpgrade(from, target); err != nil {
		return fault.New(fault.FailedPrecondition, "tenant %s: %v", c.GetSlug(), err)
	}
	return nil
}

func isUniqueTenant(err error) bool { return pg.IsUnique(err, "rollout_tenants_open") }

// PauseRollout begins nothing new until it is resumed.
func (s *rolloutWrites) PauseRollout(ctx context.Context, req *registryv1.PauseRolloutRequest) (*registryv1.PauseRolloutResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		switch h.GetState() {
		case registryv1.RolloutState_ROLLOUT_STATE_PAUSED:
			return nil
		case registryv1.RolloutState_ROLLOUT_STATE_RUNNING:
			return h.steer(ctx, "paused", "paused", req.GetReason())
		default:
			return h.cant("paused")
		}
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.PauseRolloutResponse{Rollout: r}, nil
}

// steer puts the rollout where an operator wants it.
func (h *heldRollout) steer(ctx context.Context, state, action, reason string) error {
	if err := h.setState(ctx, state, reason); err != nil {
		return err
	}
	return h.tell(ctx, action, id.Tenant{}, reason)
}

func (h *heldRollout) cant(become string) error {
	return fault.New(fault.FailedPrecondition, "rollout %s is %s, and can't be %s", h.id, word(rolloutPrefix, h.GetState()), become)
}

// under names a tenant that is under way, where there is one.
func (h *heldRollout) under(states ...registryv1.RolloutTenantState) (slug string, ok bool) {
	for _, t := range h.GetTenants() {
		if slices.Contains(states, t.GetState()) {
			return t.GetSlug(), true
		}
	}
	return "", false
}

// ResumeRollout goes on. Tenants that failed or went back are tried again, so none may be on its way back.
func (s *rolloutWrites) ResumeRollout(ctx context.Context, req *registryv1.ResumeRolloutRequest) (*registryv1.ResumeRolloutResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		switch h.GetState() {
		case registryv1.RolloutState_ROLLOUT_STATE_RUNNING:
			return nil
		case registryv1.RolloutState_ROLLOUT_STATE_PAUSED:
		case registryv1.RolloutState_ROLLOUT_STATE_HALTED:
			if back := rollout.Back(h.Rollout); len(back) > 0 {
				return errNotNow.With("tenant %s goes back to the release before: fleet rollout carry %s finishes that, and then it can be resumed", back[0].GetSlug(), h.id)
			}
		default:
			return h.cant("resumed")
		}
		again, err := h.q.RetryRolloutTenants(ctx, h.id)
		if err != nil {
			return fmt.Errorf("try the tenants again: %w", err)
		}
		reason := req.GetReason()
		if again > 0 {
			reason += fmt.Sprintf(" (%d tenants are tried again)", again)
		}
		return h.steer(ctx, "running", "resumed", reason)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.ResumeRolloutResponse{Rollout: r}, nil
}

// skippable says why a tenant can't be left out, or nil. One that somebody else changed meanwhile can, wherever it stands: nothing of the rollout is
// under way with it, and it is not the rollout's to take back.
func (h *heldRollout) skippable(ctx context.Context, t *registryv1.RolloutTenant, tenant id.Tenant) error {
	back := slices.Contains(rollout.Back(h.Rollout), t)
	switch t.GetState() {
	case registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_PENDING, registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLED_BACK,
		registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_FAILED:
		if !back {
			return nil
		}
	default:
	}
	status, err := statusOf(ctx, h.q, tenant)
	switch {
	case err != nil:
		return err
	case rollout.Differs(h.Rollout, t, status.GetTenant().GetState(), status.GetServiceSet().GetRelease()) != "":
		return nil
	case back:
		return fault.New(fault.FailedPrecondition, "tenant %s goes back to the release before first: fleet rollout carry %s finishes that", t.GetSlug(), h.id)
	}
	return fault.New(fault.FailedPrecondition, "tenant %s is %s: one that is under way, or passed, can't be left out", t.GetSlug(), word(rolloutTenantPrefix, t.GetState()))
}

// SkipRolloutTenant leaves a tenant out.
func (s *rolloutWrites) SkipRolloutTenant(ctx context.Context, req *registryv1.SkipRolloutTenantRequest) (*registryv1.SkipRolloutTenantResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		if h.GetEndedAt() != nil {
			return h.cant("changed")
		}
		t, tenant, err := h.tenant(req.GetTenantId())
		if err != nil {
			return err
		}
		if t.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_SKIPPED {
			return nil
		}
		if err := h.skippable(ctx, t, tenant); err != nil {
			return err
		}
		if err := h.q.SkipRolloutTenant(ctx, store.SkipRolloutTenantParams{RolloutID: h.id, TenantID: tenant, Detail: req.GetReason()}); err != nil {
			return fmt.Errorf("leave the tenant out: %w", err)
		}
		return h.tell(ctx, "tenant.skipped", tenant, req.GetReason())
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.SkipRolloutTenantResponse{Rollout: r}, nil
}

// RetargetRollout gives a rollout another plan.
func (s *rolloutWrites) RetargetRollout(ctx context.Context, req *registryv1.RetargetRolloutRequest) (*registryv1.RetargetRolloutResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		if h.GetState() != registryv1.RolloutState_ROLLOUT_STATE_PAUSED && h.GetState() != registryv1.RolloutState_ROLLOUT_STATE_HALTED {
			return h.cant("given another target: pause it first")
		}
		if slug, ok := h.under(registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING, registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK); ok {
			return errNotNow.With("tenant %s is under way: wait until it is done", slug)
		}
		p, err := s.rolloutPlan(ctx, h.change, req.GetPlanHash())
		if err != nil {
			return err
		}
		if err := h.sameTenants(p); err != nil {
			return err
		}
		for _, t := range p.tenants {
			if err := h.leadsOn(ctx, t); err != nil {
				return err
			}
			_, err := h.q.RetargetRolloutTenant(ctx, store.RetargetRolloutTenantParams{RolloutID: h.id, TenantID: t.id, Wave: t.wave, Position: t.position, ReleaseFrom: t.change.GetReleaseFrom()})
			if err != nil {
				return fmt.Errorf("give the tenant another target: %w", err)
			}
		}
		err = h.q.RetargetRollout(ctx, store.RetargetRolloutParams{ID: h.id, PlanHash: req.GetPlanHash(), Release: p.release, Policy: p.policy, Detail: req.GetReason()})
		if err != nil {
			return fmt.Errorf("give the rollout another target: %w", err)
		}
		return h.tell(ctx, "retargeted", id.Tenant{}, p.release+": "+req.GetReason())
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.RetargetRolloutResponse{Rollout: r}, nil
}

// leadsOn refuses what is planned of a release that a tenant was on its way to and started nothing of: as soon as it is brought anywhere else,
// that is given up, and the tenant is at the release before.
func (h *heldRollout) leadsOn(ctx context.Context, t plannedTenant) error {
	row, err := h.q.UnfinishedOperation(ctx, t.id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the tenant's unfinished operation: %w", err)
	}
	o, err := whole(ctx, h.q, row)
	if err != nil || o.GetRolloutId() != h.id.String() || !rollout.SetsBack(o) {
		return err
	}
	return errPlanStale.With("tenant %s has started nothing of %s, which the plan brings it from, and runs %s: give its unfinished operation up with "+
		"fleet operation abort %s --reason '…', and make the plan anew", t.change.GetSlug(), o.GetReleaseTo(), o.GetReleaseFrom(), o.GetId())
}

// sameTenants says in what a plan's tenants aren't those of the rollout, less those left out.
func (h *heldRollout) sameTenants(p *rolloutPlan) error {
	planned := map[string]bool{}
	for _, t := range p.tenants {
		planned[t.id.String()] = true
		if _, _, err := h.tenant(t.id.String()); err != nil {
			return fault.New(fault.FailedPrecondition, "tenant %s of the plan is not in the rollout: a rollout never grows", t.change.GetSlug())
		}
	}
	for _, t := range h.GetTenants() {
		if t.GetState() != registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_SKIPPED && !planned[t.GetTenantId()] {
			return fault.New(fault.FailedPrecondition, "tenant %s of the rollout is not in the plan: skip it first, or plan it", t.GetSlug())
		}
	}
	return nil
}

// AbortRollout gives a rollout up.
func (s *rolloutWrites) AbortRollout(ctx context.Context, req *registryv1.AbortRolloutRequest) (*registryv1.AbortRolloutResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		switch {
		case h.GetState() == registryv1.RolloutState_ROLLOUT_STATE_ABORTED:
			return nil
		case h.GetEndedAt() != nil:
			return h.cant("aborted")
		}
		return h.steer(ctx, "aborted", "aborted", req.GetReason())
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.AbortRolloutResponse{Rollout: r}, nil
}
