// Package presentctx answers what authorised the work in hand, a user's token or a signed envelope, so that a call to another
// service of the set can present it. Only libs verify and set it.
package presentctx

import (
	"context"

	"a3os.app/libs/internal/callctx"
)

// Presented is what a workload presents when it acts for someone.
type Presented = callctx.Presented

type key struct{}

// With puts what authorised the work into the context of work that isn't a call: a job.
func With(ctx context.Context, p Presented) context.Context { return context.WithValue(ctx, key{}, p) }

// From is what authorised the work in hand; empty where nothing was presented.
func From(ctx context.Context) Presented {
	if p, ok := ctx.Value(key{}).(Presented); ok {
		return p
	}
	return callctx.From(ctx).Presented
}
