package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

const (
	// patience is how long a request waits for a service that isn't there: a restart, or a supervisor bringing back what was killed.
	patience   = 3 * time.Second
	firstPause = 10 * time.Millisecond
	mostPause  = 200 * time.Millisecond
	jitter     = 0.3
)

// patient waits for a service that does not listen. Nothing of the request has left by then, so it may be tried again whatever it
// does; it puts no load on the service either, for there is none. Any other failure is the caller's to judge.
type patient struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := p.once(r)
	if err == nil || !isDial(err) {
		return res, err
	}
	policy := retrypolicy.NewBuilder[*http.Response]().
		HandleIf(func(_ *http.Response, err error) bool { return isDial(err) }).
		WithBackoff(firstPause, mostPause).WithJitterFactor(jitter).WithMaxRetries(-1).WithMaxDuration(patience).
		ReturnLastFailure().Build()
	return failsafe.With(policy).WithContext(r.Context()).GetWithExecution(func(failsafe.Execution[*http.Response]) (*http.Response, error) {
		return p.once(r)
	})
}

// once keeps the transport from closing the body when it could not connect, for then it was not touched.
func (p patient) once(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return p.next.RoundTrip(r)
	}
	kept := *r
	kept.Body = keepOpen{r.Body}
	return p.next.RoundTrip(&kept)
}

type keepOpen struct{ io.Reader }

// Close leaves the body to the server, which closes it when the handler returns.
func (keepOpen) Close() error { return nil }

// isDial says that no connection was made: nothing listens there, or it can't be reached.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" && !errors.Is(err, context.Canceled)
}
