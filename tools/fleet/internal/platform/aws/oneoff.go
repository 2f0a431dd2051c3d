package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
)

// oneOff is a program that is run to its end as a task of the set, beside what runs.
type oneOff struct {
	// component whose definition is taken: what its tasks are given and started with, and where in the network they stand.
	component string
	// command and environ in the place of the component's; no command for its own.
	command []string
	environ []string
	// image in the place of the component's, a digest; empty for its own.
	image string
	// role that it calls AWS as, an ARN; empty for the component's own. bare leaves out what the component is given.
	role string
	bare bool
	// lines that it says at least; none where nobody knows. unheard is one whose end says all.
	lines   int
	unheard bool
}

// run runs a one-off program, and answers what it said, by lines, and how it ended.
func (t *tenant) run(ctx context.Context, o oneOff) (said []string, code int, err error) {
	network, err := t.networkOf(ctx, o.component)
	if err != nil {
		return nil, 0, err
	}
	definition, err := t.definitionOf(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	client := ecs.NewFromConfig(t.cfg)
	defer func() {
		_, gone := client.DeregisterTaskDefinition(context.WithoutCancel(ctx), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &definition})
		err = errors.Join(err, gone)
	}()
	out, err := client.RunTask(ctx, &ecs.RunTaskInput{Cluster: sdk.String(t.place.Cluster()), TaskDefinition: &definition, LaunchType: types.LaunchTypeFargate, NetworkConfiguration: network,
		StartedBy: sdk.String("fleet")})
	if err != nil {
		return nil, 0, fmt.Errorf("start a task of %s: %w", t.id, err)
	}
	if len(out.Failures) > 0 || len(out.Tasks) == 0 {
		return nil, 0, fmt.Errorf("ECS starts no task: %s", reasons(out.Failures))
	}
	task := sdk.ToString(out.Tasks[0].TaskArn)
	if code, err = t.ended(ctx, client, task, o.component); err != nil {
		return nil, 0, err
	}
	if !o.unheard {
		said, err = t.saidBy(ctx, o, task)
	}
	return said, code, err
}

// definitionOf registers the task of a one-off program.
func (t *tenant) definitionOf(ctx context.Context, o oneOff) (string, error) {
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return "", err
	}
	of := told[stack.TaskOutput(o.component)]
	if o.component == stack.Migration {
		of = told[stack.MigrationOutput]
	}
	if of == "" {
		return "", t.unsaid(o.component)
	}
	client := ecs.NewFromConfig(t.cfg)
	got, err := client.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &of})
	if err != nil {
		return "", fmt.Errorf("look at the task of %s of %s: %w", o.component, t.id, err)
	}
	d := got.TaskDefinition
	var containers []types.ContainerDefinition
	for _, c := range d.ContainerDefinitions {
		own := sdk.ToString(c.Name) == o.component
		if !own && o.bare {
			continue
		}
		if o.image != "" {
			repository, _, _ := strings.Cut(sdk.ToString(c.Image), "@")
			c.Image = sdk.String(repository + "@" + o.image)
		}
		if own {
			o.replace(&c)
		}
		containers = append(containers, c)
	}
	role := d.TaskRoleArn
	if o.role != "" {
		role = &o.role
	}
	made, err := client.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: sdk.String(t.place.Service(t.id, stack.OneOff)), ContainerDefinitions: containers, Cpu: d.Cpu, Memory: d.Memory,
		ExecutionRoleArn: d.ExecutionRoleArn, TaskRoleArn: role, NetworkMode: d.NetworkMode, RequiresCompatibilities: d.RequiresCompatibilities, RuntimePlatform: d.RuntimePlatform, Volumes: d.Volumes,
		Tags: t.tags()})
	if err != nil {
		return "", fmt.Errorf("register a task of %s: %w", t.id, err)
	}
	return sdk.ToString(made.TaskDefinition.TaskDefinitionArn), nil
}

// tags are those of what is the set's.
func (t *tenant) tags() []types.Tag {
	tags := []types.Tag{{Key: sdk.String("plane"), Value: &t.place.Plane}}
	if !t.set.Tenant.IsZero() {
		tags = append(tags, types.Tag{Key: sdk.String("tenant"), Value: &t.id})
	}
	return tags
}

// replace has the component's container run the program: nobody calls it, and nothing waits until it serves. What migrates is one itself.
func (o oneOff) replace(c *types.ContainerDefinition) {
	if len(o.command) == 0 {
		return
	}
	c.Command, c.PortMappings, c.HealthCheck, c.Environment = o.command, nil, nil, nil
	for _, variable := range o.environ {
		name, value, _ := strings.Cut(variable, "=")
		c.Environment = append(c.Environment, types.KeyValuePair{Name: &name, Value: &value})
	}
	if o.bare {
		c.DependsOn = nil
	}
}

// ended returns with its exit code when a task ended.
func (t *tenant) ended(ctx context.Context, client *ecs.Client, task, component string) (int, error) {
	in := &ecs.DescribeTasksInput{Cluster: sdk.String(t.place.Cluster()), Tasks: []string{task}}
	out, err := ecs.NewTasksStoppedWaiter(client, func(o *ecs.TasksStoppedWaiterOptions) { o.MinDelay, o.MaxDelay = looksEvery, 4*looksEvery }).WaitForOutput(ctx, in, migratesWithin)
	if err != nil {
		return 0, fmt.Errorf("wait for a task of %s: %w", t.id, err)
	}
	if len(out.Tasks) == 0 {
		return 0, fmt.Errorf("task %s is gone", task)
	}
	for _, c := range out.Tasks[0].Containers {
		if sdk.ToString(c.Name) == component && c.ExitCode != nil {
			return int(*c.ExitCode), nil
		}
	}
	return 0, t.why(ctx, component, "did not run: "+sdk.ToString(out.Tasks[0].StoppedReason))
}

