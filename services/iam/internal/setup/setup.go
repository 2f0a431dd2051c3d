// Package setup lets people in who have no session, for the first time or again: a one-time code, handed over by whoever asked for
// it, becomes a session. It promises
// that a code works once and for 15 minutes, that only its hash is kept, that a wrong, old or used one gives the same answer, and that
// guessing is limited per source and altogether. It relies on the code having at least 128 bits.
package setup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/fault"
	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/store"
)

// Life is how long a code works.
const Life = 15 * time.Minute

// ErrCode is the one answer for every code that does not work.
var ErrCode = fault.Declare(fault.Unauthenticated, "SETUP_CODE",
	"the setup code does not work: it was used, is older than 15 minutes, or never was; ask for a new one")

// Code is a setup code. Its text is a secret and is shown once.
type Code struct {
	// Text is what is handed over.
	Text string
	// ExpiresAt is when it stops working.
	ExpiresAt time.Time
}

// NewCode makes the one code of a user; those before it stop working.
func NewCode(ctx context.Context, q *store.Queries, user id.User, now time.Time) (Code, error) {
	c := Code{Text: rand.Text(), ExpiresAt: now.Add(Life)}
	return c, put(ctx, q, user, Hash(c.Text), c.ExpiresAt)
}

// Hash is what is kept of a code: SHA-256 of its text. The platform computes the same for the first admin's.
func Hash(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func put(ctx context.Context, q *store.Queries, user id.User, hash []byte, expires time.Time) error {
	if err := q.DropSetupCodesOfUser(ctx, user); err != nil {
		return fmt.Errorf("drop older setup codes: %w", err)
	}
	if err := q.AddSetupCode(ctx, store.AddSetupCodeParams{CodeHash: hash, UserID: user, ExpiresAt: expires}); err != nil {
		return fmt.Errorf("keep a setup code: %w", err)
	}
	return nil
}

// Redeem takes a code: its user is active afterwards, and first says that they were not before. It fails with ErrCode.
func Redeem(ctx context.Context, q *store.Queries, text string, now time.Time) (user store.User, first bool, err error) {
	hash := Hash(text)
	// Before the code's row, as everyone who changes rights does: or a redeemer and who deactivates the user would wait for each other.
	if _, err := q.LockRights(ctx); err != nil {
		return user, false, fmt.Errorf("take a setup code: %w", err)
	}
	row, err := q.TakeSetupCode(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return user, false, ErrCode
	}
	if err != nil {
		return user, false, fmt.Errorf("take a setup code: %w", err)
	}
	if subtle.ConstantTimeCompare(row.CodeHash, hash) != 1 || !now.Before(row.ExpiresAt) {
		return user, false, ErrCode
	}
	if user, err = q.LockUser(ctx, row.UserID); err != nil {
		return user, false, fmt.Errorf("look the code's user up: %w", err)
	}
	switch user.State {
	case "active":
		return user, false, nil
	case "invited":
		user, err = q.SetUserState(ctx, store.SetUserStateParams{ID: user.ID, State: "active"})
		return user, true, err
	}
	return user, false, ErrCode
}
