// Package drift says in sentences what of a deployed stack isn't as its template has it: what CloudFormation finds, and what it doesn't look at or
// looks at late, which is whom policies let in and what services run. It compares with the template of the release that the registry has, and not
// with what was deployed the last time, so that a stack that somebody changed by CloudFormation is found too. It changes something only in Mend.
package drift

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"a3os.app/libs/clip"
	"a3os.app/tools/fleet/internal/platform"
)

// mostTold is what of a value a sentence has room for, in bytes.
const mostTold = 120

// found is a difference, and what puts it right; nil where the provisioner may not.
type found struct {
	platform.Difference
	mend func(ctx context.Context) error
}

// Find names what of a stack isn't as a template has it, in the order of the template's ids.
func Find(ctx context.Context, cfg aws.Config, stack string, template []byte) ([]platform.Difference, error) {
	all, err := find(ctx, cfg, stack, template)
	out := make([]platform.Difference, 0, len(all))
	for _, f := range all {
		out = append(out, f.Difference)
	}
	return out, err
}

// Mend puts right what the provisioner may, one thing at a time, and says whether there was anything. What is left is what Find finds after it.
func Mend(ctx context.Context, cfg aws.Config, stack string, template []byte) (changed bool, err error) {
	all, err := find(ctx, cfg, stack, template)
	if err != nil {
		return false, err
	}
	var faults []error
	for _, f := range all {
		if f.mend == nil {
			continue
		}
		changed = true
		if err := f.mend(ctx); err != nil {
			faults = append(faults, fmt.Errorf("put %s of stack %s right: %w", f.Resource, stack, err))
		}
	}
	return changed, errors.Join(faults...)
}

func find(ctx context.Context, cfg aws.Config, stack string, template []byte) ([]found, error) {
	d := &deployed{stack: stack, cfg: cfg, client: cloudformation.NewFromConfig(cfg), physical: map[string]string{}, known: map[string]string{}}
	if err := json.Unmarshal(template, &d.template); err != nil {
		return nil, fmt.Errorf("read the template of stack %s: %w", stack, err)
	}
	if err := d.read(ctx); err != nil {
		return nil, err
	}
	out, err := d.otherTemplate(ctx)
	if err != nil {
		return nil, err
	}
	looked, err := d.look(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, looked...)
	theirs, err := d.cloudFormation(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range theirs {
		// Our own sentence says more.
		if !slices.ContainsFunc(looked, func(l found) bool { return l.Resource == f.Resource }) {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b found) int { return cmp.Compare(a.Resource, b.Resource) })
	return out, nil
}

// resource is one of a template.
type resource struct {
	Type       string
	Properties map[string]any
}

// deployed is a stack that is looked at.
type deployed struct {
	stack    string
	cfg      aws.Config
	client   *cloudformation.Client
	template struct{ Resources map[string]resource }
	// physical are what resources are called at AWS, by their ids; known are parameters, and what other stacks export, by name.
	physical, known map[string]string
	account         string
}

// read reads what the stack's names come out as.
func (d *deployed) read(ctx context.Context) error {
	out, err := d.client.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &d.stack})
	if err != nil || len(out.Stacks) == 0 {
		return fmt.Errorf("look at stack %s: %w", d.stack, err)
	}
	d.account = accountOf(aws.ToString(out.Stacks[0].StackId))
	for _, p := range out.Stacks[0].Parameters {
		d.known[aws.ToString(p.ParameterKey)] = aws.ToString(p.ParameterValue)
	}
	pages := cloudformation.NewListStackResourcesPaginator(d.client, &cloudformation.ListStackResourcesInput{StackName: &d.stack})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list what stack %s holds: %w", d.stack, err)
		}
		for _, r := range page.StackResourceSummaries {
			d.physical[aws.ToString(r.LogicalResourceId)] = aws.ToString(r.PhysicalResourceId)
		}
	}
	exports := cloudformation.NewListExportsPaginator(d.client, &cloudformation.ListExportsInput{})
	for exports.HasMorePages() {
		page, err := exports.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list what stacks tell each other: %w", err)
		}
		for _, e := range page.Exports {
			d.known[exportPrefix+aws.ToString(e.Name)] = aws.ToString(e.Value)
		}
	}
	return nil
}

