package plane

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/holder"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/docker"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
)

// registryComponent is the component of the plane's own set that keeps operations.
const registryComponent = "registry"

// operations carries operations out on this plane.
func (p *Plane) operations(conn *grpc.ClientConn) (*operate.Engine, error) {
	address, err := p.platform.Address(p.own, registryComponent, "api")
	if err != nil {
		return nil, err
	}
	roots, err := p.platform.Roots(p.own)
	if err != nil {
		return nil, err
	}
	releases, err := p.believedReleases(conn)
	if err != nil {
		return nil, err
	}
	return &operate.Engine{
		Platform: p.carrier(), Blueprint: p.blueprint, MadeBy: p.madeBy, Conn: conn, Releases: releases,
		Registry:    operate.Registry{Plane: p.state.Plane, Address: address, Service: registryComponent, Roots: string(roots)},
		Provisioner: p.platform.Provisioner, Front: p.front,
		Recheck: func(ctx context.Context, plan *registryv1.StoredPlan) error { return p.Recheck(ctx, conn, plan) },
		Agrees: func(ctx context.Context, s *registryv1.TenantStatus, to string) error {
			return p.agrees(ctx, conn, s, to)
		},
		Identified: func(ctx context.Context, s platform.Set) error { return p.identified(ctx, conn, s) }, Answered: func(s platform.Set) error { return p.served(s.Slug) },
		Stopped: func(s platform.Set) error { return p.stopped(s.Slug) }, Gone: p.gone, Lock: p.lockAndLook,
		Command: []string{p.Self, "operation", "carry"}, Memory: p.holders(), Exports: filepath.Join(p.Settings.Home, "operations"), Report: p.report,
	}, nil
}

// holders knows who of this machine works under a lease.
func (p *Plane) holders() holder.Memory {
	return holder.Memory(filepath.Join(p.Settings.Home, "leases"))
}

// front is where a set's people reach it.
func (p *Plane) front(s platform.Set) operate.Front {
	if s.Blueprint.Answers == "" {
		return operate.Front{}
	}
	f := operate.Front{URL: p.Settings.URL(s.Slug) + s.Blueprint.Answers, Dial: p.frontDoor()}
	if ca := p.WebCA(); ca != "" {
		// Without it the machine's own list is asked, and the failure says so.
		if text, err := os.ReadFile(ca); err == nil {
			f.Roots = string(text)
		}
	}
	return f
}

// identified adds to a set's identity what the plane gives it: the way in of its first admin.
func (p *Plane) identified(ctx context.Context, conn *grpc.ClientConn, s platform.Set) error {
	t, known := p.state.Tenant(s.Name())
	if !known {
		var err error
		t, err = p.state.Remember(s.Slug, s.Tenant, func(t *state.Tenant) { t.ID, t.Dedicated, t.Account = s.Tenant, s.Dedicated(), s.Account })
		if err != nil {
			return err
		}
	}
	if _, err := p.web(s.Slug); err != nil {
		return err
	}
	admin := t.Admin
	if _, err := p.licensed(ctx, conn, s); err != nil {
		return err
	}
	_, err := p.nameFirstAdmin(s, admin)
	return err
}

// gone forgets a tenant of which nothing is left.
func (p *Plane) gone(s platform.Set) error {
	if err := p.state.Remove(s.Tenant); err != nil || p.WebCA() == "" {
		return err
	}
	_, err := p.web()
	return err
}

// lockAndLook makes this the one command that changes the plane, and reads what another one changed meanwhile.
func (p *Plane) lockAndLook(ctx context.Context) (unlock func(), err error) {
	p.locking.Lock()
	defer p.locking.Unlock()
	if p.locks == 0 {
		if p.unlock, err = p.lock(ctx); err != nil {
			return nil, err
		}
		if err := p.state.Reload(); err != nil {
			p.unlock()
			return nil, err
		}
	}
	p.locks++
	return func() {
		p.locking.Lock()
		defer p.locking.Unlock()
		if p.locks--; p.locks == 0 {
			p.unlock()
		}
	}, nil
}

// locker counts who works under the plane's lock in this process.
type locker struct {
	locking sync.Mutex
	locks   int
	unlock  func()
}

// working opens a plane that is up for a command that carries operations out.
func (p *Plane) working(ctx context.Context) (*operate.Engine, func(), error) {
	if err := p.supervisor.Ping(ctx); err != nil {
		return nil, nil, p.whyNot(err)
	}
	if err := p.open(ctx); err != nil {
		return nil, nil, err
	}
	conn, err := p.patient()
	if err != nil {
		return nil, nil, err
	}
	e, err := p.operations(conn)
	return e, func() { _ = conn.Close() }, err
}

