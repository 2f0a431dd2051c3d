package rpc

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"a3os.app/libs/authz"
)

// httpLink is a link around every HTTP request, before anything is decoded.
type httpLink struct {
	name, reason string
	wrap         func(http.Handler) http.Handler
}

// httpChain is what every request passes, outermost first.
func (s *Server) httpChain() []httpLink {
	return []httpLink{
		{"recover", "outermost, so that a panic in any other link is caught, answered and logged", s.recoverPanic},
		{"limits", "before anything is read: its size, and how slow it may be, are bounded however the rest behaves", s.limit},
		{"cors", "before authn, since a browser's preflight carries no credentials", s.cors},
		{"trace", "before authn, so that refusals have a request id", s.trace},
		{"authn", "before admission, so that load is shed per principal and not per address", s.authenticate},
		{"admission", "innermost: only what would be served takes a place", s.admit},
	}
}

// call is one RPC on its way through the chain.
type call struct {
	rule      authz.Rule
	header    http.Header
	caller    *caller
	streaming bool
	// auth is how a caller of the control plane proved who they are.
	auth credentials.AuthInfo
	// protocol is `connect`, `grpc` or `grpcweb`.
	protocol string
	span     trace.Span
	// request is the first message received, for the record.
	request proto.Message
}

// link is a link around every RPC, unary or streaming, Connect or gRPC. Its functions may be nil.
type link struct {
	name, reason string
	// begin runs before the handler, outermost link first.
	begin func(ctx context.Context, c *call) (context.Context, error)
	// message runs for every message received, outermost link first.
	message func(ctx context.Context, c *call, m proto.Message) error
	// end runs after the handler, innermost link first, with its error, and answers the error that goes on.
	end func(ctx context.Context, c *call, err error) error
}

// rpcChain is what every RPC passes, outermost first.
func (s *Server) rpcChain() []link {
	return []link{
		{name: "span", reason: "outermost, so that it lasts as long as the call and tells the code that the caller gets", begin: s.spans.start, end: s.spans.end},
		{name: "fault", reason: "around all that refuses, so that every error of every link is mapped, and logged, once", end: s.mapFault},
		{name: "denials", reason: "outside of scope and rule, since what they refuse is what goes on the record", end: s.recordDenial},
		{name: "reads", reason: "beside denials: a read that was answered goes on the record", message: keepRequest, end: s.recordRead},
		{name: "scope", reason: "before the rule, which is asked of a scope", begin: s.makeScope},
		{name: "rule", reason: "before validation, so that who may not call learns nothing of what is valid", begin: s.checkRule},
		{name: "licence", reason: "after the rule, so that who may not call learns nothing of what is licensed; before anything is done", begin: s.checkLicence},
		{name: "validate", reason: "before the handler and the idempotency key, which is kept for valid requests only", message: s.validate},
		{name: "idempotency", reason: "innermost, for the deed's own transaction to take up", begin: takeKey},
	}
}
