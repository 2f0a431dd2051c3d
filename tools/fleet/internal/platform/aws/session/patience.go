package session

import (
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// How long AWS is waited for where it says that it is asked too often, or is away for a moment: some minutes a call. A hundred tenants share the
// rates of an account, so that a call which is throttled is no failure of any tenant's.
const (
	attempts  = 20
	mostDelay = 20 * time.Second
	// noteEvery keeps what is said of waiting from being all that is said.
	noteEvery = 10 * time.Second
)

// Patient has calls wait where AWS throttles them or is away, and tells of that by note. What AWS refuses for another reason is not asked again.
func Patient(cfg aws.Config, note func(text string)) aws.Config {
	n := &noted{note: note}
	// What the environment says of attempts (AWS_MAX_ATTEMPTS) would cut it short.
	cfg.RetryMaxAttempts = 0
	cfg.Retryer = func() aws.Retryer {
		return &patient{n, retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.Backoff = attempts, backoff
			// The SDK's own allowance of retries is for callers who have something else to do.
			o.RateLimiter = ratelimit.None
		})}
	}
	return cfg
}

// backoff is the SDK's, begun a quarter as long.
var backoff = retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
	const part = 4
	delay, err := retry.NewExponentialJitterBackoff(part*mostDelay).BackoffDelay(attempt, err)
	return delay / part, err
})

type patient struct {
	*noted
	*retry.Standard
}

// RetryDelay implements aws.Retryer.
func (p *patient) RetryDelay(attempt int, err error) (time.Duration, error) {
	delay, fault := p.Standard.RetryDelay(attempt, err)
	if fault == nil {
		p.tell(attempt, delay, err)
	}
	return delay, fault
}

type noted struct {
	note func(text string)
	mu   sync.Mutex
	last time.Time
}

func (n *noted) tell(attempt int, delay time.Duration, err error) {
	const few = 2 // as any client has
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.note == nil || attempt < few || time.Since(n.last) < noteEvery {
		return
	}
	n.last = time.Now()
	n.note(fmt.Sprintf("AWS is asked too often, or away: waiting %s before try %d: %v", delay.Round(time.Millisecond), attempt+1, err))
}
