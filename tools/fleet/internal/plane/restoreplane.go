package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/operate"
	"a3os.app/tools/fleet/internal/pages"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/state"
)

// restorePlane puts the plane's own registry back to what it was when a backup was taken. Sets and the gateway go on meanwhile. Where the
// whole plane is lost, its keys and authorities are put back first, with the recovery key; its tenants are restored one by one afterwards.
func (p *Plane) restorePlane(ctx context.Context, r RestoreRequest) (*Restored, error) {
	began := time.Now()
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.whereBackupsAre(); err != nil {
		return nil, err
	}
	if err := p.openState(); err != nil {
		return nil, err
	}
	if _, err := p.platform.Whose(); errors.Is(err, fs.ErrNotExist) {
		if state.Exists(p.Settings.Home) && p.platform.NotRestoring(p.own) == nil {
			// Taken up again, each of its tenants would wait for a restore, whose data are all here.
			return nil, fault.New(fault.FailedPrecondition, "the plane in %s is here, and its own keys are gone: put them back, fleet backup put-back-keys --from BACKUP --to plane --recovery-key FILE", p.Settings.Home)
		}
		if err := p.takeUp(ctx, r); err != nil {
			return nil, err
		}
	}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	_, b, _, err := p.believe(ctx, p.own, r)
	if err != nil {
		return nil, err
	}
	locked, err := p.platform.Backups().Lock(p.own.Name())
	if err != nil {
		return nil, err
	}
	defer locked()
	out := &Restored{BackedUp: backedUp(p.platform.Backups(), b.Manifest), Lost: began.Sub(b.Manifest.TakenAt), Serves: true}
	out.Dir = b.Dir
	if err := p.putPlaneBack(ctx, r, b, out); err != nil {
		return nil, err
	}
	out.Total = time.Since(began)
	return out, p.platform.Restored(ctx, p.own)
}

// putPlaneBack brings up what the registry stands on, tries the backup out, and puts it in the registry's place.
func (p *Plane) putPlaneBack(ctx context.Context, r RestoreRequest, b *backup.Backup, out *Restored) error {
	var changed bool
	steps := []struct {
		what string
		do   func() (bool, error)
	}{
		{"certificates of the plane", sequence(
			func() (bool, error) { return p.carrier().Identity(ctx, p.own) },
			func() (bool, error) { return p.web() })},
		{"supervisor", func() (bool, error) { return p.supervisor.Ensure(ctx, p.Programs()) }},
		{p.groundIs(), func() (bool, error) { return p.ground(ctx) }},
		{"plane: the backup is whole, tried out in a throwaway server", func() (bool, error) { return true, p.tryOut(ctx, r, b, out) }},
		{"plane: the registry stopped", func() (bool, error) { return p.carrier().StopHolders(ctx, p.own) }},
		{"plane: the registry's database as of " + b.Manifest.TakenAt.Format(time.RFC3339), func() (bool, error) {
			return true, p.platform.RestoreDatabase(ctx, p.own, p.controls, b, local.Restoring{Backup: b.Manifest.Name, Dir: b.Dir, Began: time.Now().UTC(), Actor: r.Actor, Reason: r.Reason})
		}},
		{"registry and gateway", sequence(
			func() (bool, error) { return false, p.noteFront() },
			func() (bool, error) { return p.carrier().Start(ctx, p.own, p.controls) },
			func() (bool, error) { return false, p.awaitRegistry(ctx) })},
		{"on the registry's record", func() (bool, error) { return false, p.recordPlaneRestore(ctx, b, r) }},
	}
	for _, s := range steps {
		if err := p.step(&changed, s.what, s.do); err != nil {
			return err
		}
	}
	return p.compareTenants(ctx)
}

// tryOut refuses, before anything is given up, a backup that can't be restored, and to give up a registry that is there unless that was asked for.
func (p *Plane) tryOut(ctx context.Context, r RestoreRequest, b *backup.Backup, out *Restored) error {
	there, err := p.platform.HasDatabase(ctx, p.own)
	if err != nil {
		return err
	}
	if there && !r.Replace && p.platform.NotRestoring(p.own) == nil {
		return fault.New(fault.FailedPrecondition, "the registry's database is there, and what was written to it since the backup would be given up: say --replace if it is to be")
	}
	tried, err := p.platform.RehearseToRestore(ctx, p.own, p.controls, b)
	if err != nil {
		return refused(err)
	}
	out.tried(tried)
	return nil
}

// takeUp has this machine take up a plane that was lost: who it is, its keys and its authorities.
func (p *Plane) takeUp(ctx context.Context, r RestoreRequest) error {
	if r.RecoveryKey == "" {
		return fault.New(fault.FailedPrecondition, "there is no plane in %s: to bring one back that was lost, name the file of its recovery key with --recovery-key", p.Settings.Home)
	}
	recovery, err := recoveryIn(r.RecoveryKey)
	if err != nil {
		return err
	}
	dir, err := p.findBackup(r.From)
	if err != nil {
		return err
	}
	b, err := backup.Open(ctx, dir, backup.Whose{Plane: recovery.Plane, ID: recovery.PlaneID, ManifestKey: recovery.ManifestKey})
	if err != nil {
		return err
	}
	if b.Manifest.Set != p.own.Name() {
		return fmt.Errorf("%w: %s is of %s: the plane comes first, from a backup of its own", backup.ErrRefused, b.Manifest.Name, b.Manifest.Slug)
	}
	key, err := p.openWith(p.own, b, dir, r.RecoveryKey)
	if err != nil {
		return err
	}
	if err := b.Check(ctx); err != nil {
		return err
	}
	var changed bool
	return p.step(&changed, "who the plane is, its keys and its authorities", func() (bool, error) {
		return true, p.platform.TakeUp(ctx, b, key, local.Restoring{Backup: b.Manifest.Name, Dir: dir, Began: time.Now().UTC(), Actor: r.Actor, Reason: r.Reason})
	})
}

