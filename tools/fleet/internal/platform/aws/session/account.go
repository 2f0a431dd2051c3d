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

// AsProvisioner is the plane's provisioner, whom a role of the account, as whom cfg is, becomes under a name: administrators under their own, the machine that
// fleet works from under stack.Machine. A session lasts an hour, and is taken anew as long as cfg's own lasts, which a machine's always does.
func AsProvisioner(ctx context.Context, cfg aws.Config, place stack.Place, name string) (aws.Config, error) {
	out, err := Under(ctx, cfg, place.Provisioner(), name)
	if err != nil {
		return cfg, fmt.Errorf("become %s under the name %s, as A3_AWS_SOURCE_IDENTITY has it: %w: log in as the role that AdministratorRole of the plane's stack names, or as the one of MachineRole under the name %s, or unset the variable where the login is the provisioner's", place.Provisioner(), name, err, stack.Machine)
	}
	return out, nil
}

// Under is a role, by its ARN, that whoever is cfg takes under a name. Its session lasts an hour, where STS gives a quarter of one who says nothing, and is taken anew
// as long as cfg's own lasts. Errors are those of STS.
func Under(ctx context.Context, cfg aws.Config, role, name string) (aws.Config, error) {
	return taken(ctx, cfg, role, func(o *stscreds.AssumeRoleOptions) { o.SourceIdentity, o.RoleSessionName = &name, name })
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
