package set

import (
	"context"

	"a3os.app/libs/queue"
	"a3os.app/libs/rpc"
	"a3os.app/libs/scope"
)

// Envelopes believes what workloads of the set present, by a verifier of the tenant's envelope keys.
func Envelopes(v *queue.Verifier) func(header string) (rpc.Presented, error) {
	return func(header string) (rpc.Presented, error) {
		verified, err := v.VerifyHeader(header)
		if err != nil {
			return rpc.Presented{}, err
		}
		return rpc.Presented{
			Workspace:  verified.Workspace(),
			OnBehalfOf: scope.Principal(verified.OnBehalfOf()),
			With:       func(ctx context.Context) context.Context { return queue.NewContext(ctx, verified) },
		}, nil
	}
}
