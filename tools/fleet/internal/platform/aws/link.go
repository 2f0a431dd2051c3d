package aws

import (
	"context"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// joined says of the plane's own set whether the plane's stack offers the registry to accounts that tenants have to themselves.
func (t *tenant) joined(ctx context.Context, in stack.Input) (stack.Input, error) {
	if !t.set.Tenant.IsZero() {
		return in, nil
	}
	told, err := t.outputs(ctx, t.place.PlaneStack())
	in.Joined = told[stack.RegistryServiceOutput] != ""
	return in, err
}

// linked says of a tenant with an account to itself that its network and the plane's are joined: administrators of both deploy that, and fleet,
// which may not, deploys nothing there before it is.
func (t *tenant) linked(ctx context.Context) error {
	if t.place.Hub == "" {
		return nil
	}
	name := t.place.LinkStack(t.id)
	told, err := t.outputsOf(ctx, t.Platform.cfg, name)
	if err == nil && told[stack.LinkOutput] == "" {
		err = fault.New(fault.FailedPrecondition, "nothing leads from the plane's account %s to account %s, which is tenant %s's own: have the administrators of the plane's deploy what fleet aws render --account %s --account-per-tenant %s --link --tenant %s prints as stack %s, and carry on with fleet operation resume; see docs/aws.md",
			t.place.Hub, t.place.Account, t.id, t.place.Account, t.place.Hub, t.id, name)
	}
	return err
}
