package setup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"

	"a3os.app/services/iam/internal/store"
)

// atWork is for how long after they last used their session an admin counts as somebody who can help.
const atWork = 24 * time.Hour

// operator is who recovers, on the tenant's record.
const operator = "workload:operator"

// The reason of a recovery, in characters.
const (
	shortestReason = 10
	longestReason  = 500
)

// Recovery is the operator's way to let a tenant admin in again.
type Recovery struct {
	// Email is the admin's address.
	Email string
	// CodeHash is the SHA-256 in hex of the setup code that the operator made and hands over.
	CodeHash string
	// Reason is why, for the tenant's record.
	Reason string
}

// Recover lets a tenant admin redeem the operator's setup code. It makes nobody an admin, and it is refused while another admin of
// the tenant is at work, who can do the same on their own authority. What the admin had open ends. Both, and a refusal, are on the
// tenant's record, in the transaction that makes the code, so that none works that the tenant's admins can't see.
func Recover(ctx context.Context, db *pg.DB, r Recovery, now time.Time) error {
	hash, err := hex.DecodeString(r.CodeHash)
	reason := strings.TrimSpace(r.Reason)
	switch n := utf8.RuneCountInString(reason); {
	case err != nil || len(hash) != len(Hash("")):
		return errors.New("a recovery needs the SHA-256 of a setup code in hex: check A3_SETUP_CODE_HASH")
	case n < shortestReason || n > longestReason:
		return fault.New(fault.InvalidArgument, "the reason has %d characters, it must have %d to %d", n, shortestReason, longestReason)
	}
	email := strings.ToLower(strings.TrimSpace(r.Email))
	var refused error
	err = db.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		var target store.User
		if target, refused = mayRecover(ctx, q, email, hash, now); refused != nil && fault.KindOf(refused) == fault.Internal {
			return refused
		}
		event := record.Event{Action: "iam.admin.recovered", Target: target.ID.String(), Reason: reason, After: admin(target)}
		if refused != nil {
			event.Target, event.After, event.Outcome = email, nil, auditv1.Outcome_OUTCOME_DENIED
			return record.AppendUnknown(ctx, tx, operator, event)
		}
		if _, err := EndSessions(ctx, q, target.ID, now); err != nil {
			return err
		}
		if err := put(ctx, q, target.ID, hash, now.Add(Life)); err != nil {
			return err
		}
		return record.AppendUnknown(ctx, tx, operator, event)
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("recover %s: %w", email, err)
	}
	return nil
}

// mayRecover answers whom an address belongs to, or why they can't be let in by the operator.
func mayRecover(ctx context.Context, q *store.Queries, email string, hash []byte, now time.Time) (store.User, error) {
	if _, err := q.LockRights(ctx); err != nil {
		return store.User{}, err
	}
	u, err := q.LockUserByEmail(ctx, email)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return store.User{}, fault.New(fault.NotFound, "the tenant has no user with this address")
	case err != nil:
		return store.User{}, err
	case u.State == "deactivated" || u.TenantRole == nil || *u.TenantRole != "admin":
		return store.User{}, fault.New(fault.FailedPrecondition, "this user is no tenant admin: a recovery makes nobody one")
	}
	other, err := q.OtherAdminAtWork(ctx, store.OtherAdminAtWorkParams{ID: u.ID, Now: now, Since: now.Add(-atWork)})
	if err == nil {
		return store.User{}, fault.New(fault.FailedPrecondition,
			"%s, another tenant admin, was signed in within the last %d hours: they let people in again with `a3 user reinvite`", other.Email, int(atWork.Hours()))
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return store.User{}, err
	}
	fresh, err := q.SeeBootstrapCode(ctx, hash)
	if err != nil {
		return store.User{}, err
	}
	if fresh == 0 {
		return store.User{}, fault.New(fault.FailedPrecondition, "this setup code was taken up before: make a new one")
	}
	return u, nil
}

// EndSessions ends what a user has open, makes their tokens worthless, and answers how many sessions that were.
func EndSessions(ctx context.Context, q *store.Queries, user id.User, now time.Time) (int64, error) {
	n, err := q.EndSessionsOfUser(ctx, store.EndSessionsOfUserParams{UserID: user, Now: now})
	if err != nil {
		return 0, fmt.Errorf("end the user's sessions: %w", err)
	}
	if err := q.Revoke(ctx, store.RevokeParams{Principal: user.String()}); err != nil {
		return 0, fmt.Errorf("end the user's sessions: %w", err)
	}
	return n, nil
}
