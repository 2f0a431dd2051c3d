package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	"a3os.app/services/registry/internal/store"
)

// ownSet is what the plane's own registry is called among sets.
const ownSet = "plane"

type backups struct {
	registryv1.UnimplementedBackupServiceServer
	registryv1.UnimplementedBackupWriteServiceServer
	Config
}

// ListBackups lists what is known of backups.
func (s *backups) ListBackups(ctx context.Context, req *registryv1.ListBackupsRequest) (*registryv1.ListBackupsResponse, error) {
	most := req.GetPageSize()
	if most == 0 {
		const byDefault = 1000
		most = byDefault
	}
	before, beforeID := never, int64(0)
	if err := readPageToken(req.GetPageToken(), &before, &beforeID); err != nil {
		return nil, err
	}
	var rows []store.Backup
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		q := store.New(tx)
		switch req.GetSet() {
		case "":
			rows, err = q.NewestBackups(ctx, store.NewestBackupsParams{Before: before, BeforeID: beforeID, Most: most + 1})
		case ownSet:
			rows, err = q.BackupsOf(ctx, store.BackupsOfParams{Before: before, BeforeID: beforeID, Most: most + 1})
		default:
			t, err := find(ctx, q, req.GetSet())
			if err != nil {
				return err
			}
			rows, err = q.BackupsOf(ctx, store.BackupsOfParams{TenantID: t.ID, Before: before, BeforeID: beforeID, Most: most + 1})
			return err
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	res := &registryv1.ListBackupsResponse{}
	rows, res.NextPageToken = onePage(rows, most, func(b store.Backup) string { return pageToken(b.TakenAt, b.ID) })
	for _, row := range rows {
		res.Backups = append(res.Backups, backupOf(row))
	}
	return res, nil
}

func backupOf(row store.Backup) *registryv1.Backup {
	out := &registryv1.Backup{
		TakenAt: timestamppb.New(row.TakenAt), SizeBytes: row.SizeBytes, Release: row.Release, Took: milliseconds(row.TookMs),
		RestoreTook: milliseconds(row.RestoreTookMs), Failure: row.Failure,
	}
	if !row.TenantID.IsZero() {
		out.TenantId = row.TenantID.String()
	}
	if row.Name != nil {
		out.Name = *row.Name
	}
	if row.VerifiedAt != nil {
		out.VerifiedAt = timestamppb.New(*row.VerifiedAt)
	}
	return out
}

func milliseconds(n int64) *durationpb.Duration {
	return durationpb.New(time.Duration(n) * time.Millisecond)
}

// RecordBackup records a backup, or an attempt that came to nothing.
func (s *backups) RecordBackup(ctx context.Context, req *registryv1.RecordBackupRequest) (*registryv1.RecordBackupResponse, error) {
	b := req.GetBackup()
	p := store.PutBackupParams{
		TakenAt: b.GetTakenAt().AsTime(), SizeBytes: b.GetSizeBytes(), Release: b.GetRelease(), TookMs: b.GetTook().AsDuration().Milliseconds(),
		RestoreTookMs: b.GetRestoreTook().AsDuration().Milliseconds(), Failure: b.GetFailure(),
	}
	if b.GetName() == "" && b.GetFailure() == "" {
		return nil, fault.New(fault.InvalidArgument, "a backup has a name, or an attempt the reason why it came to nothing")
	}
	if name := b.GetName(); name != "" {
		p.Name = &name
	}
	if b.GetVerifiedAt().IsValid() {
		at := b.GetVerifiedAt().AsTime()
		p.VerifiedAt = &at
	}
	target := ownSet
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		if b.GetTenantId() != "" {
			t, err := ch.lock(ctx, b.GetTenantId())
			if err != nil {
				return err
			}
			p.TenantID, target = t.ID, t.ID.String()
		}
		if err := errors.Join(ch.q.PutBackup(ctx, p), ch.q.ThinBackups(ctx, p.TenantID)); err != nil {
			return fmt.Errorf("record the backup: %w", err)
		}
		detail := b.GetName()
		if b.GetFailure() != "" {
			detail = "failed: " + b.GetFailure()
		}
		return ch.log(ctx, "registry.backup.recorded", target, detail)
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.RecordBackupResponse{}, nil
}

// RecordRestore has the witness go back to what was restored, and keeps what it held. The registry itself has nothing to go back to.
func (s *backups) RecordRestore(ctx context.Context, req *registryv1.RecordRestoreRequest) (*registryv1.RecordRestoreResponse, error) {
	res := &registryv1.RecordRestoreResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		if req.GetTenantId() == "" {
			return ch.recordOwnRestore(ctx, req)
		}
		p, err := s.plannedRestore(ctx, ch, req)
		if err != nil {
			return err
		}
		t, err := ch.lock(ctx, req.GetTenantId())
		if err != nil {
			return err
		}
		if err := p.may(ctx, s.Config, ch, t); err != nil {
			return err
		}
		res, err = ch.recordRestore(ctx, t, req, p)
		return err
	})
	if !errors.Is(err, errOnlyValidated) {
		return res, err
	}
	return res, s.beginRestore(ctx, req)
}

