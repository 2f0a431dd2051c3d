// Package presentctx carries what authorised the work in hand, a user's token or a signed envelope, so that a call to another
// service of the set can present it. Only libs verify and set it.
package presentctx

import "context"

// Presented is what a workload presents when it acts for someone. Its fields are credentials: they are never logged.
type Presented struct {
	// Token is the user's access token; empty where an envelope authorised the work.
	Token string
	// Envelope is the value of the header `A3-Envelope`; empty where a token did.
	Envelope string
}

type key struct{}

// With puts what authorised the work into a context.
func With(ctx context.Context, p Presented) context.Context { return context.WithValue(ctx, key{}, p) }

// From takes it out; it is empty where nothing was presented.
func From(ctx context.Context) Presented {
	p, _ := ctx.Value(key{}).(Presented)
	return p
}
