package standing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// inspected is how many sets are looked at at once: platforms bound how often they are asked.
const inspected = 4

// inspect has the platform look at every active set, and answers what it found by tenant, and what it could not look at, a sentence each.
func inspect(ctx context.Context, s Source, inspector platform.Inspector, statuses []*registryv1.TenantStatus) (found map[string][]platform.Difference, failed []string) {
	found = map[string][]platform.Difference{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(inspected)
	for _, status := range statuses {
		if status.GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_ACTIVE || status.GetServiceSet() == nil {
			continue
		}
		g.Go(func() error {
			differences, err := s.look(ctx, inspector, status)
			mu.Lock()
			defer mu.Unlock()
			found[status.GetTenant().GetId()] = differences
			if err != nil {
				failed = append(failed, fmt.Sprintf("the set of %s could not be looked at: %s", status.GetTenant().GetSlug(), fault.FromRPC(err)))
			}
			return nil // what can't be looked at is told on the page
		})
	}
	_ = g.Wait()
	slices.Sort(failed)
	return found, failed
}

// look has the platform look at one set, as the release that it is to run has it.
func (s Source) look(ctx context.Context, inspector platform.Inspector, status *registryv1.TenantStatus) ([]platform.Difference, error) {
	b, err := s.MadeBy(ctx, status.GetServiceSet().GetRelease())
	if err != nil {
		return nil, err
	}
	set, r, err := SetOf(b, status)
	if err != nil {
		return nil, err
	}
	return inspector.Inspect(ctx, set, r)
}

// sets are those that are there, or are being made. One that an operation works on may have what the release that it is to run has not, and is without a blueprint;
// so is one whose blueprint can't be had, which the error, that joins those of all, says.
func (s Source) sets(ctx context.Context, statuses []*registryv1.TenantStatus, operations map[string]*registryv1.Operation) ([]platform.Set, error) {
	var out []platform.Set
	var failed []error
	for _, status := range statuses {
		t, release := status.GetTenant(), status.GetServiceSet().GetRelease()
		if t.GetState() == registryv1.TenantState_TENANT_STATE_OFFBOARDED {
			continue
		}
		var made *blueprint.Blueprint
		if release != "" && operations[t.GetId()] == nil {
			var err error
			if made, err = s.MadeBy(ctx, release); err != nil {
				failed = append(failed, fmt.Errorf("the set of %s: %w", t.GetSlug(), err))
			}
		}
		// It may run no release yet.
		if set, _, _ := SetOf(made, status); !set.Tenant.IsZero() {
			out = append(out, set)
		}
	}
	return out, errors.Join(failed...)
}

// SetOf is a tenant's set and its release, as the registry has them.
func SetOf(b *blueprint.Blueprint, status *registryv1.TenantStatus) (platform.Set, platform.Release, error) {
	t := status.GetTenant()
	tenant, err := id.ParseTenant(t.GetId())
	if err != nil {
		return platform.Set{}, platform.Release{}, err
	}
	r, err := platform.ParseRelease(status.GetServiceSet().GetRelease())
	return platform.Set{Blueprint: b, Tenant: tenant, Slug: t.GetSlug(), Tier: t.GetIsolationTier(), Account: t.GetAccount()}, r, err
}
