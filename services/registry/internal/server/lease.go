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
	return row, operationLease(row).proven(token)
}

// held is the lease of an operation or a rollout, as it is kept.
type held struct {
	// of what it is, for people.
	of string
	// lasts says that it has not ended.
	lasts         bool
	holder, place string
	fence         int64
	// token is the hash of its secret; nil where nobody took it, or it was given back.
	token []byte
	until *time.Time
}

func operationLease(row store.LockOperationRow) held {
	o := row.Operation
	return held{"operation " + o.ID.String(), row.Leased, o.LeaseHolder, o.LeasePlace, o.LeaseFence, o.LeaseTokenHash, o.LeaseExpiresAt}
}

// is says whether a secret is the lease's.
func (l held) is(secret string) bool {
	return subtle.ConstantTimeCompare(tokenHash(secret), l.token) == 1
}

// proven refuses who doesn't work under the lease.
func (l held) proven(secret string) error {
	switch {
	case l.is(secret):
		return nil
	case l.fence == 0:
		return errLeaseLost.With("nobody took the lease of %s: take it first", l.of)
	case l.token == nil:
		return errLeaseLost.With("the lease of %s was given back: take it anew", l.of)
	}
	return errLeaseLost.With("the lease of %s is not this one: %s took it at %s (fence %d)", l.of, l.holder, l.place, l.fence)
}

// takes refuses who may not take the lease now. taken says that the caller has: the answer was lost, and this is the same call again.
func (l held) takes(secret, actor string, insteadOf int64) (taken bool, err error) {
	switch {
	case !l.lasts, insteadOf != 0 && insteadOf == l.fence && l.holder == actor:
		return false, nil
	case l.is(secret):
		return true, nil
	}
	return false, errLeaseHeld.With("%s works on %s at %s, until %s at least: wait, or ask them", l.holder, l.of, l.place, l.until.UTC().Format(time.RFC3339))
}

// tokenHash is what is kept of the secret of a lease.
func tokenHash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// leaseSecret is the secret of a lease that is taken: the caller's own, and where it brings none one that is made here.
func leaseSecret(brought string) string {
	if brought != "" {
		return brought
	}
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails, since Go 1.24
	return base64.RawURLEncoding.EncodeToString(secret)
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
	res := &registryv1.TakeLeaseResponse{LeaseToken: leaseSecret(req.GetLeaseToken())}
	err := s.change(ctx, func(ctx context.Context, ch change) error {
		row, err := ch.operation(ctx, req.GetOperationId())
		if err != nil {
			return err
		}
		if err := open(row.Operation); err != nil {
			return err
		}
		o := row.Operation
		taken, err := operationLease(row).takes(res.GetLeaseToken(), ch.actor, req.GetInsteadOf())
		if err == nil && !taken {
			o, err = s.lease(ctx, ch, o, req.GetPlace(), tokenHash(res.GetLeaseToken()))
		}
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
