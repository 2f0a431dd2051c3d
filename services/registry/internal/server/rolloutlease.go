package server

import (
	"context"
	"fmt"
	"strconv"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/services/registry/internal/store"
)

// lease is the rollout's as it is kept. As with operations, one that ended and that nobody took since is still the caller's.
func (h *heldRollout) lease() held { return rolloutLease(h.row, h.leased) }

// rolloutLease is a rollout's lease; lasts says that it has not ended.
func rolloutLease(row store.Rollout, lasts bool) held {
	return held{"rollout " + row.ID.String(), lasts, row.LeaseHolder, row.LeasePlace, row.LeaseFence, row.LeaseTokenHash, row.LeaseExpiresAt}
}

// TakeRolloutLease makes the caller the one who works on a rollout. One that has ended can be taken as well: what was under way when it
// was aborted is finished.
func (s *rolloutWrites) TakeRolloutLease(ctx context.Context, req *registryv1.TakeRolloutLeaseRequest) (*registryv1.TakeRolloutLeaseResponse, error) {
	token := leaseSecret(req.GetLeaseToken())
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		taken, err := h.lease().takes(token, h.actor, req.GetInsteadOf())
		if err != nil || taken {
			return err
		}
		err = h.q.TakeRolloutLease(ctx, store.TakeRolloutLeaseParams{ID: h.id, Holder: h.actor, Place: req.GetPlace(), TokenHash: tokenHash(token), LastsSeconds: s.Lease.Seconds()})
		if err != nil {
			return fmt.Errorf("take the lease: %w", err)
		}
		return h.tell(ctx, "lease_taken", id.Tenant{}, "at "+req.GetPlace()+", fence "+strconv.FormatInt(h.row.LeaseFence+1, 10))
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.TakeRolloutLeaseResponse{Rollout: r, LeaseToken: token}, nil
}

// RenewRolloutLease keeps the lease. It is no line of the history; what is waited for is told to those who watch when it changed.
func (s *rolloutWrites) RenewRolloutLease(ctx context.Context, req *registryv1.RenewRolloutLeaseRequest) (*registryv1.RenewRolloutLeaseResponse, error) {
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		if err := h.lease().proven(req.GetLeaseToken()); err != nil {
			return err
		}
		err := h.q.RenewRolloutLease(ctx, store.RenewRolloutLeaseParams{ID: h.id, LastsSeconds: s.Lease.Seconds(), WaitsFor: req.GetWaitsFor()})
		if err != nil {
			return fmt.Errorf("renew the lease: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.RenewRolloutLeaseResponse{Lease: r.GetLease()}, nil
}

// ReleaseRolloutLease gives the lease back.
func (s *rolloutWrites) ReleaseRolloutLease(ctx context.Context, req *registryv1.ReleaseRolloutLeaseRequest) (*registryv1.ReleaseRolloutLeaseResponse, error) {
	_, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		if err := h.lease().proven(req.GetLeaseToken()); err != nil {
			return err
		}
		if err := h.q.ReleaseRolloutLease(ctx, h.id); err != nil {
			return fmt.Errorf("give the lease back: %w", err)
		}
		return h.tell(ctx, "lease_released", id.Tenant{}, "")
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.ReleaseRolloutLeaseResponse{}, nil
}
