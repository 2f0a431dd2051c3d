// Package upstream is how a caller bears with a service that is absent or slow. Patient waits for one that does not listen, for as
// long as a restart takes and no longer; Breaker stops calling one that does not answer in time, so that its callers stay fast. Neither
// repeats a request that may have reached the service: that is for the caller to judge.
package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

const (
	firstPause = 10 * time.Millisecond
	mostPause  = 100 * time.Millisecond
	jitter     = 0.3
)

// Patient waits for services that do not listen: nothing of the request has left by then, so it may be tried again whatever it does,
// and it puts no load on the service, for there is none. The clock runs from when the service was first missed, and not from each
// request, so that one that stays away costs each request no more than a look.
type Patient struct {
	next     http.RoundTripper
	patience time.Duration

	mu     sync.Mutex
	missed map[string]time.Time
}

// NewPatient makes a Patient in front of next, which waits for a service until it was away for patience.
func NewPatient(next http.RoundTripper, patience time.Duration) *Patient {
	return &Patient{next: next, patience: patience, missed: map[string]time.Time{}}
}

// RoundTrip implements http.RoundTripper.
func (p *Patient) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := p.once(r)
	left := p.left(r.URL.Host, err)
	if left <= 0 {
		return res, err
	}
	policy := retrypolicy.NewBuilder[*http.Response]().
		HandleIf(func(_ *http.Response, err error) bool { return IsAbsent(err) }).
		WithBackoff(firstPause, mostPause).WithJitterFactor(jitter).WithMaxRetries(-1).WithMaxDuration(left).
		ReturnLastFailure().Build()
	return failsafe.With(policy).WithContext(r.Context()).GetWithExecution(func(failsafe.Execution[*http.Response]) (*http.Response, error) {
		res, err := p.once(r)
		p.left(r.URL.Host, err)
		return res, err
	})
}

// left notes what became of a request to a host, and answers how long one that found nobody may wait.
func (p *Patient) left(host string, err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, away := p.missed[host]
	if !IsAbsent(err) {
		// An error without a connection, as of a caller who gave up, says nothing of the service.
		if away && err == nil {
			delete(p.missed, host)
		}
		return 0
	}
	if !away {
		since = time.Now()
		p.missed[host] = since
	}
	return p.patience - time.Since(since)
}

// once keeps the transport from closing the body when it could not connect. Where the body can be had anew it is: a transport that was
// told to go to another connection has read it before it finds nobody there.
func (p *Patient) once(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return p.next.RoundTrip(r)
	}
	kept := *r
	kept.Body = keepOpen{r.Body}
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		kept.Body = body
	}
	return p.next.RoundTrip(&kept)
}

type keepOpen struct{ io.Reader }

// Close leaves the body to whoever made it: a server closes a request's when the handler returns, and others hold nothing.
func (keepOpen) Close() error { return nil }

// IsAbsent says that no connection was made: nothing listens there, or it can't be reached.
func IsAbsent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" && !errors.Is(err, context.Canceled)
}