// saidWithin is how long what a task said may take to be in its log after it ended.
const saidWithin = 30 * time.Second

// saidBy are the lines that the program's container of a task said. One that said nothing is waited for as long as lines may take.
func (t *tenant) saidBy(ctx context.Context, o oneOff, task string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, saidWithin)
	defer cancel()
	client, group := cloudwatchlogs.NewFromConfig(t.cfg), t.place.LogGroup(t.id, o.component)
	stream := o.component + "/" + o.component + "/" + task[strings.LastIndex(task, "/")+1:]
	tick := time.NewTicker(looksEvery)
	defer tick.Stop()
	var last int
	for {
		lines, err := linesOf(ctx, client, group, stream)
		if err != nil && !gone(err) && ctx.Err() == nil {
			return nil, fmt.Errorf("read what a task of %s said: %w", t.id, err)
		}
		// Lines come one after another: they are all there when no more come.
		if len(lines) > 0 && len(lines) == last && len(lines) >= o.lines {
			return lines, nil
		}
		last = len(lines)
		select {
		case <-ctx.Done():
			return lines, nil //nolint:nilerr // a task may say nothing
		case <-tick.C:
		}
	}
}

func linesOf(ctx context.Context, client *cloudwatchlogs.Client, group, stream string) ([]string, error) {
	in := &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: &stream, StartFromHead: sdk.Bool(true)}
	var out []string
	for {
		got, err := client.GetLogEvents(ctx, in)
		if err != nil {
			return out, err
		}
		for _, e := range got.Events {
			out = append(out, strings.TrimSpace(sdk.ToString(e.Message)))
		}
		// At its end a stream answers the token that it was asked with.
		if len(got.Events) == 0 || sdk.ToString(got.NextForwardToken) == sdk.ToString(in.NextToken) {
			return out, nil
		}
		in.NextToken = got.NextForwardToken
	}
}

// networkOf is where in the network a component stands; what migrates stands where the database is reached from.
func (t *tenant) networkOf(ctx context.Context, component string) (*types.NetworkConfiguration, error) {
	if component == stack.Migration {
		return t.network(ctx)
	}
	services, err := t.services(ctx)
	if err != nil {
		return nil, err
	}
	s, there := services[component]
	if !there {
		return nil, fmt.Errorf("service %s is not there: see aws ecs describe-services --cluster %s", t.place.Service(t.id, component), t.place.Cluster())
	}
	return s.NetworkConfiguration, nil
}

// program runs one of the blueprint's, as a task of the component that logs in as it does, and answers the last line that it said.
func (t *tenant) program(ctx context.Context, r platform.Release, program blueprint.OneOff, facts blueprint.Facts) (said string, code int, err error) {
	component := local.Migrator
	facts.DatabaseURLs = map[string]string{}
	for _, role := range program.Database {
		if as := local.Holder(t.set.Blueprint, role); component == local.Migrator || component == as {
			component = as
		} else {
			return "", 0, fmt.Errorf("%s logs in as roles of %s and of %s: no task is given both", strings.Join(program.Command, " "), component, as)
		}
		facts.DatabaseURLs[role] = stack.DatabaseFile(role)
	}
	env, err := facts.Environ(program.Env)
	if err != nil {
		return "", 0, err
	}
	image, _, err := t.image(ctx, t.set.Blueprint, r)
	if err != nil {
		return "", 0, err
	}
	lines, code, err := t.run(ctx, oneOff{component: component, command: program.Command, environ: env, image: image})
	if len(lines) > 0 {
		said = lines[len(lines)-1]
	}
	return said, code, err
}

// OneOff implements local.Places.
func (p *Platform) OneOff(ctx context.Context, s platform.Set, r platform.Release, program blueprint.OneOff, facts blueprint.Facts) (string, error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return "", err
	}
	if _, err := t.give(ctx); err != nil {
		return "", err
	}
	said, code, err := t.program(ctx, r, program, facts)
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with %d", code)
	}
	return said, err
}

// RecoverAdmin lets a tenant's admin redeem a setup code, with the set's own program and credentials.
func (p *Platform) RecoverAdmin(ctx context.Context, s platform.Set, r blueprint.Recovery) error {
	program := s.Blueprint.RecoverAdmin
	if len(program.Command) == 0 {
		return local.NoWayBack(s)
	}
	running, err := platform.ParseRelease(p.State.Runs()[s.Name()])
	if err != nil {
		return fmt.Errorf("find what the set of %s runs: %w", s.Slug, err)
	}
	facts := blueprint.Facts{Plane: p.State.Plane, Tenant: s.Tenant.String(), Recovery: &r}
	if facts.MarkKeys, err = p.Machine.MarkKeys(); err != nil {
		return err
	}
	t, err := p.of(ctx, s)
	if err != nil {
		return err
	}
	said, code, err := t.program(ctx, running, program, facts)
	switch {
	case err != nil:
		return fmt.Errorf("let %s in again: %w", r.Email, err)
	case code == local.RefusedExit:
		return local.NotLetIn(r, said)
	case code != 0:
		return fault.New(fault.Unavailable, "let %s in again: the task ended with %d: %s", r.Email, code, said)
	}
	return nil
}
