package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/page"
	"a3os.app/services/registry/internal/store"
)

const (
	rolloutPrefix       = "ROLLOUT_STATE_"
	rolloutTenantPrefix = "ROLLOUT_TENANT_STATE_"
	// mostEvents of a rollout's history are answered with it.
	mostEvents = 500
)

var errNoRollout = fault.New(fault.NotFound, "there is no such rollout: see fleet rollout list")

type rollouts struct {
	registryv1.UnimplementedRolloutServiceServer
	Config
}

// GetRollout answers one rollout with its history.
func (s *rollouts) GetRollout(ctx context.Context, req *registryv1.GetRolloutRequest) (*registryv1.GetRolloutResponse, error) {
	res := &registryv1.GetRolloutResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		proto.Reset(res)
		q := store.New(tx)
		rollout, err := id.ParseRollout(req.GetRolloutId())
		if err != nil {
			return errNoRollout
		}
		if res.Rollout, err = readRollout(ctx, q, rollout); err != nil {
			return err
		}
		events, err := q.RolloutEvents(ctx, store.RolloutEventsParams{RolloutID: rollout, Most: mostEvents})
		for _, e := range events {
			event := &registryv1.RolloutEvent{At: timeOf(e.At), Actor: e.Actor, Action: e.Action, Reason: e.Reason}
			if !e.TenantID.IsZero() {
				event.TenantId = e.TenantID.String()
			}
			res.Events = append(res.Events, event)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// ListRollouts pages through rollouts.
func (s *rollouts) ListRollouts(ctx context.Context, req *registryv1.ListRolloutsRequest) (*registryv1.ListRolloutsResponse, error) {
	// newest is above every id that there can be.
	const newest = "rol_7zzzzzzzzzzzzzzzzzzzzzzzzz"
	var before id.Rollout
	if err := readPageToken(cmp.Or(req.GetPageToken(), newest), &before); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	res := &registryv1.ListRolloutsResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		proto.Reset(res)
		rows, err := store.New(tx).ListRollouts(ctx, store.ListRolloutsParams{Before: before, Size: size + 1})
		if err != nil {
			return err
		}
		rows, res.NextPageToken = onePage(rows, size, func(r store.Rollout) string { return pageToken(r.ID) })
		for _, row := range rows {
			r, err := rolloutOf(row)
			if err != nil {
				return err
			}
			res.Rollouts = append(res.Rollouts, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// WatchRollout sends the rollout now, and at each change. One who falls behind gets the newest and not each one between.
func (s *rollouts) WatchRollout(req *registryv1.WatchRolloutRequest, stream grpc.ServerStreamingServer[registryv1.WatchRolloutResponse]) error {
	ctx := stream.Context()
	changed, cancel := s.Changes.Subscribe(req.GetRolloutId())
	defer cancel()
	for {
		res, err := s.GetRollout(ctx, &registryv1.GetRolloutRequest{RolloutId: req.GetRolloutId()})
		if err != nil {
			return err
		}
		if err := stream.Send(&registryv1.WatchRolloutResponse{Rollout: res.GetRollout()}); err != nil {
			return fmt.Errorf("send a rollout: %w", err)
		}
		if res.GetRollout().GetEndedAt() != nil {
			return nil
		}
		select {
		case <-changed:
		case <-s.Stopping:
			return fault.New(fault.Unavailable, "the registry is stopping; connect again")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readRollout reads a rollout whole.
func readRollout(ctx context.Context, q *store.Queries, rollout id.Rollout) (*registryv1.Rollout, error) {
	row, err := q.RolloutByID(ctx, rollout)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoRollout
	}
	if err != nil {
		return nil, fmt.Errorf("read the rollout: %w", err)
	}
	return withTenants(ctx, q, row)
}

func withTenants(ctx context.Context, q *store.Queries, row store.Rollout) (*registryv1.Rollout, error) {
	r, err := rolloutOf(row)
	if err != nil {
		return nil, err
	}
	tenants, err := q.RolloutTenants(ctx, row.ID)
	if err != nil {
		return nil, fmt.Errorf("read the rollout's tenants: %w", err)
	}
	for _, t := range tenants {
		r.Tenants = append(r.Tenants, rolloutTenantOf(t.RolloutTenant, t.Slug))
	}
	return r, nil
}

func rolloutOf(row store.Rollout) (*registryv1.Rollout, error) {
	policy := &registryv1.RolloutPolicy{}
	if err := proto.Unmarshal(row.Policy, policy); err != nil {
		return nil, fmt.Errorf("read the policy of %s: %w", row.ID, err)
	}
	r := &registryv1.Rollout{
		Id: row.ID.String(), PlanHash: row.PlanHash, BegunBy: row.BegunBy, Release: row.Release, Policy: policy, Detail: row.Detail, Actor: row.Actor, Reason: row.Reason,
		State: registryv1.RolloutState(number(rolloutPrefix, row.State, registryv1.RolloutState_value)), CreatedAt: timeOf(row.CreatedAt), WaitsFor: row.WaitsFor,
	}
	if row.EndedAt != nil {
		r.EndedAt = timeOf(*row.EndedAt)
	}
	if row.LeaseExpiresAt != nil {
		r.Lease = &registryv1.Lease{Holder: row.LeaseHolder, Place: row.LeasePlace, ExpiresAt: timeOf(*row.LeaseExpiresAt), Fence: row.LeaseFence}
	}
	return r, nil
}

func rolloutTenantOf(t store.RolloutTenant, slug string) *registryv1.RolloutTenant {
	out := &registryv1.RolloutTenant{
		TenantId: t.TenantID.String(), Slug: slug, Wave: t.Wave, ReleaseFrom: t.ReleaseFrom, Attempts: t.Attempts, Since: timeOf(t.Since),
		Samples: t.Samples, Probes: t.Probes, Detail: t.Detail,
		State: registryv1.RolloutTenantState(number(rolloutTenantPrefix, t.State, registryv1.RolloutTenantState_value)),
	}
	if !t.OperationID.IsZero() {
		out.OperationId = t.OperationID.String()
	}
	if t.ChangedAt != nil {
		out.ChangedAt = timeOf(*t.ChangedAt)
	}
	if t.FirstChangedAt != nil {
		out.FirstChangedAt = timeOf(*t.FirstChangedAt)
	}
	return out
}

// place is a number of a table's that there are few of.
func place(i int) int32 { return int32(min(i, math.MaxInt32)) } //nolint:gosec // G115: it is bounded
