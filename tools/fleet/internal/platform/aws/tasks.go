package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/failpoint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
	"a3os.app/tools/fleet/internal/platform/local"
)

const (
	startsWithin   = 15 * time.Minute
	migratesWithin = 30 * time.Minute
	looksEvery     = time.Second
	// looksAfter says how often the longer it was waited: after a sixteenth of that. A hundred tenants that start at once share the rate of
	// ECS's calls, and who waits for minutes learns nothing from another second.
	looksAfter = 16
)

// looks ticks each looksEvery first, and less and less often after sixteen times that.
type looks struct{ began time.Time }

func (l looks) next() <-chan time.Time {
	return time.After(max(looksEvery, time.Since(l.began)/looksAfter))
}

// services are the set's, by component; those that aren't there are missing.
func (t *tenant) services(ctx context.Context) (map[string]types.Service, error) {
	const most = 10
	names := map[string]string{}
	var list []string
	for _, c := range t.set.Blueprint.Components {
		name := t.place.Service(t.id, c.Name)
		names[name] = c.Name
		list = append(list, name)
	}
	out := map[string]types.Service{}
	for len(list) > 0 {
		n := min(most, len(list))
		got, err := ecs.NewFromConfig(t.cfg).DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: sdk.String(t.place.Cluster()), Services: list[:n]})
		if err != nil {
			if gone(err) {
				return nil, nil
			}
			return nil, fmt.Errorf("look at the services of %s: %w", t.id, err)
		}
		for _, s := range got.Services {
			if sdk.ToString(s.Status) == "ACTIVE" {
				out[names[sdk.ToString(s.ServiceName)]] = s
			}
		}
		list = list[n:]
	}
	return out, nil
}

func primary(s types.Service) types.Deployment {
	for _, d := range s.Deployments {
		if sdk.ToString(d.Status) == "PRIMARY" {
			return d
		}
	}
	return types.Deployment{}
}

// othersRun says whether a deployment other than the one in force has tasks. ECS goes on to tell of one that failed, which has none.
func othersRun(s types.Service) bool {
	return slices.ContainsFunc(s.Deployments, func(d types.Deployment) bool {
		return sdk.ToString(d.Status) != "PRIMARY" && d.RunningCount+d.PendingCount > 0
	})
}

// await returns when each service runs what the stack says and nothing else; a deployment that ECS gave up is told with what its task said.
func (t *tenant) await(ctx context.Context) error {
	want, err := t.definitions(ctx)
	if err != nil {
		return err
	}
	return t.until(ctx, func(services map[string]types.Service) (done bool, err error) {
		done = true
		for _, c := range t.set.Blueprint.Components {
			s, there := services[c.Name]
			if !there {
				return false, fmt.Errorf("service %s is gone: somebody deleted it", t.place.Service(t.id, c.Name))
			}
			// What the circuit breaker takes back is the stack's no more.
			if sdk.ToString(s.TaskDefinition) != want[c.Name] {
				return false, t.why(ctx, c.Name, "does not come up with the new release, and ECS went back to the one before")
			}
			d := primary(s)
			if d.RolloutState == types.DeploymentRolloutStateFailed {
				return false, t.why(ctx, c.Name, "does not come up: "+sdk.ToString(d.RolloutStateReason))
			}
			done = done && d.RolloutState == types.DeploymentRolloutStateCompleted && d.RunningCount >= s.DesiredCount && !othersRun(s)
		}
		return done, nil
	})
}

