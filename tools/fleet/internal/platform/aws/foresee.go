package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

var _ platform.Foreseer = (*Platform)(nil)

// Foresee implements platform.Foreseer: CloudFormation plans the change, and keeps the plan as a change set. No image is pushed for it: its
// digest says which it will be.
func (p *Platform) Foresee(ctx context.Context, s platform.Set, r platform.Release, running bool) (*registryv1.StackChange, error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return nil, err
	}
	there, err := t.outputs(ctx, t.stackName())
	if err != nil || there == nil {
		return nil, err
	}
	in := t.stopped()
	var first *changeset.Plan
	if running {
		in = stack.Input{Release: r, Running: true}
		if in.Image, err = p.imageOf(s.Blueprint, r); err != nil {
			return nil, err
		}
		if _, first, err = t.planAhead(ctx); err != nil {
			return nil, err
		}
	}
	d, planned, err := t.planned(ctx, in)
	if !running && errors.Is(err, changeset.ErrStuck) {
		return nil, nil //nolint:nilnil // what runs is stopped without its stack, and the step says so
	}
	if err != nil {
		return nil, err
	}
	if running {
		if err := keepsStores(planned); err != nil {
			return nil, errors.Join(err, d.Discard(ctx, planned))
		}
	}
	out := &registryv1.StackChange{Stack: planned.Stack, ChangeSet: planned.ID}
	if first != nil {
		out.ChangeSet, out.ThenTemplate = first.ID, planned.Template
		// It says what both will do, and nobody carries it out: the first one makes it void.
		if err := d.Discard(ctx, planned); err != nil {
			return nil, err
		}
	}
	for _, c := range planned.Changes {
		out.Changes = append(out.Changes, c.String())
		if c.Denied() {
			out.Denied = append(out.Denied, c.String())
		}
	}
	if _, stores := stack.Keeping(t.place, s.Blueprint, t.id, there); running && planned.ID != "" {
		for _, name := range stores {
			out.Changes = append(out.Changes, kept(name, r))
		}
	}
	return out, nil
}

// kept says in a plan's words that a set is brought to a release without a store that its stack has.
func kept(store string, r platform.Release) string {
	return fmt.Sprintf("keeps the bucket of store %s, which release %s doesn't have, with what is in it: no component reaches it, no backup and no export has it; a release that has it uses it again, and it goes when the tenant leaves", store, r.Version)
}

// keepsStores refuses a change by which a store goes all the same, as that of a stack that doesn't tell which it has: what is in it would be lost.
func keepsStores(p *changeset.Plan) error {
	for _, c := range p.Changes {
		if c.Action == "Remove" && c.Type == "AWS::S3::Bucket" {
			return fault.New(fault.FailedPrecondition, "the change of stack %s takes a store away that its outputs don't tell of (%s), with what is in it: nothing is planned; see by fleet status --inspect what was changed by hand", p.Stack, c.ID)
		}
	}
	return nil
}

// Stands implements platform.Foreseer.
func (p *Platform) Stands(ctx context.Context, s platform.Set, c *registryv1.StackChange) error {
	t, err := p.of(ctx, s)
	if err != nil {
		return err
	}
	if err := t.ofPlan(c); err != nil || c.GetChangeSet() == "" {
		return err
	}
	d, err := changeset.Open(ctx, t.cfg, t.at(), t.place.Templates())
	if err != nil {
		return err
	}
	_, err = d.Standing(ctx, c.GetStack(), c.GetChangeSet())
	return err
}

// ofPlan refuses the plan of another stack.
func (t *tenant) ofPlan(c *registryv1.StackChange) error {
	if c.GetStack() == t.stackName() {
		return nil
	}
	return fault.New(fault.FailedPrecondition, "the plan changes stack %s, and that of tenant %s is %s: nothing was changed", c.GetStack(), t.id, t.stackName())
}

// changeAsPlanned carries out the change set that the plan names, and no other, or what the plan says of what follows it. One that was begun, and whose end
// nobody saw, is waited for.
func (t *tenant) changeAsPlanned(ctx context.Context, in stack.Input) (changed bool, err error) {
	c := t.set.Planned
	if err := t.ofPlan(c); err != nil {
		return false, err
	}
	if c.GetThenTemplate() != "" {
		return t.changeAfter(ctx, in)
	}
	if c.GetChangeSet() != "" {
		d, err := changeset.Open(ctx, t.cfg, t.at(), t.place.Templates())
		if err != nil {
			return false, err
		}
		_, err = d.Standing(ctx, c.GetStack(), c.GetChangeSet())
		if err == nil {
			if err := t.lifted(ctx, d); err != nil {
				return false, err
			}
			return true, d.Execute(ctx, &changeset.Plan{ID: c.GetChangeSet(), Stack: c.GetStack()})
		}
		if !errors.Is(err, changeset.ErrGone) {
			return false, err
		}
		if same, other := t.isAs(ctx, in); other != nil || same {
			return false, other
		}
		return false, err
	}
	same, err := t.isAs(ctx, in)
	if err == nil && !same {
		err = fault.New(fault.FailedPrecondition, "by the plan stack %s stays as it is, and it isn't any more as it was then: nothing was changed, make the plan anew", c.GetStack())
	}
	return false, err
}

// lifted refuses what the stack's policy denies, until somebody has lifted that. CloudFormation does, too, and takes back then what it had
// changed before.
func (t *tenant) lifted(ctx context.Context, d *changeset.Driver) error {
	c := t.set.Planned
	if len(c.GetDenied()) == 0 {
		return nil
	}
	lifted, err := d.Lifted(ctx, c.GetStack())
	if err == nil && !lifted {
		err = fault.Wrap(fault.FailedPrecondition, changeset.ErrLoses, "the change set %s would lose data (%s), and the policy of stack %s denies it: nothing was changed; the plan says how to lift the policy, if that is meant",
			c.GetChangeSet(), strings.Join(c.GetDenied(), ", "), c.GetStack())
	}
	return err
}

// isAs says whether the stack is already as it is to be.
func (t *tenant) isAs(ctx context.Context, in stack.Input) (bool, error) {
	d, p, err := t.planned(ctx, in)
	if err != nil {
		return false, err
	}
	if err := d.Discard(ctx, p); err != nil {
		return false, fmt.Errorf("look whether stack %s is as it is to be: %w", t.stackName(), err)
	}
	return p.ID == "", nil
}