func (p *Plane) slugs() []string {
	var out []string
	for _, t := range p.state.Tenants() {
		out = append(out, t.Slug)
	}
	return out
}

func (p *Plane) recordPlaneRestore(ctx context.Context, b *backup.Backup, r RestoreRequest) error {
	r.Reason = strings.TrimSpace(r.Reason)
	_, err := p.recordRestore(ctx, p.own, b, r, false)
	return err
}

// compareTenants says which tenants the restored registry doesn't know, or knows as they were before: what happened since the backup is not in it.
func (p *Plane) compareTenants(ctx context.Context) error {
	conn, err := p.registry()
	if err != nil {
		return err
	}
	defer conn.Close()
	known, err := everyTenant(ctx, conn)
	if err != nil {
		return err
	}
	p.report.Note("who was removed as an operator after the backup is one again, and what they approved counts: look with fleet operator list, and remove them once more")
	if err := p.tellUnfinished(ctx, conn, known); err != nil {
		return err
	}
	for _, t := range p.state.Tenants() {
		if _, ok := known[t.ID.String()]; !ok && !t.ID.IsZero() {
			p.report.Note(fmt.Sprintf("%s (%s) was made after the backup, and the registry does not know it: make it known again with fleet tenant adopt %s --reason '…'", t.Slug, t.ID, t.Slug))
		}
	}
	for id, status := range known {
		t := status.GetTenant()
		gone := t.GetState() == registryv1.TenantState_TENANT_STATE_OFFBOARDED
		if here := slices.ContainsFunc(p.state.Tenants(), func(s state.Tenant) bool { return s.ID.String() == id }); !here && !gone {
			p.report.Note(fmt.Sprintf("%s (%s) is %s by the registry, and its set is not here: if it left after the backup, have it leave once more: fleet plan offboard --tenant %s --reason '…'",
				t.GetSlug(), id, strings.ToLower(strings.TrimPrefix(t.GetState().String(), "TENANT_STATE_")), t.GetSlug()))
		}
	}
	for _, t := range p.state.Tenants() {
		set := p.setOf(t)
		if err := p.platform.NotRestoring(set); err != nil {
			p.report.Note(fmt.Sprintf("%s is still to be restored: %v", t.Slug, err))
			continue
		}
		if status, ok := known[t.ID.String()]; ok {
			if err := p.compare(ctx, conn, set, status); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellUnfinished names each operation that the restored registry has as unfinished. Which of them ended since, or were given up, nobody can tell by
// what is here: an upgrade may have been taken back, and who was to leave may have stayed.
func (p *Plane) tellUnfinished(ctx context.Context, conn *grpc.ClientConn, known map[string]*registryv1.TenantStatus) error {
	client, req := registryv1.NewOperationServiceClient(conn), &registryv1.ListOperationsRequest{Unfinished: true}
	for op, err := range pages.Each(ctx, client.ListOperations, req, (*registryv1.ListOperationsResponse).GetOperations) {
		if err != nil {
			return err
		}
		goesOn := "fleet operation resume " + op.GetId()
		if !operate.Ends(op.GetKind()) {
			goesOn += ", or fleet plane up,"
		}
		p.report.Note(fmt.Sprintf("%s of %s is not finished by the registry: if it ended or was given up after the backup, give it up before anything else, fleet operation abort %s --reason '…'; %s goes on with it",
			operate.Kind(op.GetKind()), cmp.Or(known[op.GetTenantId()].GetTenant().GetSlug(), op.GetTenantId()), op.GetId(), goesOn))
	}
	return nil
}

// compare says what of a tenant the restored registry has otherwise than it is here.
func (p *Plane) compare(ctx context.Context, conn *grpc.ClientConn, set platform.Set, status *registryv1.TenantStatus) error {
	said, err := p.behind(ctx, conn, status)
	if err != nil {
		return err
	}
	if said != "" {
		p.report.Note(said)
	}
	if status.GetTenant().GetState() != registryv1.TenantState_TENANT_STATE_SUSPENDED {
		return nil
	}
	run, err := p.carrier().Components(ctx, set)
	if err != nil {
		return err
	}
	if len(run) > 0 {
		p.report.Note(fmt.Sprintf("%s is suspended by the registry, and its set runs: if it was resumed after the backup, resume it once more with fleet plan resume --tenant %s --reason '…' and fleet apply HASH", set.Slug, set.Slug))
	}
	return nil
}

func everyTenant(ctx context.Context, conn *grpc.ClientConn) (map[string]*registryv1.TenantStatus, error) {
	const most = 500
	client, out := registryv1.NewTenantServiceClient(conn), map[string]*registryv1.TenantStatus{}
	for s, err := range pages.Each(ctx, client.ListTenants, &registryv1.ListTenantsRequest{PageSize: most}, (*registryv1.ListTenantsResponse).GetTenants) {
		if err != nil {
			return nil, err
		}
		out[s.GetTenant().GetId()] = s
	}
	return out, nil
}
