package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/failpoint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// What a set's tasks are given is written, and what they use is marked, before any of them starts, so that a component, a store or a queue which the set's
// stack lacks can't come with the change that starts it. The stack is changed twice then: by fleet itself, who may make services, so that it has what it
// lacked and runs nothing of it, and by who starts the set. CloudFormation plans the second change only when the first one is made, so that a plan names the
// first by its change set, and the second by its template and what it does.

// planAhead is a change set by which the set's stack has what it lacks; nil where it lacks nothing.
func (t *tenant) planAhead(ctx context.Context) (*changeset.Driver, *changeset.Plan, error) {
	d, err := changeset.Open(ctx, t.cfg, t.at(), t.place.Templates())
	if err != nil {
		return nil, nil, err
	}
	deployed, parameters, err := d.Deployed(ctx, t.stackName())
	if err != nil {
		return nil, nil, err
	}
	whole, err := t.render(t.input(stack.Input{Image: nothing}))
	if err != nil {
		return nil, nil, err
	}
	next, err := whole.JSON()
	if err != nil {
		return nil, nil, err
	}
	ahead, err := stack.Ahead(deployed, next)
	if err != nil || ahead == nil {
		return nil, nil, err
	}
	told, err := t.parameters(whole)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range told {
		// Who runs is told what it was.
		if _, is := parameters[name]; !is {
			parameters[name] = value
		}
	}
	p, err := d.Make(ctx, t.stackName(), ahead, parameters)
	return d, p, err
}

// ahead has the set's stack have what it lacks, running nothing of it, and what carries a mark be marked.
func (t *tenant) ahead(ctx context.Context) (changed bool, err error) {
	c := t.set.Planned
	if changed, err = t.changeAhead(ctx, c); err != nil || c == nil && !changed {
		return changed, err
	}
	if err := failpoint.Here("fleet.set.ahead"); err != nil {
		return changed, err
	}
	// Who was killed before this may have been given up, and the plan made anew by which the stack lacks nothing.
	did, err := t.markAhead(ctx)
	return changed || did, err
}

func (t *tenant) changeAhead(ctx context.Context, c *registryv1.StackChange) (changed bool, err error) {
	if c != nil {
		return t.changeAheadAsPlanned(ctx, c)
	}
	_, p, err := t.planAhead(ctx)
	if err != nil || p == nil {
		return false, err
	}
	if err := keepsAll(p); err != nil {
		return false, err
	}
	return true, t.makeAhead(ctx, p)
}

// changeAheadAsPlanned carries out the change set that the plan names, where it is of this kind. One that was begun, and whose end nobody saw, is waited for.
func (t *tenant) changeAheadAsPlanned(ctx context.Context, c *registryv1.StackChange) (changed bool, err error) {
	if c.GetThenTemplate() == "" {
		return false, nil
	}
	if err := t.ofPlan(c); err != nil {
		return false, err
	}
	d, err := changeset.Open(ctx, t.cfg, t.at(), t.place.Templates())
	if err != nil {
		return false, err
	}
	_, err = d.Standing(ctx, c.GetStack(), c.GetChangeSet())
	if err == nil {
		return true, t.makeAhead(ctx, &changeset.Plan{ID: c.GetChangeSet(), Stack: c.GetStack()})
	}
	if !errors.Is(err, changeset.ErrGone) {
		return false, err
	}
	// One that was carried out may be forgotten.
	d, p, other := t.planAhead(ctx)
	if other != nil || p == nil {
		return false, other
	}
	return false, errors.Join(err, d.Discard(ctx, p))
}

// makeAhead carries a change set out by which the stack has what it lacked, as who may make services.
func (t *tenant) makeAhead(ctx context.Context, p *changeset.Plan) error {
	cfg, err := t.making(ctx, t)
	if err != nil {
		return err
	}
	d, err := changeset.Open(ctx, cfg, t.at(), t.place.Templates())
	if err != nil {
		return err
	}
	return d.Execute(ctx, p)
}

// keepsAll refuses a change by which data would be lost.
func keepsAll(p *changeset.Plan) error {
	for _, c := range p.Changes {
		if c.Loses() {
			return fmt.Errorf("the change of stack %s %s, which %w: nothing was changed", p.Stack, c, changeset.ErrLoses)
		}
	}
	return nil
}

// changeAfter carries out the second change of a plan: of the template that the plan names, and doing nothing that it doesn't say.
func (t *tenant) changeAfter(ctx context.Context, in stack.Input) (changed bool, err error) {
	c := t.set.Planned
	d, p, err := t.planned(ctx, in)
	if err != nil {
		return false, err
	}
	refuse := func(why string, args ...any) error {
		return errors.Join(fault.New(fault.FailedPrecondition, "stack %s was to be changed a second time, and %s: it has what it lacked, and nothing else was changed; make the plan anew", c.GetStack(), fmt.Sprintf(why, args...)),
			d.Discard(ctx, p))
	}
	if p.Template != c.GetThenTemplate() {
		return false, refuse("the plan is of the template %s, where this fleet renders %s", c.GetThenTemplate(), p.Template)
	}
	for _, change := range p.Changes {
		if !foreseen(c, change) {
			return false, refuse("the plan doesn't say that this does: %s", change)
		}
	}
	if p.ID != "" {
		if err := t.lifted(ctx, d); err != nil {
			return false, errors.Join(err, d.Discard(ctx, p))
		}
	}
	return p.ID != "" || p.Unprotected, d.Execute(ctx, p)
}

// foreseen says whether a plan says that a change is made. What it says more of is changed less, as what was added ahead; nothing goes with a definition that
// another takes the place of.
func foreseen(c *registryv1.StackChange, change changeset.Change) bool {
	harmless := change.Action == "Modify" && (!change.Replaces && !change.MayReplace || change.Type == "AWS::ECS::TaskDefinition")
	return slices.ContainsFunc(c.GetChanges(), func(line string) bool {
		return line == change.String() || harmless && strings.HasSuffix(line, " "+change.Of())
	})
}

// marksWithin is how long what the custodian was allowed may take to count: IAM and KMS tell all of AWS of it by and by.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
const marksWithin = 2 * time.Minute

// markAhead marks the set's queue and stores, which may be new.
func (t *tenant) markAhead(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, marksWithin)
	defer cancel()
	again := looks{time.Now()}
	for {
		did, err := t.markHeld(ctx)
		if changed = changed || did; err == nil || !denied(err) {
			return changed, err
		}
		select {
		case <-ctx.Done():
			return changed, err
		case <-again.next():
		}
	}
}
