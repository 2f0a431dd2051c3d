package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	"a3os.app/libs/workload"
	"a3os.app/services/registry/internal/store"
	"a3os.app/services/registry/internal/witness"
)

// errNotWitnessed is returned where a checkpoint is refused. What the report said of the components was taken.
var errNotWitnessed = fault.Declare(fault.FailedPrecondition, "CHECKPOINT_REFUSED",
	"the checkpoint was refused and the last good one is kept: the log must contain the one that was witnessed")

type reports struct {
	registryv1.UnimplementedReportServiceServer
	Config
	heard   *heardLicences
	refused sparsely
}

// sparsely is what is told at most once a minute of each tenant.
type sparsely struct{ last sync.Map }

// due says that nothing was told of a tenant for a minute.
func (s *sparsely) due(tenant id.Tenant) bool {
	at, told := s.last.Load(tenant)
	return !told || time.Since(at.(time.Time)) >= time.Minute //nolint:forcetypeassert // nothing else is put there
}

func (s *sparsely) told(tenant id.Tenant) { s.last.Store(tenant, time.Now()) }

// Report takes what a set says of itself. Whose set it is, the certificate says.
func (s *reports) Report(ctx context.Context, req *registryv1.ReportRequest) (*registryv1.ReportResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if who.Tenant.IsZero() {
		return nil, fault.New(fault.PermissionDenied, "%s is no tenant's set", who)
	}
	if who.Service != s.Publisher.Reporter(who.Tenant) {
		return nil, fault.New(fault.PermissionDenied, "%s does not report for its set: the blueprint names who does", who)
	}
	size, err := s.Intake.Keep(ctx, who.Tenant, req)
	if err != nil {
		return nil, err
	}
	if req.GetCheckpoint() != "" {
		if size, err = s.witness(ctx, who, req); err != nil {
			return nil, err
		}
	}
	res := &registryv1.ReportResponse{WitnessedSize: size, NextReportSeconds: s.nextReport()}
	return res, s.licence(ctx, who, req, res)
}

// witness follows the tenant's log, and answers the size that is held. A refused checkpoint is an alarm: somebody with the log's
// key, or with the database behind it, has shown a history that isn't the one seen before. It is on record, once a minute at most, for the record is
// kept for ever and who took a set over may show one a second.
func (s *reports) witness(ctx context.Context, who workload.Identity, req *registryv1.ReportRequest) (int64, error) {
	var size int64
	var refused error
	tell := s.refused.due(who.Tenant)
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		// One report of a tenant at a time: what is held must not change between check and write.
		if _, err := ch.lock(ctx, who.Tenant.String()); err != nil {
			return err
		}
		held, err := ch.held(ctx, who.Tenant)
		if err != nil {
			return err
		}
		size, refused = int64(held.Size), nil //nolint:gosec // G115: it was an int64 in the database
		next, err := witness.Advance(held, tlog.Origin(who.Plane, who.Tenant), req.GetCheckpointVerifierKey(), req.GetCheckpoint(), req.GetConsistencyProof())
		if err != nil {
			refused = err
			if !tell {
				return nil
			}
			return ch.log(ctx, "registry.checkpoint.refused", who.Tenant.String(), err.Error())
		}
		if held.VerifierKey != "" && next.Size == held.Size {
			return nil
		}
		size = int64(next.Size) //nolint:gosec // G115: witness bounds it
		return ch.advance(ctx, who.Tenant, held, next, req.GetCheckpoint())
	})
	if err != nil {
		return 0, err
	}
	if refused != nil {
		s.Intake.CheckpointRefused(ctx)
		if tell {
			s.refused.told(who.Tenant)
			slog.ErrorContext(ctx, "a checkpoint was refused, the last good one is kept", "alarm", "checkpoint_refused",
				"tenant", who.Tenant.String(), "witnessed_size", size, "error", refused)
		}
		if errors.Is(refused, witness.ErrInvalid) {
			return 0, fault.Wrap(fault.InvalidArgument, refused, "the checkpoint is not a note signed with the key of this tenant's log")
		}
		return 0, errNotWitnessed
	}
	return size, nil
}

// held is what is known of a tenant's log.
func (ch change) held(ctx context.Context, tenant id.Tenant) (witness.Held, error) {
	key, err := ch.q.VerifierKey(ctx, tenant)
	if errors.Is(err, pgx.ErrNoRows) {
		return witness.Held{}, nil
	}
	if err != nil {
		return witness.Held{}, fmt.Errorf("read the log's key: %w", err)
	}
	c, err := ch.q.NewestCheckpoint(ctx, tenant)
	if errors.Is(err, pgx.ErrNoRows) {
		return witness.Held{VerifierKey: key}, nil // restored to before anything was sealed
	}
	if err != nil {
		return witness.Held{}, fmt.Errorf("read the newest checkpoint: %w", err)
	}
	return witness.Held{VerifierKey: key, Size: uint64(c.Size), Root: c.RootHash}, nil //nolint:gosec // G115: the column is not negative
}

func (ch change) advance(ctx context.Context, tenant id.Tenant, held, next witness.Held, note string) error {
	if held.VerifierKey == "" {
		if err := ch.q.InsertLog(ctx, store.InsertLogParams{TenantID: tenant, VerifierKey: next.VerifierKey}); err != nil {
			return fmt.Errorf("keep the log's key: %w", err)
		}
	}
	size := int64(next.Size) //nolint:gosec // G115: witness bounds it
	if err := ch.q.ThinCheckpoints(ctx, store.ThinCheckpointsParams{TenantID: tenant, Newest: size}); err != nil {
		return fmt.Errorf("thin the checkpoints: %w", err)
	}
	if err := ch.q.InsertCheckpoint(ctx, store.InsertCheckpointParams{TenantID: tenant, Size: size, RootHash: next.Root, Note: note}); err != nil {
		return fmt.Errorf("keep the checkpoint: %w", err)
	}
	return nil
}

// nextReport spreads sets over time, so that they don't all come back together after a restart, and has many report less often.
func (s *reports) nextReport() int32 {
	const fifth = 5
	every := max(s.ReportEvery, s.Intake.Every(s.Publisher.Sets()))
	seconds := int32(max(every/time.Second, 1))                           //nolint:gosec // G115: minutes at most
	return max(1, seconds-seconds/fifth+rand.Int32N(2*(seconds/fifth)+1)) //nolint:gosec // G404: spreads load, guards nothing
}