// otherTemplate names what the stack was deployed with that the release's template doesn't have.
func (d *deployed) otherTemplate(ctx context.Context) ([]found, error) {
	out, err := d.client.GetTemplate(ctx, &cloudformation.GetTemplateInput{StackName: &d.stack, TemplateStage: types.TemplateStageOriginal})
	if err != nil {
		return nil, fmt.Errorf("read what stack %s was deployed with: %w", d.stack, err)
	}
	var have struct{ Resources map[string]resource }
	if err := json.Unmarshal([]byte(aws.ToString(out.TemplateBody)), &have); err != nil {
		return []found{d.say("", "the stack was deployed with a template that is not fleet's: %v", err)}, nil
	}
	var all []found
	for _, id := range slices.Sorted(maps.Keys(have.Resources)) {
		if _, is := d.template.Resources[id]; !is {
			all = append(all, d.say(id, "%s (%s) is in the stack, and not in the release's template", id, have.Resources[id].Type))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.template.Resources)) {
		h, is := have.Resources[id]
		switch {
		case !is:
			all = append(all, d.say(id, "%s (%s) is in the release's template, and not in the stack", id, d.template.Resources[id].Type))
		case !same(h, d.template.Resources[id]):
			all = append(all, d.say(id, "%s was deployed with other properties than the release's template has", id))
		}
	}
	return all, nil
}

// say is a difference that a change of the stack puts right.
func (d *deployed) say(id, format string, args ...any) found {
	return found{Difference: platform.Difference{Resource: cmp.Or(id, d.stack), Reason: fmt.Sprintf(format, args...), Next: "fleet plan upgrade --tenant TENANT --release RELEASE --reason '…': the stack is changed by a change set"}}
}

// detectWithin is how long CloudFormation may take to look.
const detectWithin = 10 * time.Minute

// cloudFormation is what CloudFormation itself finds.
func (d *deployed) cloudFormation(ctx context.Context) ([]found, error) {
	ctx, cancel := context.WithTimeout(ctx, detectWithin)
	defer cancel()
	begun, err := d.client.DetectStackDrift(ctx, &cloudformation.DetectStackDriftInput{StackName: &d.stack})
	if err != nil {
		return nil, fmt.Errorf("have CloudFormation look at stack %s: %w", d.stack, err)
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		now, err := d.client.DescribeStackDriftDetectionStatus(ctx, &cloudformation.DescribeStackDriftDetectionStatusInput{StackDriftDetectionId: begun.StackDriftDetectionId})
		if err != nil {
			return nil, fmt.Errorf("ask whether CloudFormation has looked at stack %s: %w", d.stack, err)
		}
		if now.DetectionStatus == types.StackDriftDetectionStatusDetectionFailed {
			return nil, fmt.Errorf("CloudFormation could not look at all of stack %s: %s", d.stack, aws.ToString(now.DetectionStatusReason))
		}
		if now.DetectionStatus != types.StackDriftDetectionStatusDetectionInProgress {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("CloudFormation did not finish to look at stack %s: %w", d.stack, ctx.Err())
		case <-tick.C:
		}
	}
	var all []found
	pages := cloudformation.NewDescribeStackResourceDriftsPaginator(d.client, &cloudformation.DescribeStackResourceDriftsInput{StackName: &d.stack,
		StackResourceDriftStatusFilters: []types.StackResourceDriftStatus{types.StackResourceDriftStatusModified, types.StackResourceDriftStatusDeleted}})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("read what CloudFormation found of stack %s: %w", d.stack, err)
		}
		for _, r := range page.StackResourceDrifts {
			if f, is := d.theirs(r); is {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// theirs says what CloudFormation found of a resource, where it is something.
func (d *deployed) theirs(r types.StackResourceDrift) (found, bool) {
	id := aws.ToString(r.LogicalResourceId)
	if r.StackResourceDriftStatus == types.StackResourceDriftStatusDeleted {
		return d.say(id, "%s (%s) was deleted", id, aws.ToString(r.ResourceType)), true
	}
	differs := d.beside(r)
	if len(differs) == 0 && len(r.PropertyDifferences) > 0 {
		return found{}, false
	}
	text := fmt.Sprintf("%s (%s) was changed", id, aws.ToString(r.ResourceType))
	for _, p := range differs {
		text += fmt.Sprintf("; %s is %s, and the template says %s", aws.ToString(p.PropertyPath), clip.Text(aws.ToString(p.ActualValue), mostTold), clip.Text(aws.ToString(p.ExpectedValue), mostTold))
	}
	f := d.say(id, "%s", text)
	f.Next = "aws cloudformation create-change-set --deployment-mode REVERT_DRIFT --stack-name " + d.stack
	return f, true
}
