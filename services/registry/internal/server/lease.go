package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/services/registry/internal/store"
)

var (
	// errLeaseHeld is an operation that somebody works on.
	errLeaseHeld = fault.Declare(fault.FailedPrecondition, "LEASE_HELD", "somebody works on the operation")
	// errLeaseLost is work that another lease has overtaken, or that came without one.
	errLeaseLost = fault.Declare(fault.Aborted, "LEASE_LOST", "the lease is not the caller's any more")
	// errEnded is an operation at which nothing is left to do.
	errEnded = fault.Declare(fault.FailedPrecondition, "OPERATION_ENDED", "the operation has ended")
)

// operation reads an operation and keeps others from changing it until the transaction ends. Another tenant's is not there for a
// provisioner.
func (ch change) operation(ctx context.Context, text string) (store.LockOperationRow, error) {
	opr, err := id.ParseOperation(text)
	if err != nil {
		return store.LockOperationRow{}, errNoOperation
	}
	row, err := ch.q.LockOperation(ctx, opr)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.LockOperationRow{}, errNoOperation
	}
	if err != nil {
		return store.LockOperationRow{}, fmt.Errorf("read the operation: %w", err)
	}
	if !ch.tenant.IsZero() && ch.tenant != row.Operation.TenantID {
		return store.LockOperationRow{}, errNoOperation
	}
	return row, nil
}

// leased is operation for a caller who works on it. A lease that ended and that nobody took since is still the caller's: fencing is
// about who comes later, and not about clocks.
func (ch change) leased(ctx context.Context, text, token string) (store.LockOperationRow, error) {
	row, err := ch.operation(ctx, text)
	if err != nil {
		return row, err
	}
	sum := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(sum[:], row.Operation.LeaseTokenHash) != 1 {
		return row, lost(row)
	}
	return row, nil
}

func lost(row store.LockOperationRow) error {
	o := row.Operation
	switch {
	case o.LeaseFence == 0:
		return errLeaseLost.With("nobody took the lease of operation %s: take it first", o.ID)
	case o.LeaseTokenHash == nil:
		return errLeaseLost.With("the lease of operation %s was given back: take it anew", o.ID)
	}
	return errLeaseLost.With("the lease of operation %s is not this one: %s took it at %s (fence %d)", o.ID, o.LeaseHolder, o.LeasePlace, o.LeaseFence)
}

// open refuses an operation that has ended.
func open(o store.Operation) error {
	if o.State == unfinishedState {
		return nil
	}
	return errEnded.With("operation %s has ended, it %s", o.ID, o.State)
}

const unfinishedState = "unfinished"

// TakeLease makes the caller the one who works on an operation.
func (s *operationWrites) TakeLease(ctx context.Context, req *registryv1.TakeLeaseRequest) (*registryv1.TakeLeaseResponse, error) {
	const tokenBytes = 32
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails, since Go 1.24
	token := base64.RawURLEncoding.EncodeToString(secret)
	hash := sha256.Sum256([]byte(token))
	res := &registryv1.TakeLeaseResponse{LeaseToken: token}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		row, err := ch.operation(ctx, req.GetOperationId())
		if err != nil {
			return err
		}
		if err := open(row.Operation); err != nil {
			return err
		}
		instead := req.GetInsteadOf() != 0 && req.GetInsteadOf() == row.Operation.LeaseFence && row.Operation.LeaseHolder == ch.actor
		if row.Leased && !instead {
			return errLeaseHeld.With("%s works on operation %s at %s, until %s at least: wait, or ask them",
				row.Operation.LeaseHolder, row.Operation.ID, row.Operation.LeasePlace, row.Operation.LeaseExpiresAt.UTC().Format(time.RFC3339))
		}
		o, err := s.lease(ctx, ch, row.Operation, req.GetPlace(), hash[:])
		if err != nil {
			return err
		}
		res.Operation, err = whole(ctx, ch.q, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// lease makes the caller the one who works on an operation that nobody else may work on now. token is the hash of the secret that shows it.
func (s *operationWrites) lease(ctx context.Context, ch change, of store.Operation, place string, token []byte) (store.Operation, error) {
	o, err := ch.q.TakeLease(ctx, store.TakeLeaseParams{ID: of.ID, Holder: ch.actor, Place: place, TokenHash: token, LastsSeconds: s.Lease.Seconds()})
	if err != nil {
		return o, fmt.Errorf("take the lease: %w", err)
	}
	return o, ch.noteOperation(ctx, o, "lease_taken", "place", o.LeasePlace, "fence", strconv.FormatInt(o.LeaseFence, 10))
}

// RenewLease keeps the lease. It is no change that anybody watches for, and no line of the log.
func (s *operationWrites) RenewLease(ctx context.Context, req *registryv1.RenewLeaseRequest) (*registryv1.RenewLeaseResponse, error) {
	res := &registryv1.RenewLeaseResponse{}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		row, err := ch.leased(ctx, req.GetOperationId(), req.GetLeaseToken())
		if err != nil {
			return err
		}
		if err := open(row.Operation); err != nil {
			return err
		}
		o, err := ch.q.RenewLease(ctx, store.RenewLeaseParams{ID: row.Operation.ID, LastsSeconds: s.Lease.Seconds()})
		if err != nil {
			return fmt.Errorf("renew the lease: %w", err)
		}
		res.Lease = leaseOf(o)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// ReleaseLease gives the lease back. Of an operation that has ended there is nothing to give back.
func (s *operationWrites) ReleaseLease(ctx context.Context, req *registryv1.ReleaseLeaseRequest) (*registryv1.ReleaseLeaseResponse, error) {
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		row, err := ch.leased(ctx, req.GetOperationId(), req.GetLeaseToken())
		if err != nil {
			return err
		}
		if row.Operation.State != unfinishedState {
			return nil
		}
		if err := ch.q.ReleaseLease(ctx, row.Operation.ID); err != nil {
			return fmt.Errorf("give the lease back: %w", err)
		}
		return ch.noteOperation(ctx, row.Operation, "lease_released")
	})
	if err != nil {
		return nil, err
	}
	return &registryv1.ReleaseLeaseResponse{}, nil
}
