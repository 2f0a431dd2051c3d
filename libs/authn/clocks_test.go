package authn_test

import (
	"errors"

	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"a3os.app/libs/authn"
	"a3os.app/libs/fault"
)

// Row F26, of access tokens: issuer and service have clocks of their own. A service refuses what has expired by its own clock, also from
// its cache, and what was issued in a future that is further off than clocks of a plane may differ; it says which to the log.
func TestClocksApartAcceptNothingThatHasExpired(t *testing.T) {
	const lives = 5 * time.Minute
	for name, c := range map[string]struct {
		// ahead is how far the service's clock is ahead of the issuer's; behind, where negative.
		ahead time.Duration
		// cached verifies the token once before the clocks part.
		cached bool
		want   string // of the cause; empty where the token is good
	}{
		"together":                      {0, false, ""},
		"together, cached":              {0, true, ""},
		"within the skew, behind":       {-4 * time.Second, false, ""},
		"out of the skew, behind":       {-7 * time.Second, false, "before issued"},
		"ten minutes behind":            {-10 * time.Minute, false, "before issued"},
		"ahead, within its life":        {lives - 2*time.Second, false, ""},
		"ahead, past its life":          {lives, false, "expired"},
		"ahead, past its life by skew":  {lives + 3*time.Second, false, "expired"},
		"ten minutes ahead":             {10 * time.Minute, false, "expired"},
		"ahead, past its life, cached":  {lives, true, "expired"},
		"ten minutes ahead, cached":     {10 * time.Minute, true, "expired"},
		"ten minutes behind and cached": {-10 * time.Minute, true, ""}, // it was good, and has not expired by any clock
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, "k1")
			v := i.verifier(t, i.remote(), authn.NewRevocations(i.clock.Now))
			token := i.token(t, "k1", func(c *authn.TokenClaims) {
				// NumericDate counts whole seconds, so the clock stands at the beginning of one.
				now := i.clock.Now().Truncate(time.Second)
				c.IssuedAt, c.ExpiresAt = jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(lives))
			})
			// Twice: what was verified while the keys were fetched is not kept.
			for range map[bool]int{true: 2}[c.cached] {
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Fatal(err)
				}
			}
			i.clock.advance(c.ahead)
			_, err := v.Verify(t.Context(), token)
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, authn.ErrToken) || fault.KindOf(err) != fault.Unauthenticated || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want a refusal that says %q to the log, got %v", c.want, err)
			}
		})
	}
	t.Attr("row", "F26 12")
}
