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
	dedicated  = "dedicated"
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

// CreateTenant makes a tenant known. Its id is new and was never anyone's. Where changes are planned and approved, an operation makes
// tenants and nothing else does.
func (s *tenantWrites) CreateTenant(ctx context.Context, req *registryv1.CreateTenantRequest) (*registryv1.CreateTenantResponse, error) {
	if s.Plane == prod {
		return nil, errPlanned
	}
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
			if err := ch.q.LockSlugs(ctx); err != nil {
				return fmt.Errorf("wait for other slugs: %w", err)
			}
			if err := s.slugFree(ctx, ch.q, req.GetSlug()); err != nil {
				return err
			}
			t, err := s.newTenant(ctx, ch, store.InsertTenantParams{
				Slug: req.GetSlug(), DisplayName: req.GetDisplayName(), IsolationTier: word(tierPrefix, req.GetIsolationTier()), Region: req.GetRegion(),
			}, nil)
			if err != nil {
				return err
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

// newTenant makes a tenant, with a new id where it brings none, and takes its slug, which was found free under the lock of all slugs.
func (c Config) newTenant(ctx context.Context, ch change, t store.InsertTenantParams, labels map[string]string) (store.Tenant, error) {
	var err error
	if t.Labels, err = encodeLabels(labels); err != nil {
		return store.Tenant{}, err
	}
	if t.ID.IsZero() {
		t.ID = id.NewTenant()
	}
	made, err := ch.q.InsertTenant(ctx, t)
	if err != nil {
		return store.Tenant{}, fmt.Errorf("insert the tenant: %w", err)
	}
	taken, err := ch.q.TakeSlug(ctx, store.TakeSlugParams{Slug: t.Slug, TenantID: t.ID, QuarantineSeconds: c.SlugQuarantine.Seconds()})
	if err != nil {
		return store.Tenant{}, fmt.Errorf("take the slug: %w", err)
	}
	if taken == 0 {
		return store.Tenant{}, fault.New(fault.AlreadyExists, "the slug %q is taken, or was freed not long ago: choose another", t.Slug)
	}
	return made, nil
}

// errPlanned is a change that its plane wants planned, approved and carried out under a lease.
var errPlanned = fault.Declare(fault.FailedPrecondition, "PLAN_NEEDED", "this plane's tenants are changed by plan: fleet plan, fleet approve, fleet apply")

// under holds a change of a tenant to the operation that it is a part of. While there is one that isn't finished, only its lease's
// holder may; where there is none, operators may, except on planes where everything is planned.
func (c Config) under(ctx context.Context, ch change, t store.Tenant, lease *registryv1.LeaseProof) (*store.Operation, error) {
	if lease != nil {
		row, err := ch.leased(ctx, lease.GetOperationId(), lease.GetLeaseToken())
		if err != nil {
			return nil, err
		}
		if row.Operation.TenantID != t.ID {
			return nil, errNoOperation
		}
		return &row.Operation, open(row.Operation)
	}
	if !ch.tenant.IsZero() {
		return nil, errLeaseLost.With("a provisioner works under a lease, and none was shown")
	}
	if err := ch.noneUnfinished(ctx, t.ID); err != nil {
		return nil, err
	}
	if c.Plane == prod {
		return nil, errPlanned
	}
	return nil, nil
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
		o, err := s.under(ctx, ch, t, req.GetLease())
		if err != nil {
			return err
		}
		// An offboarding takes what is served away first, and ends when it is finished and not before.
		if o != nil && !(to == o.StateTo && to != offboarded) && !(o.StateTo == offboarded && to == suspended) {
			return fault.New(fault.FailedPrecondition, "operation %s leads tenant %s to %s and not to %s", o.ID, t.ID, o.StateTo, to)
		}
		if res.Operation, err = ch.movesWith(ctx, o, req); err != nil {
			return err
		}
		// Last, for it holds the lock that puts all changes of routes into one order.
		if err := ch.move(ctx, t, to); err != nil {
			return err
		}
		t.State = to
		res.Tenant, err = tenantNow(ctx, ch.q, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// movesWith has the step on record that a move is; nil where none was named.
func (ch change) movesWith(ctx context.Context, o *store.Operation, req *registryv1.SetTenantStateRequest) (*registryv1.Operation, error) {
	if req.GetStep() == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if o == nil {
		return nil, fault.New(fault.InvalidArgument, "step: a step is one of an operation, and no lease of one was shown")
	}
	if err := ch.recordAll(ctx, *o, &registryv1.RecordStepRequest{Step: req.GetStep(), State: registryv1.StepState_STEP_STATE_DONE, ThenBegin: req.GetThenBegin()}); err != nil {
		return nil, err
	}
	return whole(ctx, ch.q, *o)
}

// move moves a tenant on, and publishes what follows.
func (ch change) move(ctx context.Context, t store.Tenant, to string) error {
	if t.State == to {
		return nil
	}
	if !slices.Contains(moves[t.State], to) {
		return fault.New(fault.FailedPrecondition, "tenant %s is %s and can't become %s from there", t.ID, t.State, to)
	}
	if err := ch.prepare(ctx, t, to); err != nil {
		return err
	}
	if _, err := ch.q.SetTenantState(ctx, store.SetTenantStateParams{ID: t.ID, State: to}); err != nil {
		return fmt.Errorf("set the state: %w", err)
	}
	if err := ch.log(ctx, "registry.tenant.state_changed", t.ID.String(), t.State+" -> "+to); err != nil {
		return err
	}
	return ch.publish(ctx, t.ID)
}

// prepare does what must be true before a tenant is in a state.
func (ch change) prepare(ctx context.Context, t store.Tenant, to string) error {
	switch to {
	case publish.Active:
		sets, err := ch.q.SetsOf(ctx, []id.Tenant{t.ID})
		if err != nil {
			return fmt.Errorf("read the set: %w", err)
		}
		components, err := ch.q.ComponentsOf(ctx, []id.Tenant{t.ID})
		if err != nil {
			return fmt.Errorf("read the components: %w", err)
		}
		if len(sets) == 0 || len(components) == 0 {
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
	if set.Database, err = s.Placement.Database(set.GetDatabase()); err != nil {
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
		_, err = s.under(ctx, ch, t, req.GetLease())
		if err != nil && !(errors.Is(err, errPlanned) && onlyMoved(present[0].GetServiceSet(), set)) {
			return err
		}
		if !ch.tenant.IsZero() && set.GetCaCertificatesPem() != present[0].GetServiceSet().GetCaCertificatesPem() {
			return fault.New(fault.PermissionDenied, "the authority of tenant %s is the operator's to put, and its provisioner brought another", t.ID)
		}
		if proto.Equal(present[0].GetServiceSet(), set) {
			return nil
		}
		if err := ch.put(ctx, t, set); err != nil {
			return err
		}
		if err := ch.log(ctx, "registry.service_set.put", t.ID.String(), detail(set)); err != nil {
			return err
		}
		return ch.publish(ctx, t.ID)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.PutServiceSetResponse{}, nil
}

// onlyMoved says whether a set is what it was, at other addresses: it was restored on another machine, or a port was taken. That is no
// change of the tenant. Who calls the set looks for a certificate of its own authority there, so that no address leads to anybody else.
func onlyMoved(from, to *registryv1.ServiceSet) bool {
	if from == nil {
		return false
	}
	nowhere := func(set *registryv1.ServiceSet) *registryv1.ServiceSet {
		set = proto.CloneOf(set)
		for _, c := range set.GetComponents() {
			c.Address = ""
		}
		if d := set.GetDatabase(); d != nil {
			d.Server = ""
		}
		return set
	}
	return proto.Equal(nowhere(from), nowhere(to))
}

func (ch change) put(ctx context.Context, t store.Tenant, set *registryv1.ServiceSet) error {
	tenant := t.ID
	params := store.PutSetParams{TenantID: tenant, CaCertificatesPem: set.GetCaCertificatesPem(), Release: set.GetRelease(), Reporter: set.GetReporter()}
	if d := set.GetDatabase(); d != nil {
		if err := ch.serverFits(ctx, t, d); err != nil {
			return err
		}
		params.DatabaseServer, params.DatabaseName = &d.Server, &d.Name
	}
	err := ch.q.PutSet(ctx, params)
	if pg.IsUnique(err, "service_sets_database") {
		return fault.New(fault.FailedPrecondition, "the database %s at %s is another tenant's: every tenant has one of its own", set.GetDatabase().GetName(), set.GetDatabase().GetServer())
	}
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

// serverFits refuses a database beside which a tenant of tier dedicated is, or beside which one would come to be.
func (ch change) serverFits(ctx context.Context, t store.Tenant, d *registryv1.DatabasePlace) error {
	if err := ch.q.LockServer(ctx, d.GetServer()); err != nil {
		return fmt.Errorf("wait for others who use the server: %w", err)
	}
	others, err := ch.q.OthersOnServer(ctx, store.OthersOnServerParams{Server: d.GetServer(), TenantID: t.ID})
	if err != nil {
		return fmt.Errorf("look who is on the server: %w", err)
	}
	for _, o := range others {
		if t.IsolationTier == dedicated || o.IsolationTier == dedicated {
			return fault.New(fault.FailedPrecondition, "the server %s has the database of tenant %s, and a tenant of tier dedicated shares its server with nobody", d.GetServer(), o.Slug)
		}
	}
	return nil
}

// lock reads a tenant and keeps others from changing it until the transaction ends. A provisioner has its own tenant and no other.
func (ch change) lock(ctx context.Context, text string) (store.Tenant, error) {
	tenant, err := id.ParseTenant(text)
	if err != nil {
		return store.Tenant{}, errNoTenant
	}
	if !ch.tenant.IsZero() && ch.tenant != tenant {
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
