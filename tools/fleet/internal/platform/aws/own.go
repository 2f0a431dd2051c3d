package aws

import (
	"context"
	"fmt"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// stands says of the plane's own set that there is what it stands on: an administrator deploys that, and fleet changes none of it.
func (t *tenant) stands(ctx context.Context) error {
	if !t.set.Tenant.IsZero() {
		return nil
	}
	told, err := t.outputs(ctx, t.place.PlaneStack())
	if err == nil && told[hostOutput] == "" {
		err = fmt.Errorf("account %s has no whole stack %s in %s, on which the plane's registry and gateway stand: an administrator deploys it first; see docs/aws.md", t.place.Account, t.place.PlaneStack(), t.place.Region)
	}
	if of := told[stack.DomainOutput]; err == nil && of != "" && of != t.place.Domain {
		err = fmt.Errorf("A3_DOMAIN is %s and stack %s has the certificate of %s: set A3_DOMAIN=%s, or have an administrator deploy the stack for the other one", t.place.Domain, t.place.PlaneStack(), of, of)
	}
	return err
}

// Remove deletes the stack of the plane's own set, which runs then no more. What it stood on and its database stay.
func (p *Platform) Remove(ctx context.Context) (changed bool, err error) {
	t, err := p.of(ctx, platform.Set{Blueprint: p.Own.Blueprint})
	if err != nil {
		return false, err
	}
	return t.deleteStack(ctx)
}

// LogGroup is where a component's log is.
func (p *Platform) LogGroup(s platform.Set, component string) string {
	return stack.Place{Plane: p.State.Plane}.LogGroup(s.Name(), component)
}
