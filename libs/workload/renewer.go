package workload

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

const (
	// lookEvery is how often the file on disk is looked at, and the least time between two renewals. Waiting
	// in short steps also keeps the appointment on a machine that was asleep, for timers don't run meanwhile.
	lookEvery = time.Minute

	renewTimeout = 30 * time.Second
	firstBackoff = 5 * time.Second
	longestRetry = 5 * time.Minute
	// onceExpired is how often the disk is looked at for what somebody issued by hand: nobody answers an expired certificate.
	onceExpired   = 5 * time.Second
	backoffJitter = 0.2
)

// Renewer keeps a Source's certificate alive: at two thirds of its life, give or take 5 % of it so that a fleet doesn't renew in
// step, it asks for a new one with a new key, and asks again until it has it. All it needs to know after a restart is in the
// certificate. It takes no certificate that isn't for its own identity, under its own roots, and for the key it just made. A new
// keypair that appears on disk is taken too.
type Renewer struct {
	// Source is what is renewed.
	Source *Source
	// Anchors say which root must have vouched for the answer.
	Anchors Anchors
	// Renew sends a signing request (PKCS #10, DER) to the tenant's issuer and returns its answer (PEM, leaf first).
	Renew func(ctx context.Context, csrDER []byte) (chainPEM []byte, err error)
	// Log hears of renewals and of failures.
	Log *slog.Logger
}

// Run renews until the context ends, whose error it returns.
func (r Renewer) Run(ctx context.Context) error {
	if r.Source == nil || r.Anchors == nil || r.Renew == nil || r.Log == nil {
		return errors.New("renew certificates: it needs a source, the roots to trust, an issuer to ask and a log")
	}
	for {
		if err := r.waitUntilDue(ctx); err != nil {
			return err
		}
		if err := r.renewUntilDone(ctx); err != nil {
			return err
		}
		r.Log.InfoContext(ctx, "certificate renewed", "workload", r.Source.Identity().String(), "expires_at", r.Source.NotAfter())
		// An issuer that hands out certificates of a few seconds (its own is about to expire) must not make it spin.
		if err := sleep(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// waitUntilDue waits until the present certificate, whichever it is by then, should be renewed.
func (r Renewer) waitUntilDue(ctx context.Context) error {
	leaf := r.Source.Leaf()
	due := renewAt(leaf)
	for {
		if _, err := r.Source.Reload(); err != nil {
			r.Log.WarnContext(ctx, "the keypair on disk is not usable, the present one stays", "workload", r.Source.Identity().String(), "error", err)
		}
		if present := r.Source.Leaf(); present != leaf {
			leaf, due = present, renewAt(present)
		}
		wait := time.Until(due)
		if wait <= 0 {
			return nil
		}
		if err := sleep(ctx, min(wait, lookEvery)); err != nil {
			return err
		}
	}
}

func (r Renewer) renewUntilDone(ctx context.Context) error {
	policy := retrypolicy.NewBuilder[any]().
		WithMaxRetries(-1).
		WithDelayFunc(func(e failsafe.ExecutionAttempt[any]) time.Duration { return r.pause(e.Attempts()) }).
		WithJitterFactor(backoffJitter).
		OnRetryScheduled(func(e failsafe.ExecutionScheduledEvent[any]) {
			r.Log.Log(ctx, r.severity(), "certificate not renewed yet", "workload", r.Source.Identity().String(),
				"expires_at", r.Source.NotAfter(), "next_try_in", e.Delay, "error", e.LastError())
		}).
		Build()
	return failsafe.With(policy).WithContext(ctx).Run(func() error { return r.renew(ctx) })
}

// pause doubles from try to try.
func (r Renewer) pause(tries int) time.Duration {
	if r.expired() {
		return onceExpired
	}
	pause := firstBackoff
	for range tries - 1 {
		if pause *= 2; pause >= longestRetry {
			return longestRetry
		}
	}
	return pause
}

func (r Renewer) expired() bool { return time.Now().After(r.Source.NotAfter()) }

// severity: with the certificate expired the issuer can't be asked any more, and somebody has to issue one by hand.
func (r Renewer) severity() slog.Level {
	if r.expired() {
		return slog.LevelError
	}
	return slog.LevelWarn
}

func (r Renewer) renew(ctx context.Context) error {
	if changed, err := r.Source.Reload(); err == nil && changed {
		return nil
	}
	if r.expired() {
		return fmt.Errorf("the certificate expired at %s, and with it no issuer answers: issue one by hand, as `fleet plane up` does", r.Source.NotAfter().Format(time.RFC3339))
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	request, key, err := NewRequest()
	if err != nil {
		return err
	}
	answer, err := r.Renew(ctx, request)
	if err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	renewed, err := NewKeypair(key, answer)
	if err != nil {
		return fmt.Errorf("the issuer's answer is not for this request: %w", err)
	}
	chain, err := renewed.chain()
	if err != nil {
		return err
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := prove(chain, usage, r.Anchors, time.Now()); err != nil {
			return fmt.Errorf("the issuer's answer would be refused by others: %w", err)
		}
	}
	return r.Source.Store(renewed) // which refuses another identity
}

// renewAt is two thirds into a certificate's life, give or take 5 % of the life. One that lives longer, so that a workload can still be started with
// it, is to be used no longer for that.
func renewAt(leaf *x509.Certificate) time.Time {
	life := min(leaf.NotAfter.Sub(leaf.NotBefore), LeafLife+clockSkew)
	jitter := time.Duration((rand.Float64()*2 - 1) * 0.05 * float64(life)) //nolint:gosec // G404: spreads load, guards nothing
	return leaf.NotBefore.Add(life*2/3 + jitter)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
