package queue

import (
	"context"
	"fmt"

	"a3os.app/libs/internal/presentctx"
	"a3os.app/libs/internal/scopectx"
	"a3os.app/libs/scope"
)

// InScope is ctx in the scope of a verified message, for the service that works on it: the workspace is the envelope's, and calls to
// other services of the set present the envelope. It fails for the zero Verified, which nobody verified.
func InScope(ctx context.Context, v Verified, service string) (context.Context, error) {
	if v.IsZero() {
		return nil, fmt.Errorf("no scope for %s: the message was not verified", service)
	}
	ctx = scopectx.With(ctx, scope.Scope{
		Plane: v.Plane(), Tenant: v.Tenant(), Workspace: v.Workspace(),
		Principal: scope.Workload(service), OnBehalfOf: scope.Principal(v.OnBehalfOf()),
	})
	ctx = presentctx.With(ctx, presentctx.Presented{Envelope: v.Header()})
	return NewContext(ctx, v), nil
}
