package session

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// InAccount is the provisioner of an account that a tenant has to itself, whom the plane's provisioner, whose credentials cfg has, becomes for
// that tenant: by the role's external id, so that a mistake in the account takes nobody else's. The session ends by itself and is taken anew as
// long as cfg's own lasts.
func InAccount(ctx context.Context, cfg aws.Config, place stack.Place, tenant string) (aws.Config, error) {
	if place.Hub == "" {
		return cfg, fmt.Errorf("tenant %s is in the plane's account %s, where nobody else's role is taken", tenant, place.Account)
	}
	out, err := become(ctx, cfg, place.Provisioner(), place.ExternalID(tenant), tenant)
	if err != nil {
		return cfg, fmt.Errorf("become the provisioner of account %s, which is tenant %s's own: %w: have the administrators of that account deploy what fleet aws render --account %s --account-per-tenant %s --first --tenant %s prints, those of the plane's what it prints with --link, and carry on with fleet operation resume", place.Account, tenant, err, place.Account, place.Hub, tenant)
	}
	return out, nil
}

// AsKeeper is a keeper of a tenant's stores, whom the provisioner, whose credentials cfg has, becomes for what that one does there.
func AsKeeper(ctx context.Context, cfg aws.Config, place stack.Place, k stack.Keeper, tenant string) (aws.Config, error) {
	out, err := become(ctx, cfg, place.Keeper(k, tenant), place.ExternalID(tenant), tenant)
	if err != nil {
		return cfg, fmt.Errorf("become %s, a keeper of the stores of %s: %w: see that its stack and the plane's are of this release, which have this role and let the provisioner take it", k, tenant, err)
	}
	return out, nil
}

// become takes a role by its external id.
func become(ctx context.Context, cfg aws.Config, role, external, name string) (aws.Config, error) {
	return taken(ctx, cfg, role, func(o *stscreds.AssumeRoleOptions) {
		o.ExternalID, o.RoleSessionName = &external, name
	})
}
