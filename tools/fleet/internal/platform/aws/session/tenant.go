package session

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// ForTenant is the provisioner, as whom cfg is, in a session whose policy names one tenant: with it nothing of another's is reached, whatever
// the code that has it does. It is named as the tenant in AWS's records, and taken anew as long as cfg's own session lasts.
func ForTenant(ctx context.Context, cfg aws.Config, place stack.Place, tenant string) (aws.Config, error) {
	policy, err := stack.Session(place, tenant)
	if err != nil {
		return cfg, err
	}
	return narrowed(ctx, cfg, place, tenant, policy, place.SessionPolicy())
}

// MakingTenant is such a session in which the tenant's stack is made, with the zone of its names and its services, which no other session may make: who can
// make a zone takes any name from all that stand in the network, and who can make a service stands behind any load balancer there. It is for fleet itself, which renders what is made, and is lent to nobody.
func MakingTenant(ctx context.Context, cfg aws.Config, place stack.Place, tenant string) (aws.Config, error) {
	policy, err := stack.Session(place, tenant)
	if err != nil {
		return cfg, err
	}
	return narrowed(ctx, cfg, place, tenant, policy, place.MakingPolicy())
}

// ForPlane is the provisioner in a session whose policy names the plane's own set.
func ForPlane(ctx context.Context, cfg aws.Config, place stack.Place) (aws.Config, error) {
	policy, err := stack.PlaneSession(place)
	if err != nil {
		return cfg, err
	}
	return narrowed(ctx, cfg, place, "plane-"+place.Plane, policy)
}

func narrowed(ctx context.Context, cfg aws.Config, place stack.Place, of, policy string, besides ...string) (aws.Config, error) {
	out, err := taken(ctx, cfg, place.Provisioner(), func(o *stscreds.AssumeRoleOptions) {
		o.Policy, o.RoleSessionName = &policy, of
		for _, arn := range besides {
			o.PolicyARNs = append(o.PolicyARNs, types.PolicyDescriptorType{Arn: &arn})
		}
	})
	if err != nil {
		return cfg, fmt.Errorf("take a session of %s for %s alone: %w: log in as that role, and see that the plane's stack is of this release, by which the role may take itself", place.Provisioner(), of, err)
	}
	return out, nil
}
