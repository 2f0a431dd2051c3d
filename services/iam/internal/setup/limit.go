package setup

import (
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"
)

const (
	// perSource and altogether bound the tries in a minute. A person needs one; a guesser would need 2^128.
	perSource  = 10
	altogether = 120
	// mostSources bounds what is remembered; beyond it, new sources share one limit.
	mostSources = 1024
)

// Limit bounds how often setup codes are tried, in this process. It is safe for concurrent use.
type Limit struct {
	all ratelimiter.RateLimiter[any]

	mu      sync.Mutex
	sources map[string]ratelimiter.RateLimiter[any]
	since   time.Time
}

// NewLimit makes a limit.
func NewLimit() *Limit {
	return &Limit{all: ratelimiter.NewBursty[any](altogether, time.Minute), sources: map[string]ratelimiter.RateLimiter[any]{}, since: time.Now()}
}

// Allow takes a try of a source, and says whether there was one. What one source has too many of is not taken from the others.
func (l *Limit) Allow(source string) bool {
	return l.of(source).TryAcquirePermit() && l.all.TryAcquirePermit()
}

func (l *Limit) of(source string) ratelimiter.RateLimiter[any] {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Sources are forgotten together when all of their windows have passed.
	if time.Since(l.since) > time.Minute && len(l.sources) >= mostSources/2 {
		clear(l.sources)
		l.since = time.Now()
	}
	r, ok := l.sources[source]
	if !ok {
		if len(l.sources) >= mostSources {
			source = "others"
			if r, ok = l.sources[source]; ok {
				return r
			}
		}
		r = ratelimiter.NewBursty[any](perSource, time.Minute)
		l.sources[source] = r
	}
	return r
}