// recordOwnRestore is of the plane's own registry, which is restored by who finds it lost: the plans and the operators were in it.
func (ch change) recordOwnRestore(ctx context.Context, req *registryv1.RecordRestoreRequest) error {
	if req.GetPlanHash() != "" {
		return fault.New(fault.InvalidArgument, "plan_hash: the plane's own registry is restored by no plan, for it holds them")
	}
	if req.GetValidateOnly() {
		return nil
	}
	return ch.log(ctx, "registry.restored", ownSet, fmt.Sprintf("backup %s, as of %s: %s", req.GetBackup(), req.GetTakenAt().AsTime().Format(time.RFC3339), req.GetReason()))
}

// recordRestore has a tenant's witness go back. p is the plan that was carried out; nil for none. errOnlyValidated where it was only asked.
func (ch change) recordRestore(ctx context.Context, t store.Tenant, req *registryv1.RecordRestoreRequest, p *plannedRestore) (*registryv1.RecordRestoreResponse, error) {
	if from := req.GetCopiedFrom(); from != "" && from != t.CopyOf.String() {
		return nil, fault.New(fault.FailedPrecondition, "the registry doesn't have it that tenant %s was made to be a copy of %s (of one that was adopted it is not known): no backup of that one is restored to it", t.Slug, from)
	}
	restored, err := ch.restoredLog(ctx, t.ID, req.GetCheckpoint())
	if err != nil {
		return nil, err
	}
	size := int64(restored.Size) //nolint:gosec // G115: bounded by restoredLog
	if req.GetCopiedFrom() == "" {
		if err := ch.asOf(ctx, t.ID, req, size); err != nil {
			return nil, err
		}
	}
	held, err := ch.q.NewestCheckpoint(ctx, t.ID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read the newest checkpoint: %w", err)
	}
	res := &registryv1.RecordRestoreResponse{LostEntries: max(held.Size-size, 0)}
	if err == nil {
		res.WitnessedAt = timestamppb.New(held.WitnessedAt)
	}
	if req.GetCopiedFrom() != "" {
		// What was witnessed of the set that the copy takes the place of is of another history.
		if err := ch.q.ForgetCheckpointsBeyond(ctx, store.ForgetCheckpointsBeyondParams{TenantID: t.ID, Size: 0}); err != nil {
			return nil, fmt.Errorf("forget the checkpoints of what the copy takes the place of: %w", err)
		}
	}
	if err := ch.goBack(ctx, t.ID, restored, req.GetCheckpoint()); err != nil {
		return nil, err
	}
	row := store.InsertRestoreParams{TenantID: t.ID, Backup: req.GetBackup(), TakenAt: req.GetTakenAt().AsTime(), Actor: ch.actor,
		Reason: req.GetReason(), Size: size, WitnessedSize: held.Size, WitnessedNote: held.Note}
	by := ""
	if p != nil {
		row.PlanHash, row.PlannedBy, row.ApprovedBy = p.row.Plan.Hash, p.row.Plan.Actor, p.approvedBy
		by = fmt.Sprintf(", by plan %s of %s, approved by %s", row.PlanHash, row.PlannedBy, cmp.Or(row.ApprovedBy, "nobody"))
	}
	if err := ch.q.InsertRestore(ctx, row); err != nil {
		return nil, fmt.Errorf("record the restore: %w", err)
	}
	if req.GetValidateOnly() {
		return res, errOnlyValidated
	}
	if err := p.end(ctx, ch, t); err != nil {
		return nil, err
	}
	if req.GetCopiedFrom() != "" {
		return res, ch.log(ctx, "registry.tenant.copied", t.ID.String(), fmt.Sprintf("from %s, backup %s, as of %s%s: %s", req.GetCopiedFrom(), req.GetBackup(), req.GetTakenAt().AsTime().Format(time.RFC3339), by, req.GetReason()))
	}
	return res, ch.log(ctx, "registry.tenant.restored", t.ID.String(), fmt.Sprintf("backup %s, %d entries of the log are lost%s: %s", req.GetBackup(), res.GetLostEntries(), by, req.GetReason()))
}

