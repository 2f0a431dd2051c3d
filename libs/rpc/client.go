package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"

	"a3os.app/libs/fault"
	"a3os.app/libs/internal/presentctx"
	"a3os.app/libs/upstream"
	"a3os.app/libs/workload"
)

const (
	// callWithin bounds a call to another service whose caller gave no deadline.
	callWithin = 10 * time.Second
	// patience is how long a call waits for a service that does not listen: an ordinary restart.
	patience = 5 * time.Second
	// slowCall is a call that took too long. When most do, the next are refused at once for a while.
	slowCall = 2 * time.Second
)

// ToWorkload makes a client of another service of the set, or of the control plane. The transport reaches the target or nobody. Where
// the work in hand was authorised by a user's token or an envelope, the call presents it; errors come back with kind and reason. A service that restarts is waited for, and one that is slow is not.
func ToWorkload[C any](transport *workload.Transport, target workload.Identity, newClient func(connect.HTTPClient, string, ...connect.ClientOption) C) (C, error) {
	tracing, err := otelconnect.NewInterceptor(otelconnect.WithoutMetrics())
	if err != nil {
		var none C
		return none, err
	}
	return newClient(&http.Client{Transport: upstream.NewPatient(transport, patience)}, "https://"+target.ServerName(),
		connect.WithInterceptors(tracing, outgoing{present: true, breaker: upstream.NewBreaker(target.Service, slowCall)}), connect.WithReadMaxBytes(32<<20)), nil
}

// ToTenant makes a client for people and programs outside of the set: it presents the token that the context's owner gets from
// token, and maps errors as ToWorkload does.
func ToTenant[C any](client connect.HTTPClient, baseURL string, token func(ctx context.Context) (string, error), newClient func(connect.HTTPClient, string, ...connect.ClientOption) C) C {
	return newClient(client, baseURL, connect.WithInterceptors(outgoing{token: token}), connect.WithReadMaxBytes(64<<20))
}

// outgoing presents credentials and maps errors.
type outgoing struct {
	present bool
	breaker *upstream.Breaker
	token   func(ctx context.Context) (string, error)
}

func (o outgoing) credentials(ctx context.Context, h http.Header) error {
	if o.present {
		p := presentctx.From(ctx)
		if p.Token != "" {
			h.Set("Authorization", "Bearer "+p.Token)
		}
		if p.Envelope != "" {
			h.Set(EnvelopeHeader, p.Envelope)
		}
	}
	if o.token != nil {
		t, err := o.token(ctx)
		if err != nil {
			return err
		}
		if t != "" {
			h.Set("Authorization", "Bearer "+t)
		}
	}
	return nil
}

// WrapUnary bounds the call's time, and refuses it at once where the other side has been too slow.
func (o outgoing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := o.credentials(ctx, req.Header()); err != nil {
			return nil, err
		}
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callWithin)
			defer cancel()
		}
		if o.breaker != nil {
			done, err := o.breaker.Enter()
			if err != nil {
				return nil, err
			}
			defer done()
		}
		res, err := next(ctx, req)
		if err != nil {
			return nil, told(ctx, err)
		}
		return res, nil
	}
}

// told is the error of a call with kind and reason. Connect takes a connection that was reset for a caller who gave up, and a stream
// that was (RFC 9113 §6.4) for a fault of ours; where nobody said so in an answer, the other side ended in the middle.
func told(ctx context.Context, err error) error {
	f := fault.FromRPC(err)
	reset := fault.KindOf(f) == fault.Canceled || fault.KindOf(f) == fault.Internal && strings.HasSuffix(err.Error(), "received from peer")
	if reset && !connect.IsWireError(err) && ctx.Err() == nil {
		return fault.Wrap(fault.Unavailable, err, "the connection broke before an answer came; what the request did is not known")
	}
	return f
}

// WrapStreamingClient presents credentials before the stream opens.
func (o outgoing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if err := o.credentials(ctx, conn.RequestHeader()); err != nil {
			return &brokenConn{StreamingClientConn: conn, err: err}
		}
		return &mappedConn{conn}
	}
}

// mappedConn gives the errors of a stream kind and reason, as those of a unary call have.
type mappedConn struct{ connect.StreamingClientConn }

// Receive answers io.EOF at the stream's end.
func (m *mappedConn) Receive(msg any) error {
	err := m.StreamingClientConn.Receive(msg)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fault.FromRPC(err)
}

// WrapStreamingHandler leaves handlers alone.
func (o outgoing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// brokenConn is a stream that could not be authorised: it fails with the reason.
type brokenConn struct {
	connect.StreamingClientConn
	err error
}

func (b *brokenConn) Send(any) error    { return b.err }
func (b *brokenConn) Receive(any) error { return b.err }
