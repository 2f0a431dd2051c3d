package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/binding"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/registry/internal/naming"
	"a3os.app/services/registry/internal/store"
)

// AdoptTenant makes a tenant known again under the id that its set has. An id is nobody's twice: only the mark that this plane signed says
// that the id is that set's. It is suspended, so that what is served of it is what an operation, planned like any other, has resumed.
func (s *tenantWrites) AdoptTenant(ctx context.Context, req *registryv1.AdoptTenantRequest) (*registryv1.AdoptTenantResponse, error) {
	if err := naming.Check(req.GetSlug()); err != nil {
		return nil, err
	}
	tenant, err := id.ParseTenant(req.GetTenantId())
	if err != nil {
		return nil, errNoTenant
	}
	set := proto.CloneOf(req.GetServiceSet())
	if set.Components, err = s.Placement.Check(tenant, set); err != nil {
		return nil, err
	}
	if set.Database, err = s.Placement.Database(set.GetDatabase()); err != nil {
		return nil, err
	}
	if err := s.vouched(tenant, set.GetDatabase(), req.GetMark()); err != nil {
		return nil, err
	}
	res := &registryv1.AdoptTenantResponse{}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		if err := ch.q.LockSlugs(ctx); err != nil {
			return fmt.Errorf("wait for other slugs: %w", err)
		}
		if err := ch.unknown(ctx, tenant); err != nil {
			return err
		}
		if err := s.slugFree(ctx, ch.q, req.GetSlug()); err != nil {
			return err
		}
		t, err := s.newTenant(ctx, ch, store.InsertTenantParams{
			ID: tenant, Slug: req.GetSlug(), DisplayName: req.GetDisplayName(), IsolationTier: word(tierPrefix, req.GetIsolationTier()), Region: req.GetRegion(), Account: req.GetAccount(),
		}, nil)
		if err != nil {
			return err
		}
		if err := ch.put(ctx, t, set); err != nil {
			return err
		}
		if t, err = ch.q.SetTenantState(ctx, store.SetTenantStateParams{ID: t.ID, State: suspended}); err != nil {
			return fmt.Errorf("set the state: %w", err)
		}
		res.Tenant = tenantOf(t)
		if err := ch.log(ctx, "registry.tenant.adopted", t.ID.String(), fmt.Sprintf("slug %s, %s: %s", t.Slug, detail(set), req.GetReason())); err != nil {
			return err
		}
		return ch.publish(ctx, t.ID)
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// unknown refuses a tenant that the registry knows, or knew.
func (ch change) unknown(ctx context.Context, tenant id.Tenant) error {
	t, err := ch.q.TenantByID(ctx, tenant)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look whether the tenant is known: %w", err)
	case t.State == offboarded:
		return fault.New(fault.FailedPrecondition, "tenant %s left, and an id is never used again: what is there of it was to be deleted", tenant)
	default:
		return fault.New(fault.AlreadyExists, "tenant %s is known, as %s, and %s: there is nothing to adopt", tenant, t.Slug, t.State)
	}
}

// vouched holds a tenant's id to the mark on its database, which only this plane's provisioner can sign.
func (s *tenantWrites) vouched(tenant id.Tenant, at *registryv1.DatabasePlace, mark string) error {
	if at == nil {
		return fault.New(fault.InvalidArgument, "service_set.database must say where the tenant's database is: its mark is what vouches for the tenant")
	}
	owner, err := binding.NewOwner(s.MarkKeys, s.Plane, tenant)
	if err != nil {
		return err
	}
	err = owner.Check(binding.Mark{Tenant: tenant, Kind: binding.Database, Name: at.GetName()}, mark, binding.Place{What: "the database " + at.GetName() + " at " + at.GetServer()})
	if err != nil {
		return fault.Wrap(fault.PermissionDenied, err, "the mark on the database %s does not say that it is tenant %s's in this plane", at.GetName(), tenant)
	}
	return nil
}
