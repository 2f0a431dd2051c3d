package plane

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
)

const recordWithin = 30 * time.Second

// recordBackup tells the registry of a backup, or of why there is none: what alarms, and what fleet status shows, reads it there.
func (p *Plane) recordBackup(ctx context.Context, s platform.Set, made *BackedUp, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordWithin)
	defer cancel()
	conn, err := p.registry()
	if err != nil {
		return err
	}
	defer conn.Close()
	b := &registryv1.Backup{TakenAt: timestamppb.Now()}
	if !s.Tenant.IsZero() {
		b.TenantId = s.Tenant.String()
	}
	if made != nil {
		b.Name, b.TakenAt, b.SizeBytes, b.Release = made.Name, timestamppb.New(made.TakenAt), made.Size, made.Release
		b.Took, b.RestoreTook = durationpb.New(made.Took), durationpb.New(made.RestoreTook)
		if !made.Verified.IsZero() {
			b.VerifiedAt = timestamppb.New(made.Verified)
		}
	}
	if failure != nil {
		const most = 2000
		b.Failure = clip.Text(failure.Error(), most)
	}
	if _, err := registryv1.NewBackupWriteServiceClient(conn).RecordBackup(ctx, &registryv1.RecordBackupRequest{Backup: b}); err != nil {
		return fmt.Errorf("tell the registry of the backup: %w", fault.FromRPC(err))
	}
	return nil
}

// recordRestore has the registry's witness go back with the set, or only asks whether it would, and answers how many entries of the log are lost.
func (p *Plane) recordRestore(ctx context.Context, s platform.Set, b *backup.Backup, r RestoreRequest, ask bool) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	conn, err := p.registry()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	req := &registryv1.RecordRestoreRequest{Backup: b.Manifest.Name, TakenAt: timestamppb.New(b.Manifest.TakenAt), Checkpoint: b.Manifest.Checkpoint, Reason: r.Reason, ValidateOnly: ask}
	if !s.Tenant.IsZero() {
		req.TenantId = s.Tenant.String()
	}
	if from := b.Manifest.Copied; from != nil {
		req.CopiedFrom = from.Set
	}
	if r.plan != nil {
		of := r.plan.change().GetRestore()
		req.PlanHash, req.PlannedBackup, req.ManifestDigest = r.plan.hash(), of.GetBackup(), of.GetManifestDigest()
	}
	res, err := registryv1.NewBackupWriteServiceClient(conn).RecordRestore(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("tell the registry of the restore: %w", fault.FromRPC(err))
	}
	return res.GetLostEntries(), nil
}
