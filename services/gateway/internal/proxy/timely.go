package proxy

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// timely leaves a service alone that does not begin its answers in time. It stands behind the wait for a service that restarts, which
// is nobody's slowness.
type timely struct {
	next         http.RoundTripper
	slow, within time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t timely) RoundTrip(r *http.Request) (*http.Response, error) {
	breaker := targetFrom(r.Context()).upstream.Service.Breaker(t.slow)
	if !answersAtOnce(r) {
		if err := breaker.Look(); err != nil {
			return nil, err
		}
		return t.next.RoundTrip(r)
	}
	done, err := breaker.Enter()
	if err != nil {
		return nil, err
	}
	defer done()
	// Once the answer has begun it may take its time: what ends the context then is the end of the client's request.
	ctx, cancel := context.WithCancelCause(r.Context())
	late := time.AfterFunc(t.within, func() { cancel(errLate) })
	defer late.Stop()
	res, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		if cause := context.Cause(ctx); cause == errLate { //nolint:errorlint // it is that very value or another
			return nil, cause
		}
	}
	return res, err
}

// answersAtOnce says whether the time until the answer begins is the service's own: the request is here whole, and is no stream, whose
// first message may rightly come late.
func answersAtOnce(r *http.Request) bool {
	return (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil) && !isStream(r)
}

// isStream says whether a request may be a stream. gRPC does not tell which of its calls are.
func isStream(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return strings.HasPrefix(kind, "application/grpc") || strings.HasPrefix(kind, "application/connect+")
}
