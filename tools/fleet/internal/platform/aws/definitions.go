package aws

import (
	"context"
	"fmt"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// families are those of the set's task definitions: each component's, and of what runs to its end beside them.
func (t *tenant) families() (out []string) {
	for _, c := range t.set.Blueprint.Components {
		out = append(out, t.place.Service(t.id, c.Name))
	}
	return append(out, t.place.Service(t.id, stack.Migration), t.place.Service(t.id, stack.OneOff))
}

// revisions are the set's task definitions in a status, as ARNs.
func (t *tenant) revisions(ctx context.Context, status types.TaskDefinitionStatus) (out []string, err error) {
	for _, family := range t.families() {
		pages := ecs.NewListTaskDefinitionsPaginator(ecs.NewFromConfig(t.cfg), &ecs.ListTaskDefinitionsInput{FamilyPrefix: &family, Status: status})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("look for task definitions of %s: %w", t.id, err)
			}
			out = append(out, page.TaskDefinitionArns...)
		}
	}
	return out, nil
}

// mostDeleted is how many task definitions one call deletes.
// https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html
const mostDeleted = 10

// deleteDefinitions deletes every revision that the set ever had. CloudFormation and fleet deregister what they replace, and what is deregistered
// ECS tells of, with names and addresses, until somebody deletes it.
func (t *tenant) deleteDefinitions(ctx context.Context) (changed bool, err error) {
	client := ecs.NewFromConfig(t.cfg)
	active, err := t.revisions(ctx, types.TaskDefinitionStatusActive)
	if err != nil {
		return false, err
	}
	for _, revision := range active {
		if _, err := client.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &revision}); err != nil {
			return changed, fmt.Errorf("deregister %s: %w", revision, err)
		}
		changed = true
	}
	inactive, err := t.revisions(ctx, types.TaskDefinitionStatusInactive)
	if err != nil {
		return changed, err
	}
	for some := range slices.Chunk(inactive, mostDeleted) {
		out, err := client.DeleteTaskDefinitions(ctx, &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: some})
		if err != nil {
			return changed, fmt.Errorf("delete task definitions of %s: %w", t.id, err)
		}
		if len(out.Failures) > 0 {
			return changed, fmt.Errorf("ECS deletes no task definition %s: %s", sdk.ToString(out.Failures[0].Arn), reasons(out.Failures))
		}
		changed = true
	}
	return changed, nil
}

// leftDefinitions are those that nobody deletes. One that is being deleted is gone as soon as ECS sees no task of it.
func (t *tenant) leftDefinitions(ctx context.Context) (out []string, err error) {
	for _, status := range []types.TaskDefinitionStatus{types.TaskDefinitionStatusActive, types.TaskDefinitionStatusInactive} {
		left, err := t.revisions(ctx, status)
		if err != nil {
			return nil, err
		}
		for _, revision := range left {
			out = append(out, "task definition "+revision)
		}
	}
	return out, nil
}
