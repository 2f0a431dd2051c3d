package issuer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"a3os.app/libs/id"

	"a3os.app/services/iam/internal/keyring"
	"a3os.app/services/iam/internal/store"
)

const (
	// assertionLife is the longest an assertion may be valid for.
	assertionLife = 5 * time.Minute
	// assertionSkew is what the clocks of a program and of the issuer may differ by.
	assertionSkew = 5 * time.Second
	maxAssertion  = 4 << 10
	maxJTI        = 128
)

// assertionParser checks what can be checked without knowing whose key it is. The algorithm is the one that registered keys are for
// (RFC 8725 §3.1), and the audience is the issuer itself and nothing that somebody else could also be (RFC 7523bis §3).
func assertionParser(issuer string, now func() time.Time) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{keyring.Algorithm}), jwt.WithAudience(issuer), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithLeeway(assertionSkew), jwt.WithTimeFunc(now), jwt.WithStrictDecoding())
}

// takeAssertion verifies a service account's assertion (RFC 7523 §3) and takes its jti, so that it never works again. It fails with
// errBad for one that isn't good.
func (i *Issuer) takeAssertion(ctx context.Context, q *store.Queries, raw string) (store.ServiceAccount, error) {
	var account store.ServiceAccount
	if len(raw) > maxAssertion || strings.Count(raw, ".") != 2 {
		return account, bad(errors.New("it is not a JWT of sensible size"))
	}
	var c jwt.RegisteredClaims
	var broke error
	_, err := i.parser.ParseWithClaims(raw, &c, func(t *jwt.Token) (any, error) {
		if err := headerHolds(t.Header); err != nil {
			return nil, err
		}
		if account, broke = registered(ctx, q, c.Issuer); broke != nil {
			return nil, broke
		}
		if kid, ok := t.Header["kid"].(string); !ok || kid != account.KeyID {
			return nil, errors.New("its header does not name the registered key")
		}
		return keyring.ParsePublic(account.PublicKey)
	})
	if broke != nil {
		return account, broke
	}
	if err != nil {
		return account, bad(err)
	}
	if err := i.assertionHolds(c, account.ID); err != nil {
		return account, bad(err)
	}
	jti := sha256.Sum256([]byte(c.ID))
	n, err := q.TakeAssertion(ctx, store.TakeAssertionParams{
		ServiceAccountID: account.ID, JtiHash: jti[:], ExpiresAt: c.ExpiresAt.Add(time.Minute),
	})
	if err != nil {
		return account, fmt.Errorf("take the assertion: %w", err)
	}
	if n == 0 {
		return account, bad(errors.New("it was used before"))
	}
	return account, nil
}

// bad is errBad with what exactly, for the log.
func bad(err error) error { return errors.Join(errBad, err) }

func headerHolds(header map[string]any) error {
	if typ, ok := header["typ"]; ok {
		// An access token or any other typed JWT is no assertion, whoever signed it (RFC 8725 §3.11).
		if s, ok := typ.(string); !ok || !strings.EqualFold(s, "JWT") {
			return errors.New("its typ is not JWT")
		}
	}
	if _, ok := header["crit"]; ok {
		return errors.New("it demands extensions that nobody here knows (RFC 7515 §4.1.11)")
	}
	return nil
}

// registered finds the account that says it signed.
func registered(ctx context.Context, q *store.Queries, issuer string) (store.ServiceAccount, error) {
	account, err := id.ParseServiceAccount(issuer)
	if err != nil {
		return store.ServiceAccount{}, bad(errors.New("iss is no service account"))
	}
	row, err := q.GetServiceAccount(ctx, account)
	if errors.Is(err, pgx.ErrNoRows) {
		return row, bad(errors.New("no such service account"))
	}
	if err != nil {
		return row, fmt.Errorf("look a service account up: %w", err)
	}
	return row, nil
}

func (i *Issuer) assertionHolds(c jwt.RegisteredClaims, account id.ServiceAccount) error {
	now := i.cfg.Now()
	switch {
	case c.Subject != account.String():
		return errors.New("sub is not iss")
	case len(c.Audience) != 1:
		return errors.New("it is meant for others as well")
	case c.IssuedAt == nil:
		return errors.New("it has no iat")
	case now.Sub(c.IssuedAt.Time) > assertionLife+assertionSkew:
		return errors.New("it is too old")
	case c.ExpiresAt.Sub(now) > assertionLife+assertionSkew || c.ExpiresAt.Sub(c.IssuedAt.Time) > assertionLife:
		return errors.New("it lives longer than 5 minutes")
	case c.ID == "" || len(c.ID) > maxJTI:
		return errors.New("it has no jti of sensible length")
	}
	return nil
}