// awaitNothing returns when no task of the components runs.
func (t *tenant) awaitNothing(ctx context.Context, components ...blueprint.Component) error {
	return t.until(ctx, func(services map[string]types.Service) (bool, error) {
		for _, c := range components {
			if s := services[c.Name]; s.RunningCount+s.PendingCount > 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

func (t *tenant) until(ctx context.Context, look func(map[string]types.Service) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startsWithin)
	defer cancel()
	again := looks{time.Now()}
	for {
		services, err := t.services(ctx)
		if err != nil {
			return err
		}
		if done, err := look(services); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the services of %s did not settle within %s: see aws ecs describe-services --cluster %s", t.id, startsWithin, t.place.Cluster())
		case <-again.next():
		}
	}
}

// definitions are the task definitions that the stack has for components.
func (t *tenant) definitions(ctx context.Context) (map[string]string, error) {
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, c := range t.set.Blueprint.Components {
		if out[c.Name] = told[stack.TaskOutput(c.Name)]; out[c.Name] == "" {
			return nil, t.unsaid(c.Name)
		}
	}
	return out, nil
}

// unsaid is that the stack has no definition of a component's task.
func (t *tenant) unsaid(component string) error {
	return fmt.Errorf("stack %s does not say what %s runs: change it with this release of fleet", t.stackName(), component)
}

// why is a fault of a component with the last lines that it said.
func (t *tenant) why(ctx context.Context, component, what string) error {
	const lines = 5
	fault := fmt.Errorf("%s of %s %s", component, t.id, what)
	client := cloudwatchlogs.NewFromConfig(t.cfg)
	group := t.place.LogGroup(t.id, component)
	streams, err := client.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group, LogStreamNamePrefix: sdk.String(component + "/")})
	if err != nil || len(streams.LogStreams) == 0 {
		return fault
	}
	last := streams.LogStreams[0]
	for _, s := range streams.LogStreams {
		if sdk.ToInt64(s.LastEventTimestamp) > sdk.ToInt64(last.LastEventTimestamp) {
			last = s
		}
	}
	got, err := client.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: last.LogStreamName, Limit: sdk.Int32(lines)})
	if err != nil {
		return errors.Join(fault, err)
	}
	var said []string
	for _, e := range got.Events {
		said = append(said, strings.TrimSpace(sdk.ToString(e.Message)))
	}
	return fmt.Errorf("%w; it said last: %s", fault, strings.Join(said, " | "))
}

// Migrate implements platform.Platform: once for each release, as a task of its own.
func (p *Platform) Migrate(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil || len(d.Migrate.Command) == 0 || p.State.Migrated()[s.Name()] == r.String() {
		return false, nil
	}
	t, err := p.of(ctx, s)
	if err != nil {
		return false, err
	}
	// The release before runs on with what it is given.
	if _, err := t.give(ctx, stack.Migration); err != nil {
		return false, err
	}
	if err := t.migrate(ctx, r); err != nil {
		return false, fmt.Errorf("migrate database %s: %w", local.DatabaseName(s), err)
	}
	if err := failpoint.Here("fleet.set.migrated"); err != nil {
		return true, err
	}
	return true, p.State.SetMigrated(s.Name(), r.String())
}

// Components implements platform.Platform.
func (p *Platform) Components(ctx context.Context, s platform.Set) ([]platform.ComponentStatus, error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return nil, err
	}
	services, err := t.services(ctx)
	if err != nil {
		return nil, err
	}
	var out []platform.ComponentStatus
	for _, c := range s.Blueprint.Components {
		service, there := services[c.Name]
		if !there || service.DesiredCount == 0 && service.RunningCount == 0 {
			continue
		}
		d := primary(service)
		status := platform.ComponentStatus{Name: c.Name, State: stateOf(service.DesiredCount, d.RunningCount, d.RolloutState == types.DeploymentRolloutStateFailed),
			Since: sdk.ToTime(d.CreatedAt), Restarts: int(d.FailedTasks)}
		if status.Release, err = t.releaseOf(ctx, sdk.ToString(d.TaskDefinition)); err != nil {
			return nil, err
		}
		if status.State == platform.Failing {
			status.Detail = sdk.ToString(d.RolloutStateReason)
		}
		out = append(out, status)
	}
	return out, nil
}

// releaseOf is what a task definition says that it runs. A revision never changes, so that ECS is asked once.
func (t *tenant) releaseOf(ctx context.Context, definition string) (string, error) {
	if known, is := t.releases.Load(definition); is {
		return known.(string), nil
	}
	got, err := ecs.NewFromConfig(t.cfg).DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &definition})
	if err != nil {
		return "", fmt.Errorf("look at what %s runs: %w", t.id, err)
	}
	for _, c := range got.TaskDefinition.ContainerDefinitions {
		for _, kv := range c.Environment {
			if sdk.ToString(kv.Name) == "A3_RELEASE" {
				t.releases.Store(definition, sdk.ToString(kv.Value))
				return sdk.ToString(kv.Value), nil
			}
		}
	}
	return "", nil
}
