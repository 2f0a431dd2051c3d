package upstream

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"a3os.app/libs/fault"
)

// What opens a breaker: of the calls within a period, and not of a few, most took too long. A service that refuses at once opens
// none: it costs nobody time, and may refuse some calls and not others, as one whose record is behind does with deeds.
const (
	slowShare  = 0.5
	slowLeast  = 8
	slowPeriod = 10 * time.Second
	// reopenAfter is how long nobody calls before one call tries again.
	reopenAfter = 2 * time.Second
)

// errSlow is what a caller learns while a breaker is open.
var errSlow = fault.Declare(fault.Unavailable, "DEPENDENCY_SLOW", "a service that this needs does not answer in time; try again shortly")

// Breaker keeps callers from waiting for a service that does not answer in time. It learns that a call is slow while the call goes on.
type Breaker struct {
	slow    time.Duration
	circuit circuitbreaker.CircuitBreaker[any]
}

// NewBreaker makes a breaker for calls of a service, which takes those longer than slow for too slow.
func NewBreaker(service string, slow time.Duration) *Breaker {
	return &Breaker{slow: slow, circuit: circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(slowShare, slowLeast, slowPeriod).WithDelay(reopenAfter).WithSuccessThreshold(1).
		OnOpen(func(circuitbreaker.StateChangedEvent) {
			slog.Warn("a service does not answer in time, calls of it are refused for a while", "callee", service, "slow", slow, "for", reopenAfter)
		}).Build()}
}

// Look refuses a call while the breaker is open, and learns nothing from it: for calls that may rightly take as long as they like.
func (b *Breaker) Look() error {
	if b.circuit.RemainingDelay() > 0 {
		return errSlow
	}
	return nil
}

// IsSlow says that an error is a breaker's refusal.
func IsSlow(err error) bool { return errors.Is(err, errSlow) }

// Enter lets a call begin, or refuses it at once. A caller who was let in calls done at its end.
func (b *Breaker) Enter() (done func(), err error) {
	if !b.circuit.TryAcquirePermit() {
		return nil, errSlow
	}
	var once sync.Once
	slow := time.AfterFunc(b.slow, func() { once.Do(b.circuit.RecordFailure) })
	return func() {
		slow.Stop()
		// Quick is good whatever it answered, and whoever gave up early says nothing against the service.
		once.Do(b.circuit.RecordSuccess)
	}, nil
}
