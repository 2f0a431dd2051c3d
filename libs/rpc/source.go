package rpc

import (
	"context"

	"a3os.app/libs/internal/callctx"
)

// Source is the address that the call in hand came from, as far as the gateway vouches for it; empty outside of a call. It is for
// limits and for the record, never for a decision on access.
func Source(ctx context.Context) string { return callctx.From(ctx).SourceAddress }