// patient connects to the registry for what is not to fail because the registry is started anew meanwhile.
func (p *Plane) patient() (*grpc.ClientConn, error) {
	return p.platform.Registry(operate.Patient()...)
}

// ApplyOptions say how operations are carried out.
type ApplyOptions struct {
	// MaxParallel operations at once; 0 is 1.
	MaxParallel int
	// Wait has somebody else's lease waited for.
	Wait bool
}

// Apply carries a plan out, as it stands: an operation for each of its tenants.
func (p *Plane) Apply(ctx context.Context, hash string, o ApplyOptions) ([]*registryv1.Operation, error) {
	e, done, err := p.working(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	e.Wait = o.Wait
	return e.Apply(ctx, hash, o.MaxParallel)
}

// Resume takes an operation up.
func (p *Plane) Resume(ctx context.Context, operation string, o ApplyOptions) (*registryv1.Operation, error) {
	e, done, err := p.working(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	e.Wait = o.Wait
	return e.Resume(ctx, operation)
}

// Operations lists operations, the newest first: of one tenant, where one is named, and only those that are not finished, where asked.
func (p *Plane) Operations(ctx context.Context, tenant string, unfinished bool) ([]*registryv1.Operation, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if tenant != "" {
		res, err := registryv1.NewTenantServiceClient(conn).GetTenant(ctx, &registryv1.GetTenantRequest{Tenant: tenant})
		if err != nil {
			return nil, fault.FromRPC(err)
		}
		tenant = res.GetStatus().GetTenant().GetId()
	}
	req := &registryv1.ListOperationsRequest{TenantId: tenant, Unfinished: unfinished}
	return pages.All(ctx, registryv1.NewOperationServiceClient(conn).ListOperations, req, (*registryv1.ListOperationsResponse).GetOperations)
}

// Operation reads one.
func (p *Plane) Operation(ctx context.Context, operation string) (*registryv1.Operation, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := registryv1.NewOperationServiceClient(conn).GetOperation(ctx, &registryv1.GetOperationRequest{OperationId: operation})
	return res.GetOperation(), fault.FromRPC(err)
}

// OperationReads is the registry's service of operations, as the operator that this command is; done closes what it needs.
func (p *Plane) OperationReads(ctx context.Context) (ops registryv1.OperationServiceClient, done func(), err error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, nil, err
	}
	return registryv1.NewOperationServiceClient(conn), done, nil
}

// Abort gives an operation up. What was done stays done.
func (p *Plane) Abort(ctx context.Context, operation, reason string) (*registryv1.Operation, error) {
	conn, done, err := p.connected(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := registryv1.NewOperationWriteServiceClient(conn).AbortOperation(ctx, &registryv1.AbortOperationRequest{OperationId: operation, Reason: reason})
	return res.GetOperation(), fault.FromRPC(err)
}

// one plans a change of one tenant and carries it out in one go, as planes `dev` may.
func (p *Plane) one(ctx context.Context, conn *grpc.ClientConn, kind registryv1.OperationKind, change *registryv1.TenantChange, reason string) error {
	if p.state.Plane != "dev" {
		return fault.New(fault.FailedPrecondition, "tenants of this plane are changed by plan: fleet plan %s --tenant %s --reason '…', then fleet approve and fleet apply", operate.Kind(kind), change.GetSlug())
	}
	e, err := p.operations(conn)
	if err != nil {
		return err
	}
	// It was made this moment, of what was read this moment; the registry holds it against what it knows.
	e.Recheck = func(context.Context, *registryv1.StoredPlan) error { return nil }
	where, err := p.carrier().Where(ctx)
	if err != nil {
		return err
	}
	change.Steps = operate.Steps(kind)
	for _, c := range p.blueprint.Components {
		change.Restarts = append(change.Restarts, c.Name)
	}
	if err := p.foresee(ctx, conn, kind, change); err != nil {
		return err
	}
	return e.ApplyMade(ctx, &registryv1.Plan{
		Plane: p.state.Plane, Platform: p.carrier().Name(), Account: where.Account, Region: where.Region,
		Blueprint: p.blueprint.Name, BlueprintDigest: p.blueprint.Digest, Kind: kind, Selectors: []string{"--tenant " + change.GetSlug()},
		Tenants: []*registryv1.TenantChange{change}, Reason: reason,
	})
}

// OpenDelegated opens a platform in the process that carries out one tenant's steps.
func OpenDelegated(name string, config json.RawMessage, door platform.Door) (platform.Platform, error) {
	switch name {
	case "local":
		return local.Open(config)
	case docker.Name:
		return docker.Open(config, door)
	case aws.Name:
		return aws.OpenDelegated(config, door)
	}
	return nil, errors.New("platform " + name + " delegates nothing to a process of its own")
}
