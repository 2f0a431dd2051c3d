package plane

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/release"
	"a3os.app/tools/fleet/internal/state"
)

// behind is what was done here with a tenant and the registry doesn't know, as a sentence with the next step; empty where it knows. The registry
// is the truth about tenants, and one that was restored from a backup is that of before: a set that is brought to it would have its upgrade
// undone, under a database that stays migrated, or its suspension.
func (p *Plane) behind(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus) (string, error) {
	t, known := status.GetTenant(), status.GetServiceSet().GetRelease()
	here, ok := p.state.Tenant(t.GetId())
	if !ok {
		return "", nil
	}
	ran, err := p.unheardOf(ctx, conn, status)
	if err != nil {
		return "", err
	}
	stopped, err := p.stoppedHere(ctx, here, t)
	if err != nil {
		return "", err
	}
	again := fmt.Sprintf("fleet plan suspend --tenant %s --reason '…' and fleet apply HASH", t.GetSlug())
	const before = "by the registry, which was restored from a backup of before,"
	switch {
	case ran != "":
		next := fmt.Sprintf("have what runs known again with fleet plan %s --tenant %s --release %s --reason '…' and fleet apply HASH", leads(known, ran), t.GetSlug(), ran)
		if t.GetState() == registryv1.TenantState_TENANT_STATE_SUSPENDED {
			next = "resume it first, which runs the one that the registry has, and at once " + next
		}
		if stopped {
			next += "; it was suspended here after that: suspend it then with " + again
		}
		return fmt.Sprintf("%s was brought to %s here, and %s it is at %s: it is left as it is, for its database may be beyond that; %s", t.GetSlug(), ran, before, known, next), nil
	case stopped:
		return fmt.Sprintf("%s was suspended here, and %s it is active: it is left as it is; suspend it once more with %s, and resume it after that where it is to be served", t.GetSlug(), before, again), nil
	}
	return "", nil
}

// upToDate refuses to bring a set to what a registry says that is behind.
func (p *Plane) upToDate(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus) error {
	said, err := p.behind(ctx, conn, status)
	if err != nil || said == "" {
		return err
	}
	return fault.New(fault.FailedPrecondition, "%s", said)
}

// agrees refuses to bring a set to a release where the registry is behind, but to the one that it was brought to here: that is how the registry
// comes to know.
func (p *Plane) agrees(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus, to string) error {
	if ran := p.state.Runs()[status.GetTenant().GetId()]; ran != "" && ran == to {
		return nil
	}
	return p.upToDate(ctx, conn, status)
}

// unheardOf is the release that a set was brought to here and that the registry has never heard of since the one it has; empty for none. Of an
// operation that it has, unfinished or given up, either release may be the one.
func (p *Plane) unheardOf(ctx context.Context, conn *grpc.ClientConn, status *registryv1.TenantStatus) (string, error) {
	ran, known := p.state.Runs()[status.GetTenant().GetId()], status.GetServiceSet().GetRelease()
	if ran == "" || known == "" || ran == known {
		return "", nil
	}
	const most = 100
	res, err := registryv1.NewOperationServiceClient(conn).ListOperations(ctx, &registryv1.ListOperationsRequest{TenantId: status.GetTenant().GetId(), PageSize: most})
	if err != nil {
		return "", fault.FromRPC(err)
	}
	for _, o := range res.GetOperations() {
		if o.GetState() == registryv1.OperationState_OPERATION_STATE_SUCCEEDED {
			break
		}
		if slices.Contains([]string{o.GetReleaseFrom(), o.GetReleaseTo()}, ran) {
			return "", nil
		}
	}
	return ran, nil
}

// stoppedHere says that a set was suspended here and doesn't run, and the registry has its tenant as active.
func (p *Plane) stoppedHere(ctx context.Context, here state.Tenant, t *registryv1.Tenant) (bool, error) {
	if !here.Suspended || t.GetState() != registryv1.TenantState_TENANT_STATE_ACTIVE {
		return false, nil
	}
	run, err := p.carrier().Components(ctx, p.setOf(here))
	return len(run) == 0, err
}

// leads is the word for a change from one release to another.
func leads(from, to string) string {
	old, err := release.ParseName(from)
	if err != nil {
		return "upgrade"
	}
	if next, err := release.ParseName(to); err == nil && old.Version != release.Development && next.Version != release.Development && release.Compare(next.Version, old.Version) < 0 {
		return "downgrade"
	}
	return "upgrade"
}

// stopped remembers that a tenant was suspended.
func (p *Plane) stopped(slug string) error {
	if _, ok := p.state.Tenant(slug); !ok {
		return nil
	}
	_, err := p.state.Change(slug, func(t *state.Tenant) { t.Suspended = true })
	return err
}

// rests remembers that a tenant is suspended whom the registry has so and whose set doesn't run. By a registry that was restored from a backup of
// before, one is that serves: what is remembered of it would keep it from a proof of isolation, and from being started again.
func (p *Plane) rests(ctx context.Context, slug string) error {
	here, ok := p.state.Tenant(slug)
	if !ok {
		return nil
	}
	run, err := p.carrier().Components(ctx, p.setOf(here))
	if err != nil || len(run) > 0 {
		return err
	}
	return p.stopped(slug)
}
