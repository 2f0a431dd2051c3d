// Package revocation measures how soon a token is worth nothing: from the call that takes its owner's rights away to the moment at
// which the last service of the set refuses it. It promises that every service is asked all the time, past the gateway and at its own
// port, with a token that it had accepted a moment before. It makes a service account for each revocation, in the tenant that it
// measures in, and deletes it: that is the revocation.
package revocation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/errgroup"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"

	"a3os.app/libs/rpc/rpcclient"
	"a3os.app/tools/bench/internal/figure"
)

// Config says where to look.
type Config struct {
	// Root is the checkout.
	Root string
	// Rounds is how often p99 is taken; at least figure.Rounds.
	Rounds int
}

const (
	// each is how many revocations a round has.
	each = 50
	// within is what the project promises, in milliseconds.
	within = 1000
	// giveUp is when a service that does not refuse ends the measurement.
	giveUp = 30 * time.Second
)

// Measure answers the figure. Where no plane is up, it is one that wasn't measured.
func Measure(ctx context.Context, cfg Config) (figure.Figure, error) {
	f := figure.Figure{
		Name: "revocation: p99 from the call to the last service refusing", Unit: "ms",
		Measured: figure.Series{What: "until the last of five services refuses"}, Against: figure.Series{What: "the revoking call itself"},
		Bound: figure.Bound{MeasuredAtMost: within},
	}
	set, err := open(ctx, cfg.Root)
	if err != nil {
		f.NotMeasured = err.Error()
		return f, nil
	}
	defer set.close()
	f.Note = fmt.Sprintf("tenant %s, %d service accounts made and deleted in each of %d rounds", set.slug, each, cfg.Rounds)
	var measured, against []float64
	for range cfg.Rounds {
		var last, call []float64
		for range each {
			l, c, err := set.revoke(ctx)
			if err != nil {
				return f, err
			}
			last, call = append(last, l), append(call, c)
		}
		measured, against = append(measured, p99(last)), append(against, p99(call))
	}
	return f, f.Fill(measured, against)
}

// p99 is the nearest rank.
func p99(values []float64) float64 {
	const percentile = 0.99
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(math.Ceil(percentile*float64(len(sorted))))-1]
}

// revoke makes a program, signs it in, sees that every service believes it, deletes it, and answers how long it took until none did,
// and how long the call took, in milliseconds.
func (s *set) revoke(ctx context.Context) (last, call float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	accounts := rpcclient.ToTenant(s.client, s.url, s.session.TokenFor(""), iamv1connect.NewServiceAccountWriteServiceClient)
	account, token, err := s.program(ctx, accounts)
	if err != nil {
		return 0, 0, err
	}
	// Twice: what a service verifies for the first time is in nobody's cache yet.
	for range 2 {
		for _, p := range s.probes {
			known, err := p.believes(ctx, token)
			if err != nil {
				return 0, 0, err
			}
			if !known {
				return 0, 0, fmt.Errorf("%s doesn't believe a token to begin with", p.service)
			}
		}
	}
	began := time.Now()
	var group errgroup.Group
	refusedAt := make([]time.Time, len(s.probes))
	for i, p := range s.probes {
		group.Go(func() error {
			for {
				switch known, err := p.believes(ctx, token); {
				case err != nil:
					return fmt.Errorf("%s: %w", p.service, err)
				case !known:
					refusedAt[i] = time.Now()
					return nil
				}
			}
		})
	}
	_, err = accounts.DeleteServiceAccount(ctx, connect.NewRequest(&iamv1.DeleteServiceAccountRequest{ServiceAccountId: account}))
	answered := time.Now()
	if err = errors.Join(err, group.Wait()); err != nil {
		return 0, 0, err
	}
	return milliseconds(slices.MaxFunc(refusedAt, time.Time.Compare).Sub(began)), milliseconds(answered.Sub(began)), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// program makes a service account with a key of its own and signs it in (RFC 7523).
func (s *set) program(ctx context.Context, accounts iamv1connect.ServiceAccountWriteServiceClient) (account, token string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", "", err
	}
	made, err := accounts.CreateServiceAccount(ctx, connect.NewRequest(&iamv1.CreateServiceAccountRequest{
		Name:         "bench " + strings.ToLower(rand.Text()),
		PublicKeyPem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}))
	if err != nil {
		return "", "", fmt.Errorf("make a service account: %w", err)
	}
	account = made.Msg.GetId()
	now := time.Now()
	assertion := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.RegisteredClaims{
		Issuer: account, Subject: account, Audience: jwt.ClaimStrings{s.url}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)),
	})
	assertion.Header["kid"] = made.Msg.GetKeyId()
	signed, err := assertion.SignedString(key)
	if err != nil {
		return "", "", err
	}
	token, err = s.signIn(ctx, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {signed}})
	return account, token, err
}
