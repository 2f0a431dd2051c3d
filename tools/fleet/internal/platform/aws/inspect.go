package aws

import (
	"context"
	"fmt"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/drift"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Inspect implements platform.Inspector: what of the set's stack isn't as the release's template has it.
func (p *Platform) Inspect(ctx context.Context, s platform.Set, r platform.Release) ([]platform.Difference, error) {
	t, template, err := p.released(ctx, s, r)
	if err != nil {
		return nil, err
	}
	return drift.Find(ctx, t.cfg, t.stackName(), template)
}

// Mend implements platform.Inspector. Of a set that isn't there nobody changed anything: Start makes it.
func (p *Platform) Mend(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	t, template, err := p.released(ctx, s, r)
	if err != nil {
		return false, err
	}
	if there, err := t.outputs(ctx, t.stackName()); err != nil || there == nil {
		return false, err
	}
	return drift.Mend(ctx, t.cfg, t.stackName(), template)
}

// released is the template of a set that runs a release.
func (p *Platform) released(ctx context.Context, s platform.Set, r platform.Release) (*tenant, []byte, error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	image := p.State.Images()[imageKey(s.Blueprint, r)]
	if image == "" {
		return nil, nil, fmt.Errorf("which image release %s was pushed as is not known here: look from the machine that it was applied from", r)
	}
	template, err := t.render(t.input(stack.Input{Release: r, Image: image, Running: true}))
	if err != nil {
		return nil, nil, err
	}
	text, err := template.JSON()
	if err == nil && p.emulated != nil {
		text, err = p.emulated(text)
	}
	return t, text, err
}
