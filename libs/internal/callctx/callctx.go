// Package callctx carries what is known of a call besides its scope: where it came from and under which ids it is logged.
package callctx

import "context"

// Call is what is known of a call.
type Call struct {
	// RequestID is `req_…`, given by us, returned in the header `A3-Request-Id`.
	RequestID string
	// SourceAddress is the address of the caller, as far as the gateway vouches for it.
	SourceAddress string
	// Procedure is the method, as `/a3os.iam.v1.UserService/GetUser`.
	Procedure string
}

type key struct{}

// With puts a call into a context.
func With(ctx context.Context, c *Call) context.Context { return context.WithValue(ctx, key{}, c) }

// From takes the call out of a context; outside of one it is empty.
func From(ctx context.Context) *Call {
	if c, ok := ctx.Value(key{}).(*Call); ok {
		return c
	}
	return &Call{}
}
