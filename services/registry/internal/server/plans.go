package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/services/registry/internal/store"
)

var (
	errNoPlan = fault.Declare(fault.NotFound, "NO_PLAN", "no such plan: make one with fleet plan")
	// errPlanStale is a plan that doesn't fit the world any more, or never did. Its message names each difference.
	errPlanStale = fault.Declare(fault.FailedPrecondition, "PLAN_STALE", "the plan doesn't fit what the registry knows: make it anew")
	// errNotApproved is a plan that nobody but its maker has spoken for.
	errNotApproved = fault.Declare(fault.FailedPrecondition, "PLAN_NOT_APPROVED", "the plan needs a second person's approval")
)

// prod is the plane where changes take two people.
const prod = "prod"

type plans struct {
	registryv1.UnimplementedPlanServiceServer
	Config
}

type planWrites struct {
	registryv1.UnimplementedPlanWriteServiceServer
	Config
}

// PutPlan stores a plan. To store one that is there already answers what is there.
func (s *planWrites) PutPlan(ctx context.Context, req *registryv1.PutPlanRequest) (*registryv1.PutPlanResponse, error) {
	plan := req.GetPlan()
	if err := s.wellFormed(plan); err != nil {
		return nil, err
	}
	document, hash, err := canonical(plan)
	if err != nil {
		return nil, err
	}
	res := &registryv1.PutPlanResponse{}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		proto.Reset(res)
		if req.GetBeginAt() != "" {
			begins := &operationWrites{Config: s.Config}
			return begins.putAndBegin(ctx, ch, req, document, hash, res)
		}
		p, err := s.put(ctx, ch, plan, document, hash)
		if err != nil {
			return err
		}
		res.Plan, err = s.stored(ctx, ch.q, p.Plan)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// put stores a plan, or says that it lasts longer, and keeps others from changing it until the transaction ends.
func (c Config) put(ctx context.Context, ch change, plan *registryv1.Plan, document []byte, hash string) (store.LockPlanRow, error) {
	none := store.LockPlanRow{}
	if err := c.fits(ctx, ch.q, plan, plan.GetTenants()); err != nil {
		return none, err
	}
	lasts := c.PlanLasts.Seconds()
	stored, err := ch.q.InsertPlan(ctx, store.InsertPlanParams{Hash: hash, Document: document, Actor: ch.actor, LastsSeconds: lasts})
	if err != nil {
		return none, fmt.Errorf("store the plan: %w", err)
	}
	if stored == 0 {
		if stored, err = ch.q.RenewPlan(ctx, store.RenewPlanParams{Hash: hash, Actor: ch.actor, LastsSeconds: lasts}); err != nil {
			return none, fmt.Errorf("renew the plan: %w", err)
		}
	}
	if stored > 0 {
		if err := ch.log(ctx, "registry.plan.put", hash, plan.GetReason()); err != nil {
			return none, err
		}
	}
	return ch.plan(ctx, hash)
}

// canonical is the one serialization of a plan that its hash is of. Fields that this registry doesn't know would be carried out unread.
func canonical(plan *registryv1.Plan) (document []byte, hash string, err error) {
	document, err = proto.MarshalOptions{Deterministic: true}.Marshal(plan)
	if err != nil {
		return nil, "", fmt.Errorf("encode the plan: %w", err)
	}
	known := &registryv1.Plan{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(document, known); err != nil {
		return nil, "", fmt.Errorf("read the plan back: %w", err)
	}
	if proto.Size(known) != len(document) {
		return nil, "", fault.New(fault.InvalidArgument, "the plan says something that this registry doesn't understand: make it with a fleet of the registry's release")
	}
	sum := sha256.Sum256(document)
	return document, "sha256:" + hex.EncodeToString(sum[:]), nil
}

// ApprovePlan is a second person's word.
func (s *planWrites) ApprovePlan(ctx context.Context, req *registryv1.ApprovePlanRequest) (*registryv1.ApprovePlanResponse, error) {
	res := &registryv1.ApprovePlanResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		p, err := ch.plan(ctx, req.GetHash())
		if err != nil {
			return err
		}
		if p.Plan.Actor == ch.actor {
			return fault.New(fault.PermissionDenied, "%s made the plan and can't approve it: somebody else must", ch.actor)
		}
		if p.Expired {
			return errPlanStale.With("the plan expired at %s: make it anew", p.Plan.ExpiresAt.UTC().Format(time.RFC3339))
		}
		by, err := ch.acting(ctx)
		if err != nil {
			return err
		}
		if s.Plane == prod && !ownKey(by) {
			return errNotOwnKey.With("%s works with a key that the plane's machine holds, and on plane %s nobody approves with one: fleet operator request, "+
				"on a machine of one's own, makes a key that counts, and says what to do with it", ch.actor, s.Plane)
		}
		approval := store.ApproveParams{PlanHash: p.Plan.Hash, Actor: ch.actor, Reason: req.GetReason()}
		if by != nil {
			approval.OperatorID = &by.ID
		}
		if err := ch.q.Approve(ctx, approval); err != nil {
			return fmt.Errorf("store the approval: %w", err)
		}
		if err := ch.log(ctx, "registry.plan.approved", p.Plan.Hash, req.GetReason()); err != nil {
			return err
		}
		res.Plan, err = s.stored(ctx, ch.q, p.Plan)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// plan reads a plan and keeps others from changing it until the transaction ends.
func (ch change) plan(ctx context.Context, hash string) (store.LockPlanRow, error) {
	p, err := ch.q.LockPlan(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.LockPlanRow{}, errNoPlan
	}
	if err != nil {
		return store.LockPlanRow{}, fmt.Errorf("read the plan: %w", err)
	}
	return p, nil
}

// GetPlan answers a plan by its hash or the beginning of it.
func (s *plans) GetPlan(ctx context.Context, req *registryv1.GetPlanRequest) (*registryv1.GetPlanResponse, error) {
	res := &registryv1.GetPlanResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		found, err := q.PlansByPrefix(ctx, req.GetHash())
		switch {
		case err != nil:
			return fmt.Errorf("read the plan: %w", err)
		case len(found) == 0:
			return errNoPlan
		case len(found) > 1:
			return fault.New(fault.InvalidArgument, "more than one plan begins with %s: write more of its hash", req.GetHash())
		}
		if res.Plan, err = s.stored(ctx, q, found[0]); err != nil {
			return err
		}
		res.Read = &registryv1.Plan{}
		return proto.Unmarshal(found[0].Document, res.GetRead())
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// ListPlans pages through the plans that can still be carried out. A page may be shorter than was asked for.
func (s *plans) ListPlans(ctx context.Context, req *registryv1.ListPlansRequest) (*registryv1.ListPlansResponse, error) {
	const byDefault = 20
	size := req.GetPageSize()
	if size == 0 {
		size = byDefault
	}
	params := store.ListPlansParams{Size: size + 1}
	if req.GetPageToken() != "" {
		params.BeforeTime = new(time.Time)
		if err := readPageToken(req.GetPageToken(), params.BeforeTime, &params.BeforeHash); err != nil {
			return nil, err
		}
	}
	res := &registryv1.ListPlansResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		rows, err := q.ListPlans(ctx, params)
		if err != nil {
			return err
		}
		rows, res.NextPageToken = onePage(rows, size, func(p store.Plan) string { return pageToken(p.CreatedAt, p.Hash) })
		if rows, err = notCarriedOut(ctx, q, rows); err != nil {
			return err
		}
		res.Plans, err = s.allStored(ctx, q, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// notCarriedOut leaves out the plans of which every operation, or the rollout, has ended, well or not: a plan is carried out once.
func notCarriedOut(ctx context.Context, q *store.Queries, rows []store.Plan) ([]store.Plan, error) {
	var hashes []string
	for _, p := range rows {
		hashes = append(hashes, p.Hash)
	}
	all, err := q.CarriedOut(ctx, hashes)
	if err != nil {
		return nil, fmt.Errorf("read which plans were carried out: %w", err)
	}
	by := map[string]store.CarriedOutRow{}
	for _, c := range all {
		by[c.Hash] = c
	}
	var out []store.Plan
	for _, p := range rows {
		read := &registryv1.Plan{}
		if err := proto.Unmarshal(p.Document, read); err != nil {
			return nil, fmt.Errorf("read plan %s: %w", p.Hash, err)
		}
		done := by[p.Hash]
		if tenants := int64(len(read.GetTenants())); !done.RolledOut && (tenants == 0 || done.Ended < tenants) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (c Config) stored(ctx context.Context, q *store.Queries, p store.Plan) (*registryv1.StoredPlan, error) {
	all, err := c.allStored(ctx, q, []store.Plan{p})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// allStored are plans with their approvals, in the order given.
func (c Config) allStored(ctx context.Context, q *store.Queries, rows []store.Plan) ([]*registryv1.StoredPlan, error) {
	var hashes []string
	var all []*registryv1.StoredPlan
	by := map[string]*registryv1.StoredPlan{}
	for _, p := range rows {
		hashes = append(hashes, p.Hash)
		by[p.Hash] = &registryv1.StoredPlan{
			Hash: p.Hash, Document: p.Document, Actor: p.Actor, CreatedAt: timeOf(p.CreatedAt), ExpiresAt: timeOf(p.ExpiresAt),
			NeedsApproval: c.Plane == prod,
		}
		all = append(all, by[p.Hash])
	}
	approvals, err := q.ApprovalsOf(ctx, hashes)
	if err != nil {
		return nil, fmt.Errorf("read the approvals: %w", err)
	}
	for _, a := range approvals {
		p := by[a.PlanApproval.PlanHash]
		p.Approvals = append(p.Approvals, &registryv1.Approval{Actor: a.PlanApproval.Actor, Reason: a.PlanApproval.Reason,
			ApprovedAt: timeOf(a.PlanApproval.ApprovedAt), KeyFingerprint: a.KeyFingerprint, Void: c.void(p.GetActor(), a)})
	}
	restores, err := q.PlannedRestores(ctx, hashes)
	if err != nil {
		return nil, fmt.Errorf("read what was restored by the plans: %w", err)
	}
	for _, r := range restores {
		by[r.PlanHash].Restore = &registryv1.PlannedRestore{Actor: r.Actor, BegunAt: timeOf(r.BegunAt)}
		if r.RecordedAt != nil {
			by[r.PlanHash].Restore.RecordedAt = timeOf(*r.RecordedAt)
		}
	}
	return all, nil
}

// void says why an approval is worth nothing, or nothing: on a plane that demands one it is a second person's, given with a key that the
// plane's machine doesn't have, by somebody who is an operator by that very record still.
func (c Config) void(maker string, a store.ApprovalsOfRow) string {
	switch {
	case c.Plane != prod:
		return ""
	case a.PlanApproval.Actor == maker:
		return "it is of who made the plan"
	case a.RemovedAt != nil:
		return "who gave it was removed at " + a.RemovedAt.UTC().Format(time.RFC3339)
	case a.KeyFingerprint == "":
		return "it was given with a key that the plane's machine holds"
	}
	return ""
}

// current refuses a plan that has expired, or that fits no world of this plane: it may have been another's when the plan was stored, whose
// database was restored at the wrong place.
func (c Config) current(p store.LockPlanRow, plan *registryv1.Plan) error {
	if p.Expired {
		return errPlanStale.With("the plan expired at %s: make it anew", p.Plan.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return c.wellFormed(plan)
}

// approved refuses a plan that its plane wants a second person's word for and that has none which counts. It answers whose does; nobody's where
// none is wanted.
func (c Config) approved(ctx context.Context, q *store.Queries, p store.Plan) (by string, err error) {
	if c.Plane != prod {
		return "", nil
	}
	stored, err := c.stored(ctx, q, p)
	if err != nil {
		return "", err
	}
	void := ""
	for _, a := range stored.GetApprovals() {
		if a.GetVoid() == "" {
			return a.GetActor(), nil
		}
		void += fmt.Sprintf("; the approval of %s does not count: %s", a.GetActor(), a.GetVoid())
	}
	return "", errNotApproved.With("plane %s wants a second person's approval, with a key of their own: somebody other than %s must fleet approve %s --reason '…'%s", c.Plane, p.Actor, p.Hash, void)
}
