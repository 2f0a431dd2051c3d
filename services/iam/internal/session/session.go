// Package session keeps people signed in: a session is a chain of refresh tokens, each good for one use (RFC 9700 §4.14.2). It
// promises that a token used twice ends the whole session, except where a client lost the answer and asks again at once, and that
// what is stored lets nobody in: tokens are kept as hashes, and a successor sealed to its predecessor. It relies on its caller's
// transaction.
package session

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/store"
)

const (
	// Life is how long a session lasts, however often it is refreshed.
	Life = 90 * 24 * time.Hour
	// Idle is how long a session lasts without being refreshed.
	Idle = 30 * 24 * time.Hour
	// Grace is how long a client that lost the answer may ask again with the same token.
	Grace = 10 * time.Second

	prefix      = "a3r_"
	secretBytes = 32
)

// Outcome is what became of a refresh token that was presented.
type Outcome int

// Outcomes. The zero Outcome is Refused.
const (
	// Refused is a token that isn't one, has expired, or whose session is over.
	Refused Outcome = iota
	// Rotated is a good token: there is a successor.
	Rotated
	// Repeated is a token that was good a moment ago, from a client that lost the answer: it gets the same successor.
	Repeated
	// Reused is a token that was used before: somebody has a copy, and the session is over.
	Reused
)

// Refresh is the answer to a refresh token.
type Refresh struct {
	// Outcome says which of the other fields are set.
	Outcome Outcome
	// Session and User are set unless it was Refused.
	Session id.Session
	// User is whose session it is.
	User id.User
	// Token is the successor, when Rotated or Repeated.
	Token string
}

// Start begins a session of a user and answers its first refresh token.
func Start(ctx context.Context, q *store.Queries, user id.User, now time.Time) (id.Session, string, error) {
	s := id.NewSession()
	if err := q.AddSession(ctx, store.AddSessionParams{ID: s, UserID: user, ExpiresAt: now.Add(Life)}); err != nil {
		return s, "", fmt.Errorf("start a session: %w", err)
	}
	token := newToken()
	if err := q.AddRefreshToken(ctx, store.AddRefreshTokenParams{TokenHash: hash(token), SessionID: s, ExpiresAt: now.Add(Idle)}); err != nil {
		return s, "", fmt.Errorf("start a session: %w", err)
	}
	return s, token, nil
}

// Use trades a refresh token for its successor. When the outcome is Reused the caller ends the session, in a transaction that
// commits.
func Use(ctx context.Context, q *store.Queries, token string, now time.Time) (Refresh, error) {
	if !wellFormed(token) {
		return Refresh{}, nil
	}
	row, err := q.LockRefreshToken(ctx, hash(token))
	if errors.Is(err, pgx.ErrNoRows) {
		return Refresh{}, nil
	}
	if err != nil {
		return Refresh{}, fmt.Errorf("look a refresh token up: %w", err)
	}
	if row.SessionEndedAt != nil || !now.Before(row.SessionExpiresAt) || !now.Before(row.ExpiresAt) {
		return Refresh{}, nil
	}
	r := Refresh{Session: row.SessionID, User: row.UserID}
	if row.UsedAt != nil {
		return repeat(ctx, q, r, token, row, now)
	}
	r.Outcome, r.Token = Rotated, newToken()
	sealed, err := seal(token, r.Token)
	if err != nil {
		return Refresh{}, err
	}
	err = q.AddRefreshToken(ctx, store.AddRefreshTokenParams{
		TokenHash: hash(r.Token), SessionID: r.Session, ExpiresAt: earlier(now.Add(Idle), row.SessionExpiresAt),
	})
	if err != nil {
		return Refresh{}, fmt.Errorf("rotate a refresh token: %w", err)
	}
	err = q.UseRefreshToken(ctx, store.UseRefreshTokenParams{
		TokenHash: row.TokenHash, Now: now, SuccessorHash: hash(r.Token), SuccessorSealed: sealed,
	})
	if err != nil {
		return Refresh{}, fmt.Errorf("rotate a refresh token: %w", err)
	}
	if err := q.ForgetSuccessor(ctx, row.TokenHash); err != nil {
		return Refresh{}, fmt.Errorf("rotate a refresh token: %w", err)
	}
	return r, nil
}

// repeat answers a token that was used: with the same successor, where the client asks again at once and nobody has used it.
func repeat(ctx context.Context, q *store.Queries, r Refresh, token string, row store.LockRefreshTokenRow, now time.Time) (Refresh, error) {
	r.Outcome = Reused
	if now.Sub(*row.UsedAt) > Grace || row.SuccessorSealed == nil {
		return r, nil
	}
	unused, err := q.SuccessorUnused(ctx, store.SuccessorUnusedParams{TokenHash: row.SuccessorHash, Now: now})
	if err != nil {
		return Refresh{}, fmt.Errorf("look a successor up: %w", err)
	}
	if !unused {
		return r, nil
	}
	if r.Token, err = open(token, row.SuccessorSealed); err != nil {
		return Refresh{}, err
	}
	r.Outcome = Repeated
	return r, nil
}

// Owner answers the session that a refresh token belongs to, used or not; found is false for anything else.
func Owner(ctx context.Context, q *store.Queries, token string) (s id.Session, user id.User, found bool, err error) {
	if !wellFormed(token) {
		return s, user, false, nil
	}
	row, err := q.LockRefreshToken(ctx, hash(token))
	if errors.Is(err, pgx.ErrNoRows) {
		return s, user, false, nil
	}
	if err != nil {
		return s, user, false, fmt.Errorf("look a refresh token up: %w", err)
	}
	return row.SessionID, row.UserID, true, nil
}

// End ends a session and makes its access tokens worthless. It answers false where it was over already.
func End(ctx context.Context, q *store.Queries, s id.Session, user id.User, now time.Time) (bool, error) {
	// Before the session's row, as everyone who changes rights does: or this and a deactivation of the user would wait for each other.
	if _, err := q.LockRights(ctx); err != nil {
		return false, fmt.Errorf("end a session: %w", err)
	}
	n, err := q.EndSession(ctx, store.EndSessionParams{ID: s, Now: now})
	if err != nil || n == 0 {
		return false, err
	}
	return true, q.Revoke(ctx, store.RevokeParams{Principal: user.String(), SessionID: s})
}

func newToken() string {
	b := make([]byte, secretBytes)
	// crypto/rand does not fail since Go 1.24: it ends the process instead.
	_, _ = rand.Read(b)
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

func wellFormed(token string) bool {
	return strings.HasPrefix(token, prefix) && len(token) == len(prefix)+base64.RawURLEncoding.EncodedLen(secretBytes)
}

func hash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// seal hides the successor so that only who holds its predecessor finds it: the database alone does not tell.
func seal(token, successor string) ([]byte, error) {
	c, err := sealer(token)
	if err != nil {
		return nil, err
	}
	sealed, err := c.Encrypt([]byte(successor), hash(token))
	if err != nil {
		return nil, fmt.Errorf("seal a successor: %w", err)
	}
	return sealed, nil
}

func open(token string, sealed []byte) (string, error) {
	c, err := sealer(token)
	if err != nil {
		return "", err
	}
	successor, err := c.Decrypt(sealed, hash(token))
	if err != nil {
		return "", fmt.Errorf("open a successor: %w", err)
	}
	return string(successor), nil
}

func sealer(token string) (*subtle.AESGCM, error) {
	key, err := hkdf.Key(sha256.New, []byte(token), nil, "a3os refresh token successor v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive a successor's key: %w", err)
	}
	return subtle.NewAESGCM(key)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
