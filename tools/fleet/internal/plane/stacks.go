package plane

import (
	"cmp"
	"context"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/platform"
)

// stacks has the changes of tenants planned by the platform.
type stacks struct {
	*Plane
	foreseer platform.Foreseer
	releases registryv1.ReleaseServiceClient
}

func (s *stacks) setOfChange(c *registryv1.TenantChange) (platform.Set, error) {
	tenant, err := id.ParseTenant(c.GetTenantId())
	return platform.Set{Blueprint: s.blueprint, Tenant: tenant, Slug: c.GetSlug(), Tier: c.GetIsolationTier(), Account: c.GetAccount()}, err
}

// Foresee implements plan.Stacks. What provisioning makes is not there to be changed.
func (s *stacks) Foresee(ctx context.Context, kind registryv1.OperationKind, c *registryv1.TenantChange) (*registryv1.StackChange, error) {
	if kind == registryv1.OperationKind_OPERATION_KIND_PROVISION || c.GetTenantId() == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	set, err := s.setOfChange(c)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(c.GetReleaseTo(), c.GetReleaseFrom())
	r, m, err := operate.Release(ctx, s.releases, name)
	if err == nil {
		set.Blueprint, err = s.madeBy(name, m)
	}
	running := kind != registryv1.OperationKind_OPERATION_KIND_SUSPEND && kind != registryv1.OperationKind_OPERATION_KIND_OFFBOARD
	switch {
	case running && err != nil:
		return nil, err
	case err != nil:
		// Nothing of it is started.
		set.Blueprint = s.blueprint
	}
	return s.foreseer.Foresee(ctx, set, r, running)
}

// Stands implements plan.Stacks.
func (s *stacks) Stands(ctx context.Context, c *registryv1.TenantChange) error {
	set, err := s.setOfChange(c)
	if err != nil {
		return err
	}
	return s.foreseer.Stands(ctx, set, c.GetStackChange())
}

// foresee has the platform plan changes that no planner planned: those of conveniences and of rollouts.
func (p *Plane) foresee(ctx context.Context, conn *grpc.ClientConn, kind registryv1.OperationKind, changes ...*registryv1.TenantChange) error {
	planner, err := p.planner(conn)
	if err != nil {
		return err
	}
	return planner.Foresee(ctx, kind, changes)
}
