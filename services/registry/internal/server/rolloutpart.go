package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/release"
	"a3os.app/libs/rollout"
)

// partOf is the rollout that a plan carries out a part of, zero for none. What a rollout's plan promised, its waves and its watching,
// nothing may go around: such a plan is begun as a rollout, and a part of one is what the rollout itself does to that tenant now, begun by
// whoever carries it out.
func (ch change) partOf(ctx context.Context, plan *registryv1.Plan, t *registryv1.TenantChange, req *registryv1.BeginOperationRequest) (id.Rollout, error) {
	if plan.GetRollout() != nil {
		return id.Rollout{}, fault.New(fault.FailedPrecondition, "the plan is a rollout: it is begun as one, in its waves, with fleet apply")
	}
	if req.GetRolloutId() == "" {
		return id.Rollout{}, nil
	}
	part, err := id.ParseRollout(req.GetRolloutId())
	if err != nil {
		return part, fault.New(fault.InvalidArgument, "rollout_id: it must be a rol_…")
	}
	row, err := ch.q.RolloutByID(ctx, part)
	if errors.Is(err, pgx.ErrNoRows) {
		return part, errNoRollout
	}
	if err != nil {
		return part, fmt.Errorf("read the rollout: %w", err)
	}
	if err := rolloutLease(row, false).proven(req.GetRolloutLeaseToken()); err != nil {
		return part, err
	}
	r, err := withTenants(ctx, ch.q, row)
	if err != nil {
		return part, err
	}
	for _, x := range r.GetTenants() {
		if x.GetTenantId() != t.GetTenantId() {
			continue
		}
		forth := x.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_CHANGING &&
			plan.GetKind() == registryv1.OperationKind_OPERATION_KIND_UPGRADE && t.GetReleaseTo() == r.GetRelease()
		back := x.GetState() == registryv1.RolloutTenantState_ROLLOUT_TENANT_STATE_ROLLING_BACK &&
			plan.GetKind() == registryv1.OperationKind_OPERATION_KIND_DOWNGRADE && t.GetReleaseTo() == x.GetReleaseFrom()
		if forth || back {
			if why := rollout.Differs(r, x, t.GetStateFrom(), t.GetReleaseFrom()); why != "" {
				return part, fault.New(fault.FailedPrecondition, "%s", why)
			}
			return part, nil
		}
		return part, fault.New(fault.FailedPrecondition, "rollout %s does not do that to tenant %s, which is %s in it", part, t.GetSlug(), word(rolloutTenantPrefix, x.GetState()))
	}
	return part, fault.New(fault.FailedPrecondition, "tenant %s is not in rollout %s", t.GetSlug(), part)
}

// releases refuses an upgrade or a downgrade that the releases themselves rule out. Only what is registered can be brought to a tenant,
// but for what a developer has just built, which no plane other than `dev` takes; a set may go back to what it ran before there were
// releases, for nothing says what that is.
func (ch change) releases(ctx context.Context, plan *registryv1.Plan, t *registryv1.TenantChange) error {
	switch plan.GetKind() {
	case registryv1.OperationKind_OPERATION_KIND_UPGRADE:
		target, err := ch.manifest(ctx, t.GetReleaseTo())
		if err != nil {
			return err
		}
		if name, err := release.ParseName(t.GetReleaseTo()); err == nil && target == nil && name.Version == release.Development && plan.GetPlane() == "dev" {
			return nil
		}
		if target == nil {
			return fault.New(fault.FailedPrecondition, "release %s is not registered, so nobody vouches for it: fleet release register", t.GetReleaseTo())
		}
		return upgradable(t, target)
	case registryv1.OperationKind_OPERATION_KIND_DOWNGRADE:
		from, err := ch.manifest(ctx, t.GetReleaseFrom())
		if err != nil || from == nil {
			return err
		}
		to, err := release.ParseName(t.GetReleaseTo())
		if err != nil {
			return fault.New(fault.InvalidArgument, "tenant %s can't go back: %v", t.GetSlug(), err)
		}
		if err := release.CanDowngrade(from, to); err != nil {
			return fault.New(fault.FailedPrecondition, "tenant %s: %v", t.GetSlug(), err)
		}
	default:
	}
	return nil
}

// manifest is a registered release's; nil where it is none.
func (ch change) manifest(ctx context.Context, name string) (*registryv1.ReleaseManifest, error) {
	row, err := ch.q.ReleaseByName(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read the release: %w", err)
	}
	r, err := releaseOf(row)
	return r.GetManifest(), err
}
