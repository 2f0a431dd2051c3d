package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/services/registry/internal/store"
)

// newLease makes the secret of a lease, and what is kept of it.
func newLease() (token string, hash []byte) {
	const tokenBytes = 32
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails, since Go 1.24
	token = base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	return token, sum[:]
}

// proven refuses who doesn't work on the rollout. As with operations, a lease that ended and that nobody took since is still the
// caller's.
func (h *heldRollout) proven(token string) error {
	sum := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(sum[:], h.row.LeaseTokenHash) == 1 {
		return nil
	}
	switch {
	case h.row.LeaseFence == 0:
		return errLeaseLost.With("nobody took the lease of rollout %s: take it first", h.id)
	case h.row.LeaseTokenHash == nil:
		return errLeaseLost.With("the lease of rollout %s was given back: take it anew", h.id)
	}
	return errLeaseLost.With("the lease of rollout %s is not this one: %s took it at %s (fence %d)", h.id, h.row.LeaseHolder, h.row.LeasePlace, h.row.LeaseFence)
}

// TakeRolloutLease makes the caller the one who works on a rollout. One that has ended can be taken as well: what was under way when it
// was aborted is finished.
func (s *rolloutWrites) TakeRolloutLease(ctx context.Context, req *registryv1.TakeRolloutLeaseRequest) (*registryv1.TakeRolloutLeaseResponse, error) {
	token, hash := newLease()
	r, err := s.onRollout(ctx, req.GetRolloutId(), func(ctx context.Context, h *heldRollout) error {
		instead := req.GetInsteadOf() != 0 && req.GetInsteadOf() == h.row.LeaseFence && h.row.LeaseHolder == h.actor
		if h.leased && !instead {
			return errLeaseHeld.With("%s works on rollout %s at %s, until %s at least: wait, or ask them",
				h.row.LeaseHolder, h.id, h.row.LeasePlace, h.row.LeaseExpiresAt.UTC().Format(time.RFC3339))
		}
		err := h.q.TakeRolloutLease(ctx, store.TakeRolloutLeaseParams{ID: h.id, Holder: h.actor, Place: req.GetPlace(), TokenHash: hash, LastsSeconds: s.Lease.Seconds()})
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
		if err := h.proven(req.GetLeaseToken()); err != nil {
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
		if err := h.proven(req.GetLeaseToken()); err != nil {
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
