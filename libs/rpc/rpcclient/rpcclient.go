// Package rpcclient makes clients for people and programs outside of a set, and what every client of this module does with a call: it presents
// what authorises it, bounds its time, and gives its errors kind and reason. It is apart from rpc, which needs a service's database, rules and
// checks of messages: a command that asks a tenant one question starts without them.
package rpcclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"a3os.app/libs/fault"
)

// RequestIDHeader carries the id of the request in every answer.
const RequestIDHeader = "A3-Request-Id"

// callWithin bounds a call whose caller gave no deadline.
const callWithin = 10 * time.Second

// ToTenant makes a client for people and programs outside of the set: it presents the token that the context's owner gets from
// token, and gives errors kind and reason.
func ToTenant[C any](client connect.HTTPClient, baseURL string, token func(ctx context.Context) (string, error), newClient func(connect.HTTPClient, string, ...connect.ClientOption) C) C {
	bearer := func(ctx context.Context, h http.Header) error {
		t, err := token(ctx)
		if err == nil && t != "" {
			h.Set("Authorization", "Bearer "+t)
		}
		return err
	}
	return newClient(client, baseURL, connect.WithInterceptors(Outgoing{Credentials: bearer}), connect.WithReadMaxBytes(64<<20))
}

// Outgoing presents credentials and maps errors; it is a connect.Interceptor.
type Outgoing struct {
	// Credentials puts what authorises a call into its header.
	Credentials func(ctx context.Context, h http.Header) error
	// Enter refuses a unary call at once where the other side has been too slow, and is told when it is done; nil refuses none.
	Enter func() (done func(), err error)
}

// WrapUnary bounds the call's time, and refuses it at once where the other side has been too slow.
func (o Outgoing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := o.Credentials(ctx, req.Header()); err != nil {
			return nil, err
		}
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callWithin)
			defer cancel()
		}
		if o.Enter != nil {
			done, err := o.Enter()
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
func (o Outgoing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if err := o.Credentials(ctx, conn.RequestHeader()); err != nil {
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
func (o Outgoing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// brokenConn is a stream that could not be authorised: it fails with the reason.
type brokenConn struct {
	connect.StreamingClientConn
	err error
}

func (b *brokenConn) Send(any) error    { return b.err }
func (b *brokenConn) Receive(any) error { return b.err }
