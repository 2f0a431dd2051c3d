// Package callctx carries what is known of a call besides its scope: where it came from, who shows what, and under which ids it is
// logged.
package callctx

import "context"

// Call is what is known of a call. The links of libs/rpc fill it in on the way, each its own fields; nobody writes to it after.
type Call struct {
	// RequestID is `req_…`, given by us, returned in the header `A3-Request-Id`.
	RequestID string
	// SourceAddress is the address of the caller, as far as the gateway vouches for it.
	SourceAddress string
	// Presented is what authorises the work, once it was verified.
	Presented Presented
	// Caller is who calls, as far as it was proven: libs/rpc's own.
	Caller any
}

// Presented is what a workload presents when it acts for someone. Its fields are credentials: they are never logged.
type Presented struct {
	// Token is the user's access token; empty where an envelope authorised the work.
	Token string
	// Envelope is the value of the header `A3-Envelope`; empty where a token did.
	Envelope string
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
