package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/registry/internal/store"
)

// mostTold keeps errors short when the text is hostile.
const mostTold = 64

// errUnfinished is a tenant that something is being done to already.
var errUnfinished = fault.Declare(fault.FailedPrecondition, "OPERATION_UNFINISHED", "the tenant has an operation that isn't finished")

type operationWrites struct {
	registryv1.UnimplementedOperationWriteServiceServer
	Config
}

// BeginOperation begins what a plan says for one of its tenants.
func (s *operationWrites) BeginOperation(ctx context.Context, req *registryv1.BeginOperationRequest) (*registryv1.BeginOperationResponse, error) {
	res := &registryv1.BeginOperationResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		p, err := ch.plan(ctx, req.GetPlanHash())
		if err != nil {
			return err
		}
		plan := &registryv1.Plan{}
		if err := proto.Unmarshal(p.Plan.Document, plan); err != nil {
			return fmt.Errorf("read the plan: %w", err)
		}
		t := changeOf(plan, req.GetTenant())
		if t == nil {
			return fault.New(fault.InvalidArgument, "the plan does nothing to %s: it names its tenants by id, and one that it makes by slug", clip.Text(req.GetTenant(), mostTold))
		}
		begun, err := ch.q.OperationOfPlan(ctx, store.OperationOfPlanParams{PlanHash: p.Plan.Hash, PlanTarget: target(t)})
		if errors.Is(err, pgx.ErrNoRows) {
			begun, err = s.begin(ctx, ch, p, plan, t, req)
		}
		if err != nil {
			return err
		}
		res.Operation, err = whole(ctx, ch.q, begun)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// putAndBegin stores a plan and begins what it does to its one tenant, under a lease of the caller's, and with its first step. What was begun
// before is answered to whoever knows the secret of its lease, and left as it is.
func (s *operationWrites) putAndBegin(ctx context.Context, ch change, req *registryv1.PutPlanRequest, document []byte, hash string, res *registryv1.PutPlanResponse) error {
	plan := req.GetPlan()
	if len(plan.GetTenants()) != 1 || req.GetLeaseToken() == "" {
		return fault.New(fault.InvalidArgument, "begin_at: it takes a plan of exactly one tenant, and this one has %d, and a lease_token with it", len(plan.GetTenants()))
	}
	t := plan.GetTenants()[0]
	o, err := ch.q.OperationOfPlan(ctx, store.OperationOfPlanParams{PlanHash: hash, PlanTarget: target(t)})
	begun := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for the plan's operation: %w", err)
	}
	var p store.LockPlanRow
	if begun {
		p, err = ch.plan(ctx, hash)
	} else {
		p, err = s.put(ctx, ch, plan, document, hash)
	}
	if err != nil {
		return err
	}
	if res.Plan, err = s.stored(ctx, ch.q, p.Plan); err != nil {
		return err
	}
	if begun && (o.State != unfinishedState || !(held{token: o.LeaseTokenHash}).is(req.GetLeaseToken())) {
		return nil
	}
	if !begun {
		if o, err = s.beginAt(ctx, ch, p, plan, req.GetBeginAt(), tokenHash(req.GetLeaseToken())); err != nil {
			return err
		}
	}
	if res.Operation, err = whole(ctx, ch.q, o); err != nil {
		return err
	}
	res.Tenant, err = statusOf(ctx, ch.q, o.TenantID)
	return err
}

func (s *operationWrites) beginAt(ctx context.Context, ch change, p store.LockPlanRow, plan *registryv1.Plan, place string, token []byte) (store.Operation, error) {
	o, err := s.begin(ctx, ch, p, plan, plan.GetTenants()[0], nil)
	if err != nil {
		return o, err
	}
	if o, err = s.lease(ctx, ch, o, place, token); err != nil {
		return o, err
	}
	return o, ch.record(ctx, o, plan.GetTenants()[0].GetSteps()[0], stepBegun, "")
}

func changeOf(plan *registryv1.Plan, name string) *registryv1.TenantChange {
	for _, t := range plan.GetTenants() {
		if target(t) == name {
			return t
		}
	}
	return nil
}

