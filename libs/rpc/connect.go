package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/authz"
	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/libs/internal/callctx"
)

// interceptor runs the chain for Connect, unary calls and streams alike.
type interceptor struct{ s *Server }

// begin runs the links' begins. It answers the error of the first that refuses, already ended.
func (s *Server) begin(ctx context.Context, c *call) (context.Context, error) {
	for _, l := range s.links {
		if l.begin == nil {
			continue
		}
		var err error
		if ctx, err = l.begin(ctx, c); err != nil {
			return ctx, err
		}
	}
	return ctx, nil
}

func (s *Server) received(ctx context.Context, c *call, m any) error {
	pm, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("a request of type %T is no message", m)
	}
	failpoint.Panic("rpc.received", pm)
	for _, l := range s.links {
		if l.message == nil {
			continue
		}
		if err := l.message(ctx, c, pm); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) end(ctx context.Context, c *call, err error) error {
	for i := len(s.links) - 1; i >= 0; i-- {
		if l := s.links[i]; l.end != nil {
			err = l.end(ctx, c, err)
		}
	}
	return err
}

// around runs serve inside of the chain and turns its panic into an error.
func (s *Server) around(ctx context.Context, c *call, serve func(ctx context.Context) error) error {
	start := time.Now()
	if c.streaming {
		// What watches a stream's token ends with the stream.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	inner, err := s.begin(ctx, c)
	if err == nil {
		err = guarded(inner, c, serve)
	}
	err = s.end(inner, c, err)
	s.metrics.observe(ctx, c.rule.Procedure, c.streaming, err, time.Since(start))
	return err
}

func guarded(ctx context.Context, c *call, serve func(ctx context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// The value of a panic may repeat what a caller sent: only its type and the stack are logged.
			slog.ErrorContext(ctx, "panic in a handler", "procedure", c.rule.Procedure, "type", fmt.Sprintf("%T", p),
				"request_id", callctx.From(ctx).RequestID, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in %s", c.rule.Procedure)
		}
	}()
	return serve(ctx)
}

func (s *Server) rule(procedure string) authz.Rule {
	if r, ok := s.rules[procedure]; ok {
		return r
	}
	return authz.Rule{Procedure: procedure}
}

// WrapUnary runs the chain around a unary call.
func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		// The request is here whole: how long it took to come was its caller's affair.
		ctx, cancel := context.WithTimeout(ctx, i.s.cfg.UnaryTimeout)
		defer cancel()
		c := &call{rule: i.s.rule(req.Spec().Procedure), header: req.Header(), caller: callerFrom(ctx), protocol: req.Peer().Protocol}
		var res connect.AnyResponse
		err := i.s.around(ctx, c, func(ctx context.Context) (err error) {
			if err = i.s.received(ctx, c, req.Any()); err != nil {
				return err
			}
			res, err = next(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return res, nil
	}
}

// WrapStreamingHandler runs the chain around a stream.
func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		c := &call{rule: i.s.rule(conn.Spec().Procedure), header: conn.RequestHeader(), caller: callerFrom(ctx), streaming: true, protocol: conn.Peer().Protocol}
		return i.s.around(ctx, c, func(ctx context.Context) error {
			ctx, end := context.WithCancelCause(ctx)
			defer end(nil)
			// A stream that only the server speaks on has no end of its own, and would hold the process for as long as it may drain.
			if conn.Spec().StreamType == connect.StreamTypeServer {
				go func() {
					select {
					case <-i.s.draining:
						end(errDraining)
					case <-ctx.Done():
					}
				}()
			}
			err := next(ctx, &guardedConn{StreamingHandlerConn: conn, s: i.s, ctx: ctx, call: c})
			if errors.Is(context.Cause(ctx), errDraining) {
				return errDraining
			}
			return err
		})
	}
}

// errDraining ends the streams of a process that ends.
var errDraining = fault.Declare(fault.Unavailable, "DRAINING", "the service restarts: open the stream again")

// WrapStreamingClient leaves clients alone.
func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// guardedConn passes each message of a stream through the chain.
type guardedConn struct {
	connect.StreamingHandlerConn
	s    *Server
	ctx  context.Context //nolint:containedctx // a stream's connection lives as long as its call
	call *call
}

// Receive refuses a message that a link refuses, and every one after the call's scope has ended.
func (g *guardedConn) Receive(m any) error {
	if err := g.ctx.Err(); err != nil {
		return context.Cause(g.ctx)
	}
	if err := g.StreamingHandlerConn.Receive(m); err != nil {
		// Connect calls bytes that break the protocol internal, whoever sent them: these came from the caller.
		if ce, ok := errors.AsType[*connect.Error](err); ok && ce.Code() == connect.CodeInternal {
			return fault.Wrap(fault.InvalidArgument, err, "the message breaks the protocol: use a client of Connect, gRPC or gRPC-Web")
		}
		return err
	}
	return g.s.received(g.ctx, g.call, m)
}

// Send refuses once the call's scope has ended.
func (g *guardedConn) Send(m any) error {
	if err := g.ctx.Err(); err != nil {
		return context.Cause(g.ctx)
	}
	return g.StreamingHandlerConn.Send(m)
}
