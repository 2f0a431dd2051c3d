package plane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/plan"
	"a3os.app/tools/fleet/internal/platform"
)

// restorePlan is a stored plan of a restore.
type restorePlan struct {
	stored *registryv1.StoredPlan
	read   *registryv1.Plan
}

func (r *restorePlan) hash() string {
	if r == nil {
		return ""
	}
	return r.stored.GetHash()
}

// change is what the plan does to its one tenant.
func (r *restorePlan) change() *registryv1.TenantChange { return r.read.GetTenants()[0] }

// of refuses a backup that isn't the one that the plan names, of another content under the same name among it: also where the restore was begun, from
// which on the world is not compared with the plan any more.
func (r *restorePlan) of(b *backup.Backup) error {
	if r == nil {
		return nil
	}
	if was := r.change().GetRestore(); b.Manifest.Name != was.GetBackup() || b.Digest != was.GetManifestDigest() {
		return fault.New(fault.FailedPrecondition, "%s in %s, with the manifest %s, is not the backup that was planned and approved, %s with the manifest %s: nothing was changed",
			b.Manifest.Name, b.Dir, b.Digest, was.GetBackup(), was.GetManifestDigest())
	}
	return nil
}

// restores is what a plan says of a backup that a tenant is to be put back to. What would be refused when it is carried out is refused here.
func (p *Plane) restores(ctx context.Context, status *registryv1.TenantStatus, r plan.Restore) (*registryv1.RestoreChange, error) {
	s, err := p.set(status.GetTenant().GetId())
	if err != nil {
		return nil, err
	}
	if s, err = p.started(ctx, s); err != nil {
		return nil, err
	}
	_, b, err := p.found(ctx, s, RestoreRequest{From: r.From, RecoveryKey: r.RecoveryKey})
	if err != nil {
		return nil, err
	}
	if _, err := reasonOf(strings.TrimSpace(r.Reason), s, b.Manifest); err != nil {
		return nil, err
	}
	if err := errors.Join(p.mayReplace(ctx, s, RestoreRequest{Replace: r.Replace, plan: &restorePlan{}}), p.noOperation(ctx, s)); err != nil {
		return nil, err
	}
	m := b.Manifest
	out := &registryv1.RestoreChange{Backup: m.Name, TakenAt: timestamppb.New(m.TakenAt), ManifestDigest: b.Digest, Release: m.Release, Replace: r.Replace}
	if dir, err := p.findBackup(m.Name); err != nil || filepath.Clean(dir) != filepath.Clean(b.Dir) {
		out.Directory = b.Dir
	}
	switch {
	case m.Copied != nil:
		out.CopiedFrom = m.Copied.Set
	case m.Set != s.Name():
		out.CopiedFrom = m.Set
	default:
		out.LostEntries = max(0, entries(status.GetCheckpoint())-entries(m.Checkpoint))
	}
	return out, nil
}

// entries is the size that a checkpoint says (C2SP tlog-checkpoint: the second line); 0 where it says none. Who answered for it has looked at its
// signature: the registry, or whoever signed the manifest that it is in.
func entries(note string) int64 {
	_, rest, _ := strings.Cut(note, "\n")
	size, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// ApplyRestore carries a stored plan of a restore out, with the recovery key's file where the set's backup key is gone. What was interrupted is gone on
// with, also after the plan expired; what was put back and recorded is not put back once more, for the tenant may have served since.
func (p *Plane) ApplyRestore(ctx context.Context, hash, recoveryKey string) (*Restored, error) {
	began := time.Now()
	unlock, err := p.readyToRestore(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	conn, err := p.registry()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stored, read, err := storedPlan(ctx, conn, hash)
	if err != nil {
		return nil, err
	}
	if read.GetKind() != registryv1.OperationKind_OPERATION_KIND_RESTORE || len(read.GetTenants()) != 1 {
		return nil, fault.New(fault.InvalidArgument, "plan %s is no restore", stored.GetHash())
	}
	by := &restorePlan{stored, read}
	if stored.GetRestore().GetRecordedAt() != nil {
		return p.servedBy(ctx, by, recoveryKey, began)
	}
	planner, err := p.planner(conn)
	if err != nil {
		return nil, err
	}
	planner.Restores = func(ctx context.Context, status *registryv1.TenantStatus, r plan.Restore) (*registryv1.RestoreChange, error) {
		r.RecoveryKey = recoveryKey
		return p.restores(ctx, status, r)
	}
	begun := map[string]bool{}
	if stored.GetRestore() != nil {
		// What differs of the tenant from here on, we did: its set is stopped, and half of it may be of the backup.
		begun[by.change().GetTenantId()] = true
	}
	if err := planner.Recheck(ctx, stored, begun); err != nil {
		return nil, err
	}
	of := by.change().GetRestore()
	return p.restore(ctx, RestoreRequest{From: cmp.Or(of.GetDirectory(), of.GetBackup()), To: by.change().GetTenantId(), RecoveryKey: recoveryKey,
		Reason: read.GetReason(), Actor: "operator", Replace: of.GetReplace(), plan: by}, began)
}

// servedBy ends a restore whose set was put back, and that was interrupted before it served.
func (p *Plane) servedBy(ctx context.Context, by *restorePlan, recoveryKey string, began time.Time) (*Restored, error) {
	s, err := p.set(by.change().GetTenantId())
	if err != nil {
		return nil, err
	}
	r, err := p.platform.Restoring(s)
	if err != nil {
		return nil, err
	}
	done := by.stored.GetRestore()
	if r == nil || r.Plan != by.hash() {
		return nil, fault.New(fault.FailedPrecondition, "the plan was carried out by %s at %s, and restores nothing a second time: make another, %s",
			done.GetActor(), done.GetRecordedAt().AsTime().Format(time.RFC3339), RestoreRequest{From: by.change().GetRestore().GetBackup(), To: s.Slug, Replace: true}.planned())
	}
	if s, err = p.started(ctx, s); err != nil {
		return nil, err
	}
	out, err := p.putBackTo(ctx, s, r.Dir, recoveryKey)
	if err != nil {
		return nil, err
	}
	out.Lost, out.LostEntries = r.Began.Sub(out.TakenAt), by.change().GetRestore().GetLostEntries()
	p.report.Note(fmt.Sprintf("%s was put back at %s: it is left to have it serve", s.Slug, done.GetRecordedAt().AsTime().Format(time.RFC3339)))
	return p.endRestore(ctx, s, out, began)
}

// putBackTo is what a set was put back to, of a backup that was believed then.
func (p *Plane) putBackTo(ctx context.Context, s platform.Set, dir, recoveryKey string) (*Restored, error) {
	_, b, err := p.found(ctx, s, RestoreRequest{From: dir, RecoveryKey: recoveryKey})
	if err != nil {
		return nil, err
	}
	out := &Restored{BackedUp: backedUp(p.platform.Backups(), b.Manifest)}
	out.Dir = b.Dir
	return out, nil
}