// begin looks at the world once more, and begins. req says whether it is a part of a rollout; nil for none.
func (s *operationWrites) begin(ctx context.Context, ch change, p store.LockPlanRow, plan *registryv1.Plan, t *registryv1.TenantChange, req *registryv1.BeginOperationRequest) (store.Operation, error) {
	if err := s.current(p, plan); err != nil {
		return store.Operation{}, err
	}
	if plan.GetKind() == registryv1.OperationKind_OPERATION_KIND_RESTORE {
		return store.Operation{}, fault.New(fault.FailedPrecondition, "the plan is a restore, which is no operation: it is carried out with fleet apply, of this release or a later one")
	}
	part, err := ch.partOf(ctx, plan, t, req)
	if err != nil {
		return store.Operation{}, err
	}
	if part.IsZero() { // a rollout's own plan was approved, and with it what it does to each tenant
		if _, err := s.approved(ctx, ch.q, p.Plan); err != nil {
			return store.Operation{}, err
		}
	}
	if err := ch.releases(ctx, plan, t); err != nil {
		return store.Operation{}, err
	}
	tenant, err := s.subject(ctx, ch, plan, t)
	if err != nil {
		return store.Operation{}, err
	}
	o, err := ch.q.InsertOperation(ctx, store.InsertOperationParams{
		ID: id.NewOperation(), TenantID: tenant, Kind: word(kindPrefix, plan.GetKind()), PlanHash: p.Plan.Hash, PlanTarget: target(t),
		Actor: ch.actor, Reason: plan.GetReason(), ReleaseFrom: t.GetReleaseFrom(), ReleaseTo: t.GetReleaseTo(),
		StateTo: stateWord(t.GetStateTo()), RolloutID: part, WaitSeconds: plan.GetWait().AsDuration().Seconds(),
	})
	if err != nil {
		return store.Operation{}, fmt.Errorf("insert the operation: %w", err)
	}
	if err := ch.q.InsertSteps(ctx, store.InsertStepsParams{OperationID: o.ID, Names: t.GetSteps()}); err != nil {
		return store.Operation{}, fmt.Errorf("insert the steps: %w", err)
	}
	if !part.IsZero() {
		// From here on the rollout has touched the tenant, whether or not whoever carries it out lives to say so.
		if err := ch.q.BeginRolloutPart(ctx, store.BeginRolloutPartParams{RolloutID: part, TenantID: tenant, OperationID: o.ID}); err != nil {
			return store.Operation{}, fmt.Errorf("note the operation at the rollout: %w", err)
		}
	}
	return o, ch.noteOperation(ctx, o, "begun", "plan", p.Plan.Hash, "reason", o.Reason)
}

// subject is the tenant of a change, locked, or made.
func (s *operationWrites) subject(ctx context.Context, ch change, plan *registryv1.Plan, t *registryv1.TenantChange) (id.Tenant, error) {
	if t.GetTenantId() == "" {
		if err := ch.q.LockSlugs(ctx); err != nil {
			return id.Tenant{}, fmt.Errorf("wait for other slugs: %w", err)
		}
		if err := s.fits(ctx, ch.q, plan, []*registryv1.TenantChange{t}); err != nil {
			return id.Tenant{}, err
		}
		of := id.Tenant{}
		if t.GetCopyOf() != "" {
			var err error
			if of, err = id.ParseTenant(t.GetCopyOf()); err != nil {
				return id.Tenant{}, err
			}
		}
		made, err := s.newTenant(ctx, ch, store.InsertTenantParams{
			Slug: t.GetSlug(), DisplayName: t.GetDisplayName(), IsolationTier: word(tierPrefix, t.GetIsolationTier()), Region: plan.GetRegion(), Account: t.GetAccount(), CopyOf: of,
		}, t.GetLabels())
		if err != nil {
			return id.Tenant{}, err
		}
		return made.ID, ch.log(ctx, "registry.tenant.created", made.ID.String(), detail(t))
	}
	row, err := ch.lock(ctx, t.GetTenantId())
	if err != nil {
		return id.Tenant{}, err
	}
	if err := ch.noneUnfinished(ctx, row.ID); err != nil {
		return id.Tenant{}, err
	}
	return row.ID, s.fits(ctx, ch.q, plan, []*registryv1.TenantChange{t})
}

// noneUnfinished refuses a tenant that an operation is doing something to.
func (ch change) noneUnfinished(ctx context.Context, tenant id.Tenant) error {
	switch other, err := ch.q.UnfinishedOperation(ctx, tenant); {
	case err == nil:
		return unfinished(other)
	case !errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("look for an unfinished operation: %w", err)
	}
	return nil
}

// unfinished tells the loser of two operators what is being done, by whom and since when.
func unfinished(o store.Operation) error {
	who := fmt.Sprintf("nobody works on it now: take it up with fleet operation resume %s, or give it up with fleet operation abort %s --reason '…'", o.ID, o.ID)
	if o.LeaseExpiresAt != nil && o.LeaseExpiresAt.After(time.Now()) {
		who = fmt.Sprintf("%s works on it at %s", o.LeaseHolder, o.LeasePlace)
	}
	return errUnfinished.With("%s of the tenant is not finished: operation %s, begun by %s at %s; %s",
		o.Kind, o.ID, o.Actor, o.CreatedAt.UTC().Format(time.RFC3339), who)
}

// noteOperation writes the line of something that was done to an operation, and wakes who watches it. Pairs are names and values.
func (ch change) noteOperation(ctx context.Context, o store.Operation, what string, pairs ...string) error {
	fields := map[string]string{"operation": o.ID.String(), "kind": o.Kind}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fields[pairs[i]] = pairs[i+1]
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if err := ch.log(ctx, "registry.operation."+what, o.TenantID.String(), string(text)); err != nil {
		return err
	}
	return ch.notify(ctx, o.ID.String())
}

// notify wakes who watches what has this id, once the transaction has committed.
func (ch change) notify(ctx context.Context, what string) error {
	if err := ch.q.NotifyChange(ctx, what); err != nil {
		return fmt.Errorf("notify of the change: %w", err)
	}
	return nil
}
