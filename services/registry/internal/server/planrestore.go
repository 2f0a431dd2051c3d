package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/services/registry/internal/store"
)

// errPlanUsed is a restore's plan that was carried out: who approved it said yes to one restore.
var errPlanUsed = fault.Declare(fault.FailedPrecondition, "PLAN_USED", "the plan was carried out, and restores nothing a second time: make another")

// plannedRestore is a plan that a restore is carried out by.
type plannedRestore struct {
	row  store.LockPlanRow
	plan *registryv1.Plan
	// begun is how far it came; nil where it wasn't begun.
	begun *store.PlannedRestore
	// approvedBy is whose word counted when it was begun; empty where none was wanted.
	approvedBy string
}

// plannedRestore is the plan that a request says is carried out, which has to be of that very tenant and backup; nil for none, on planes that let it be.
func (s *backups) plannedRestore(ctx context.Context, ch change, req *registryv1.RecordRestoreRequest) (*plannedRestore, error) {
	if req.GetPlanHash() == "" {
		if s.Plane == prod {
			return nil, errPlanned.With("tenants of plane %s are restored by plan: fleet plan restore --from %s --to %s --reason '…', then fleet approve HASH --reason '…', of another operator, and fleet apply HASH",
				s.Plane, req.GetBackup(), req.GetTenantId())
		}
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	row, err := ch.plan(ctx, req.GetPlanHash())
	if err != nil {
		return nil, err
	}
	p := &plannedRestore{row: row, plan: &registryv1.Plan{}}
	if err := proto.Unmarshal(row.Plan.Document, p.plan); err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	if p.plan.GetKind() != registryv1.OperationKind_OPERATION_KIND_RESTORE || len(p.plan.GetTenants()) != 1 {
		return nil, fault.New(fault.InvalidArgument, "the plan is to %s, and no restore", word(kindPrefix, p.plan.GetKind()))
	}
	if err := p.of(req); err != nil {
		return nil, err
	}
	begun, err := ch.q.PlannedRestores(ctx, []string{row.Plan.Hash})
	if err != nil {
		return nil, fmt.Errorf("read what was restored by the plan: %w", err)
	}
	if len(begun) > 0 {
		p.begun, p.approvedBy = &begun[0], begun[0].ApprovedBy
	}
	return p, nil
}

// of refuses what is not the restore that the plan is of.
func (p *plannedRestore) of(req *registryv1.RecordRestoreRequest) error {
	t := p.plan.GetTenants()[0]
	planned := t.GetRestore()
	own := planned.GetCopiedFrom() == "" && req.GetBackup() != planned.GetBackup()
	for _, differs := range []struct {
		what, planned, is string
		also              bool
	}{
		{"tenant", t.GetTenantId(), req.GetTenantId(), false},
		{"backup", planned.GetBackup(), req.GetPlannedBackup(), own},
		{"manifest of the backup", planned.GetManifestDigest(), req.GetManifestDigest(), false},
		{"moment", planned.GetTakenAt().AsTime().Format(time.RFC3339Nano), req.GetTakenAt().AsTime().Format(time.RFC3339Nano), false},
		{"tenant that is copied", planned.GetCopiedFrom(), req.GetCopiedFrom(), false},
	} {
		if differs.planned != differs.is || differs.also {
			return fault.New(fault.FailedPrecondition, "the plan is of another %s: it has %s, and this is %s", differs.what, orNone(differs.planned), orNone(differs.is))
		}
	}
	if !strings.HasSuffix(req.GetReason(), strings.TrimSpace(p.plan.GetReason())) {
		return fault.New(fault.FailedPrecondition, "the plan has another reason, and what was approved is what stands on the record: %s", p.plan.GetReason())
	}
	return nil
}

// may refuses a plan by which the tenant is not restored now, as BeginOperation does: one that expired, that nobody who counts approved, that doesn't
// fit the world, or that was carried out. One that was begun is gone on with, whoever was removed since, for its set is stopped: also after it expired,
// unless what the set has written since would be given up, which nobody agreed to.
func (p *plannedRestore) may(ctx context.Context, c Config, ch change, t store.Tenant) error {
	switch {
	case p == nil:
		return nil
	case p.begun == nil:
		if err := c.current(p.row, p.plan); err != nil {
			return err
		}
		by, err := c.approved(ctx, ch.q, p.row.Plan)
		if err != nil {
			return err
		}
		p.approvedBy = by
	case p.begun.RecordedAt != nil:
		return errPlanUsed.With("the plan was carried out by %s at %s, and restores nothing a second time: make another", p.begun.Actor, p.begun.RecordedAt.UTC().Format(time.RFC3339))
	default:
		if err := c.wellFormed(p.plan); err != nil {
			return err
		}
		held, err := ch.q.NewestCheckpoint(ctx, t.ID)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("read the newest checkpoint: %w", err)
		}
		if err == nil && held.WitnessedAt.After(p.row.Plan.ExpiresAt) {
			return errPlanStale.With("tenant %s has served since the plan expired at %s, and what it wrote would be given up: make it anew", t.Slug, p.row.Plan.ExpiresAt.UTC().Format(time.RFC3339))
		}
	}
	if err := ch.noneUnfinished(ctx, t.ID); err != nil {
		return err
	}
	switch other, err := ch.q.RestoredSince(ctx, store.RestoredSinceParams{TenantID: t.ID, Moment: p.row.Plan.CreatedAt}); {
	case err == nil:
		return errPlanStale.With("tenant %s was restored by %s at %s, to backup %s, after the plan was made: make it anew", t.Slug, other.Actor, other.RecordedAt.UTC().Format(time.RFC3339), other.Backup)
	case !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("look whether the tenant was restored: %w", err)
	}
	return c.fits(ctx, ch.q, p.plan, p.plan.GetTenants())
}

// beginRestore notes that a restore was begun by its plan, once it was asked whether it would be recorded: what follows stops the set.
func (s *backups) beginRestore(ctx context.Context, req *registryv1.RecordRestoreRequest) error {
	if req.GetPlanHash() == "" {
		return nil
	}
	return s.change(ctx, func(ctx context.Context, ch change) error {
		p, err := s.plannedRestore(ctx, ch, req)
		if err != nil {
			return err
		}
		t, err := ch.lock(ctx, req.GetTenantId())
		if err != nil {
			return err
		}
		if err := p.may(ctx, s.Config, ch, t); err != nil || p.begun != nil {
			return err
		}
		return p.begin(ctx, ch, t)
	})
}

func (p *plannedRestore) begin(ctx context.Context, ch change, t store.Tenant) error {
	err := ch.q.BeginPlannedRestore(ctx, store.BeginPlannedRestoreParams{PlanHash: p.row.Plan.Hash, TenantID: t.ID, Actor: ch.actor, PlannedBy: p.row.Plan.Actor, ApprovedBy: p.approvedBy})
	if err != nil {
		return fmt.Errorf("note that the restore was begun: %w", err)
	}
	return ch.log(ctx, "registry.restore.begun", t.ID.String(), fmt.Sprintf("plan %s of %s: %s", p.row.Plan.Hash, p.row.Plan.Actor, p.plan.GetReason()))
}

// end has the plan be used up; of no plan there is nothing to end.
func (p *plannedRestore) end(ctx context.Context, ch change, t store.Tenant) error {
	if p == nil {
		return nil
	}
	if p.begun == nil {
		if err := p.begin(ctx, ch, t); err != nil {
			return err
		}
	}
	if err := ch.q.EndPlannedRestore(ctx, p.row.Plan.Hash); err != nil {
		return fmt.Errorf("note that the plan was carried out: %w", err)
	}
	return nil
}
