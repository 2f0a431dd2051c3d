package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// migrate runs the migration of a release to its end. The stack is still that of the release before: its definition of the task is taken with
// the new release's image, for as long as it runs.
func (t *tenant) migrate(ctx context.Context, r platform.Release) error {
	definition, err := t.migration(ctx, r)
	if err != nil {
		return err
	}
	client := ecs.NewFromConfig(t.cfg)
	run := func() error {
		network, err := t.network(ctx)
		if err != nil {
			return err
		}
		out, err := client.RunTask(ctx, &ecs.RunTaskInput{Cluster: sdk.String(t.place.Cluster()), TaskDefinition: &definition, LaunchType: types.LaunchTypeFargate, NetworkConfiguration: network,
			StartedBy: sdk.String("fleet")})
		if err != nil {
			return err
		}
		if len(out.Failures) > 0 || len(out.Tasks) == 0 {
			return fmt.Errorf("ECS starts no task: %s", reasons(out.Failures))
		}
		return t.toItsEnd(ctx, client, sdk.ToString(out.Tasks[0].TaskArn))
	}
	err = run()
	_, gone := client.DeregisterTaskDefinition(context.WithoutCancel(ctx), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &definition})
	return errors.Join(err, gone)
}

// migration registers the task.
func (t *tenant) migration(ctx context.Context, r platform.Release) (string, error) {
	image, _, err := t.image(ctx, t.set.Blueprint, r)
	if err != nil {
		return "", err
	}
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return "", err
	}
	client := ecs.NewFromConfig(t.cfg)
	got, err := client.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: sdk.String(told[stack.MigrationOutput])})
	if err != nil {
		return "", fmt.Errorf("look at the task that migrates: %w", err)
	}
	d := got.TaskDefinition
	for i, c := range d.ContainerDefinitions {
		repository, _, _ := strings.Cut(sdk.ToString(c.Image), "@")
		d.ContainerDefinitions[i].Image = sdk.String(repository + "@" + image)
	}
	made, err := client.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: d.Family, ContainerDefinitions: d.ContainerDefinitions, Cpu: d.Cpu, Memory: d.Memory,
		ExecutionRoleArn: d.ExecutionRoleArn, NetworkMode: d.NetworkMode, RequiresCompatibilities: d.RequiresCompatibilities, RuntimePlatform: d.RuntimePlatform, Volumes: d.Volumes,
		Tags: []types.Tag{{Key: sdk.String("plane"), Value: &t.place.Plane}, {Key: sdk.String("tenant"), Value: &t.id}}})
	if err != nil {
		return "", fmt.Errorf("register the task that migrates: %w", err)
	}
	return sdk.ToString(made.TaskDefinition.TaskDefinitionArn), nil
}

// network is where a component that logs in to the database stands: the migration does no more than that.
func (t *tenant) network(ctx context.Context) (*types.NetworkConfiguration, error) {
	services, err := t.services(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range t.set.Blueprint.Components {
		if s, there := services[c.Name]; there && len(c.Needs.Database) > 0 && !c.Needs.Outside {
			return s.NetworkConfiguration, nil
		}
	}
	return nil, fmt.Errorf("no service of %s says where in the network its database is reached from", t.id)
}

// toItsEnd returns when a task ended well.
func (t *tenant) toItsEnd(ctx context.Context, client *ecs.Client, task string) error {
	in := &ecs.DescribeTasksInput{Cluster: sdk.String(t.place.Cluster()), Tasks: []string{task}}
	out, err := ecs.NewTasksStoppedWaiter(client, func(o *ecs.TasksStoppedWaiterOptions) { o.MinDelay, o.MaxDelay = looksEvery, 4*looksEvery }).WaitForOutput(ctx, in, migratesWithin)
	if err != nil {
		return err
	}
	if len(out.Tasks) == 0 {
		return fmt.Errorf("task %s is gone", task)
	}
	for _, c := range out.Tasks[0].Containers {
		if sdk.ToInt32(c.ExitCode) != 0 || c.ExitCode == nil && sdk.ToString(c.Name) == stack.Migration {
			return t.why(ctx, stack.Migration, "failed: "+sdk.ToString(out.Tasks[0].StoppedReason))
		}
	}
	return nil
}

func reasons(failures []types.Failure) string {
	var out []string
	for _, f := range failures {
		out = append(out, sdk.ToString(f.Reason)+" "+sdk.ToString(f.Detail))
	}
	return strings.Join(out, "; ")
}