// restoredLog is the checkpoint of the restored log: it has to be signed with the key that the witness knows.
func (ch change) restoredLog(ctx context.Context, tenant id.Tenant, note string) (tlog.Checkpoint, error) {
	key, err := ch.q.VerifierKey(ctx, tenant)
	if note == "" || errors.Is(err, pgx.ErrNoRows) {
		return tlog.Checkpoint{}, nil // nothing was sealed then, or nothing was ever witnessed
	}
	if err != nil {
		return tlog.Checkpoint{}, fmt.Errorf("read the log's key: %w", err)
	}
	verifier, err := tlog.NewVerifier(key)
	if err != nil {
		return tlog.Checkpoint{}, err
	}
	c, err := verifier.Open(note)
	if err != nil {
		return tlog.Checkpoint{}, fault.Wrap(fault.InvalidArgument, err, "the checkpoint is not a note signed with the key of this tenant's log")
	}
	const most = 1 << 62
	if c.Size > most {
		return tlog.Checkpoint{}, fault.New(fault.InvalidArgument, "no log has %d entries", c.Size)
	}
	return c, nil
}

// errOnlyValidated takes back what was only asked about.
var errOnlyValidated = errors.New("it was asked whether it would be recorded")

// asOf refuses a log that is shorter than what was witnessed before the backup was taken: a backup has what was there, so this is of another
// tenant, another time, or made up, and the witness would forget for it.
func (ch change) asOf(ctx context.Context, tenant id.Tenant, req *registryv1.RecordRestoreRequest, size int64) error {
	// The machine that took the backup had a clock of its own. A restore that is needed is not to fail by it: one that ran ahead is told by when
	// the backup was recorded.
	const clocksApart = 15 * time.Minute
	taken := req.GetTakenAt().AsTime()
	recorded, err := ch.q.BackupRecorded(ctx, store.BackupRecordedParams{Target: tenant.String(), TenantID: tenant, Name: req.GetBackup()})
	if err != nil {
		return fmt.Errorf("read when the backup was recorded: %w", err)
	}
	for _, r := range recorded {
		if at := r.At.Add(-time.Duration(r.TookMs) * time.Millisecond); at.Before(taken) {
			taken = at
		}
	}
	if taken.After(time.Now().Add(clocksApart)) {
		return fault.New(fault.InvalidArgument, "no backup was taken at %s, which is yet to come", taken.Format(time.RFC3339))
	}
	witnessed, err := ch.q.WitnessedBefore(ctx, store.WitnessedBeforeParams{TenantID: tenant, Moment: taken.Add(-clocksApart)})
	if err != nil {
		return fmt.Errorf("read what was witnessed before the backup: %w", err)
	}
	if witnessed > size {
		return fault.New(fault.FailedPrecondition, "the backup of %s has a log of %d entries, and %d had been witnessed before it was taken: it is not a backup of this tenant at that time",
			taken.Format(time.RFC3339), size, witnessed)
	}
	return nil
}

// goBack forgets the checkpoints of what is no more. What was witnessed before the backup has to be what was restored: a backup of a log
// that is not the one witnessed is refused.
func (ch change) goBack(ctx context.Context, tenant id.Tenant, restored tlog.Checkpoint, note string) error {
	size := int64(restored.Size) //nolint:gosec // G115: bounded by restoredLog
	if restored.Size > 0 {
		at, err := ch.q.CheckpointAt(ctx, store.CheckpointAtParams{TenantID: tenant, Size: size})
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			err = ch.q.InsertCheckpoint(ctx, store.InsertCheckpointParams{TenantID: tenant, Size: size, RootHash: restored.Root, Note: note})
		case err == nil && !bytes.Equal(at.RootHash, restored.Root):
			return fault.New(fault.FailedPrecondition, "the log of %d entries that was restored is not the one that was witnessed at that size: it is of another history", size)
		}
		if err != nil {
			return fmt.Errorf("keep the checkpoint of what was restored: %w", err)
		}
	}
	if err := ch.q.ForgetCheckpointsBeyond(ctx, store.ForgetCheckpointsBeyondParams{TenantID: tenant, Size: size}); err != nil {
		return fmt.Errorf("forget the checkpoints of what is no more: %w", err)
	}
	return nil
}
