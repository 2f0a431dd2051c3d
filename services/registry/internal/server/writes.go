package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/services/registry/internal/naming"
	"a3os.app/services/registry/internal/publish"
	"a3os.app/services/registry/internal/store"
)

const (
	suspended  = "suspended"
	offboarded = "offboarded"
)

// moves are the states that each state may be left for. Offboarding goes by way of suspension, so that nothing that is served can
// be taken away in one step; offboarded is the end.
var moves = map[string][]string{
	"provisioning": {publish.Active, offboarded},
	publish.Active: {suspended},
	suspended:      {publish.Active, offboarded},
}

type tenantWrites struct {
	registryv1.UnimplementedTenantWriteServiceServer
	Config
}

// CreateTenant makes a tenant known. Its id is new and was never anyone's.
func (s *tenantWrites) CreateTenant(ctx context.Context, req *registryv1.CreateTenantRequest) (*registryv1.CreateTenantResponse, error) {
	if err := naming.Check(req.GetSlug()); err != nil {
		return nil, err
	}
	key, err := idempotencyKey(ctx)
	if err != nil {
		return nil, err
	}
	res := &registryv1.CreateTenantResponse{}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		proto.Reset(res)
		return ch.once(ctx, registryv1.TenantWriteService_CreateTenant_FullMethodName, key, req, res, func() error {
			t, err := ch.q.InsertTenant(ctx, store.InsertTenantParams{
				ID: id.NewTenant(), Slug: req.GetSlug(), DisplayName: req.GetDisplayName(),
				IsolationTier: word(tierPrefix, req.GetIsolationTier()), Region: req.GetRegion(),
			})
			if err != nil {
				return fmt.Errorf("insert the tenant: %w", err)
			}
			taken, err := ch.q.TakeSlug(ctx, store.TakeSlugParams{Slug: t.Slug, TenantID: t.ID, QuarantineSeconds: s.SlugQuarantine.Seconds()})
			if err != nil {
				return fmt.Errorf("take the slug: %w", err)
			}
			if taken == 0 {
				return fault.New(fault.AlreadyExists, "the slug %q is taken, or was freed not long ago: choose another", t.Slug)
			}
			res.Tenant = tenantOf(t)
			return ch.log(ctx, "registry.tenant.created", t.ID.String(), detail(req))
		})
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// SetTenantState moves a tenant on. To move it where it stands already changes nothing.
func (s *tenantWrites) SetTenantState(ctx context.Context, req *registryv1.SetTenantStateRequest) (*registryv1.SetTenantStateResponse, error) {
	to := stateWord(req.GetState())
	res := &registryv1.SetTenantStateResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		t, err := ch.lock(ctx, req.GetTenantId())
		if err != nil {
			return err
		}
		res.Tenant = tenantOf(t)
		if t.State == to {
			return nil
		}
		if !slices.Contains(moves[t.State], to) {
			return fault.New(fault.FailedPrecondition, "tenant %s is %s and can't become %s from there", t.ID, t.State, to)
		}
		if err := ch.prepare(ctx, t, to); err != nil {
			return err
		}
		from := t.State
		if t, err = ch.q.SetTenantState(ctx, store.SetTenantStateParams{ID: t.ID, State: to}); err != nil {
			return fmt.Errorf("set the state: %w", err)
		}
		res.Tenant = tenantOf(t)
		if err := ch.log(ctx, "registry.tenant.state_changed", t.ID.String(), from+" -> "+to); err != nil {
			return err
		}
		return ch.publish(ctx)
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// prepare does what must be true before a tenant is in a state.
func (ch change) prepare(ctx context.Context, t store.Tenant, to string) error {
	switch to {
	case publish.Active:
		sets, err := ch.q.SetsOf(ctx, []id.Tenant{t.ID})
		if err != nil {
			return fmt.Errorf("read the set: %w", err)
		}
		if len(sets) == 0 {
			return fault.New(fault.FailedPrecondition, "tenant %s has no service set: put one first", t.ID)
		}
	case offboarded:
		// Its addresses and its slug are free for others from now on, the slug after its quarantine.
		if err := ch.q.DeleteSet(ctx, t.ID); err != nil {
			return fmt.Errorf("remove the set: %w", err)
		}
		if err := ch.q.DropReports(ctx, t.ID); err != nil {
			return fmt.Errorf("remove what the set reported: %w", err)
		}
		if err := ch.q.FreeSlug(ctx, t.ID); err != nil {
			return fmt.Errorf("free the slug: %w", err)
		}
	}
	return nil
}

// PutServiceSet says where a tenant's set is. To put what is there already changes nothing.
func (s *tenantWrites) PutServiceSet(ctx context.Context, req *registryv1.PutServiceSetRequest) (*registryv1.PutServiceSetResponse, error) {
	tenant, err := id.ParseTenant(req.GetTenantId())
	if err != nil {
		return nil, errNoTenant
	}
	set := proto.CloneOf(req.GetServiceSet())
	if set.Components, err = s.Placement.Check(tenant, set); err != nil {
		return nil, err
	}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		t, err := ch.lock(ctx, req.GetTenantId())
		if err != nil {
			return err
		}
		if t.State == offboarded {
			return fault.New(fault.FailedPrecondition, "tenant %s was offboarded: it can have no service set", t.ID)
		}
		present, err := statuses(ctx, ch.q, []store.Tenant{t})
		if err != nil {
			return err
		}
		if proto.Equal(present[0].GetServiceSet(), set) {
			return nil
		}
		if err := ch.put(ctx, t.ID, set); err != nil {
			return err
		}
		if err := ch.log(ctx, "registry.service_set.put", t.ID.String(), detail(set)); err != nil {
			return err
		}
		return ch.publish(ctx)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.PutServiceSetResponse{}, nil
}

func (ch change) put(ctx context.Context, tenant id.Tenant, set *registryv1.ServiceSet) error {
	err := ch.q.PutSet(ctx, store.PutSetParams{TenantID: tenant, CaCertificatesPem: set.GetCaCertificatesPem(), Release: set.GetRelease()})
	if err != nil {
		return fmt.Errorf("write the set: %w", err)
	}
	if err := ch.q.DeleteComponents(ctx, tenant); err != nil {
		return fmt.Errorf("replace the components: %w", err)
	}
	for i, c := range set.GetComponents() {
		prefixes := c.GetPathPrefixes()
		if prefixes == nil {
			prefixes = []string{}
		}
		err := ch.q.InsertComponent(ctx, store.InsertComponentParams{
			TenantID: tenant, Name: c.GetName(), Position: int16(i), Address: c.GetAddress(), PathPrefixes: prefixes, //nolint:gosec // G115: at most 64
		})
		if pg.IsUnique(err, "components_address") {
			return fault.New(fault.FailedPrecondition, "component %s can't be at %s: another set is there", c.GetName(), c.GetAddress())
		}
		if err != nil {
			return fmt.Errorf("write component %s: %w", c.GetName(), err)
		}
	}
	return nil
}

// lock reads a tenant and keeps others from changing it until the transaction ends.
func (ch change) lock(ctx context.Context, text string) (store.Tenant, error) {
	tenant, err := id.ParseTenant(text)
	if err != nil {
		return store.Tenant{}, errNoTenant
	}
	t, err := ch.q.LockTenant(ctx, tenant)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Tenant{}, errNoTenant
	}
	return t, err
}

// detail is a message in the operations log, less the certificates, whose text says nothing to a reader.
func detail(m proto.Message) string {
	if set, ok := m.(*registryv1.ServiceSet); ok {
		set = proto.CloneOf(set)
		set.CaCertificatesPem = ""
		m = set
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return ""
	}
	return string(raw)
}
