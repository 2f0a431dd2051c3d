package drift

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"a3os.app/tools/fleet/internal/platform"
)

// services looks at what runs.
type services struct {
	*deployed
	client *ecs.Client
}

func (l *services) look(ctx context.Context, id string, r resource) ([]found, error) {
	name, cluster := fmt.Sprint(l.value(r.Properties["ServiceName"])), fmt.Sprint(l.value(r.Properties["Cluster"]))
	got, err := l.client.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{name}})
	if err != nil {
		return nil, err
	}
	if len(got.Services) == 0 || aws.ToString(got.Services[0].Status) == "INACTIVE" {
		return []found{l.say(id, "service %s was deleted", name)}, nil
	}
	s := got.Services[0]
	definition := fmt.Sprint(l.value(r.Properties["TaskDefinition"]))
	var reasons []string
	for _, running := range definitions(s) {
		if running == definition {
			continue
		}
		reason, err := l.otherDefinition(ctx, r, running)
		if err != nil {
			return nil, err
		}
		reasons = append(reasons, reason)
	}
	count, is := r.Properties["DesiredCount"].(float64)
	if is && s.DesiredCount != int32(count) {
		reasons = append(reasons, fmt.Sprintf("is asked to run %d tasks, and the release's template says %d", s.DesiredCount, int32(count)))
	}
	network := l.network(r)
	reasons = append(reasons, network.differs(s.NetworkConfiguration)...)
	behind := l.behind(r)
	reasons = append(reasons, behind.differs(s)...)
	if s.EnableExecuteCommand {
		reasons = append(reasons, "lets commands be run in its tasks")
	}
	astray, err := l.astray(ctx, id, Led{Cluster: cluster, Service: name}, behind)
	if err != nil || len(reasons) == 0 {
		return astray, err
	}
	return append(astray, found{Difference: platform.Difference{Resource: id, Reason: "service " + name + " " + strings.Join(reasons, "; it ")}, mend: func(ctx context.Context) error {
		in := &ecs.UpdateServiceInput{Cluster: &cluster, Service: &name, TaskDefinition: &definition, EnableExecuteCommand: aws.Bool(false), NetworkConfiguration: network.configuration()}
		if is {
			in.DesiredCount = aws.Int32(int32(count))
		}
		// What isn't named stays as it is.
		in.LoadBalancers, in.ServiceRegistries = behind.targets, behind.names
		_, err := l.client.UpdateService(ctx, in)
		return err
	}}), nil
}

// astray is what the names and target groups of the template's service lead to besides its tasks. Who may take that away are administrators.
func (l *services) astray(ctx context.Context, id string, led Led, by front) (out []found, err error) {
	for _, n := range by.names {
		led.Names = append(led.Names, aws.ToString(n.RegistryArn))
	}
	for _, t := range by.targets {
		led.Targets = append(led.Targets, aws.ToString(t.TargetGroupArn))
	}
	all, err := led.Astray(ctx, l.cfg)
	for _, d := range all {
		d.Resource = id
		out = append(out, found{Difference: d})
	}
	return out, err
}

// definitions are those of what the service is asked to run, and of what still runs of it.
func definitions(s types.Service) []string {
	out := []string{aws.ToString(s.TaskDefinition)}
	for _, d := range s.Deployments {
		if d.RunningCount > 0 && !slices.Contains(out, aws.ToString(d.TaskDefinition)) {
			out = append(out, aws.ToString(d.TaskDefinition))
		}
	}
	return out
}

// otherDefinition says what a task definition that isn't the stack's runs.
func (l *services) otherDefinition(ctx context.Context, r resource, running string) (string, error) {
	got, err := l.client.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &running})
	if err != nil {
		return "", err
	}
	reference, _ := r.Properties["TaskDefinition"].(map[string]any)
	wanted := map[string]string{}
	containers, _ := l.template.Resources[fmt.Sprint(reference["Ref"])].Properties["ContainerDefinitions"].([]any)
	for _, c := range containers {
		fields, _ := c.(map[string]any)
		wanted[fmt.Sprint(fields["Name"])] = fmt.Sprint(l.value(fields["Image"]))
	}
	text := "runs the task definition " + running[strings.LastIndex(running, "/")+1:] + ", which isn't the stack's"
	for _, c := range got.TaskDefinition.ContainerDefinitions {
		name, image := aws.ToString(c.Name), aws.ToString(c.Image)
		want, is := wanted[name]
		switch {
		case !is:
			text += fmt.Sprintf(", with a container %s of %s that the release doesn't have", name, image)
		case image != want && !strings.Contains(image, "@sha256:"):
			text += fmt.Sprintf(", with %s from %s, which is named by tag and not by digest (the release's is %s)", name, image, want)
		case image != want:
			text += fmt.Sprintf(", with %s from %s (the release's is %s)", name, image, want)
		}
	}
	return text, nil
}

// attachment is where a service's tasks stand in the network.
type attachment struct {
	groups, subnets []string
	known           bool
}

func (l *services) network(r resource) attachment {
	outer, _ := r.Properties["NetworkConfiguration"].(map[string]any)
	inner, _ := l.value(outer["AwsvpcConfiguration"]).(map[string]any)
	a := attachment{known: inner != nil && !holdsUnknown(inner)}
	a.groups, a.subnets = texts(inner["SecurityGroups"]), texts(inner["Subnets"])
	return a
}

func texts(v any) []string {
	list, _ := v.([]any)
	out := make([]string, 0, len(list))
	for _, e := range list {
		out = append(out, fmt.Sprint(e))
	}
	return out
}

func (a attachment) differs(have *types.NetworkConfiguration) []string {
	if !a.known || have == nil || have.AwsvpcConfiguration == nil {
		return nil
	}
	var out []string
	for what, lists := range sorted(map[string][2][]string{"security groups": {a.groups, have.AwsvpcConfiguration.SecurityGroups}, "subnets": {a.subnets, have.AwsvpcConfiguration.Subnets}}) {
		if want, got := slices.Sorted(slices.Values(lists[0])), slices.Sorted(slices.Values(lists[1])); !slices.Equal(want, got) {
			out = append(out, fmt.Sprintf("has the %s %v, and the stack's are %v", what, got, want))
		}
	}
	if have.AwsvpcConfiguration.AssignPublicIp == types.AssignPublicIpEnabled {
		out = append(out, "has addresses of the internet")
	}
	return out
}

// configuration is the one that the template has; nil, which changes nothing, where that isn't known.
func (a attachment) configuration() *types.NetworkConfiguration {
	if !a.known {
		return nil
	}
	return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{SecurityGroups: a.groups, Subnets: a.subnets, AssignPublicIp: types.AssignPublicIpDisabled}}
}

// front is what leads to a service's tasks: what load balancers send to, and names of Cloud Map's. AWS bounds neither by whose it is, so that who may change
// a service can put it behind any. It is nil, and changes nothing, where the template's isn't known.
type front struct {
	targets []types.LoadBalancer
	names   []types.ServiceRegistry
}

func (l *services) behind(r resource) front {
	f := front{targets: []types.LoadBalancer{}, names: []types.ServiceRegistry{}}
	targets, _ := l.value(r.Properties["LoadBalancers"]).([]any)
	for _, v := range targets {
		fields, _ := v.(map[string]any)
		port, _ := fields["ContainerPort"].(float64)
		if f.targets = append(f.targets, types.LoadBalancer{ContainerName: aws.String(fmt.Sprint(fields["ContainerName"])), ContainerPort: aws.Int32(int32(port)), TargetGroupArn: aws.String(fmt.Sprint(fields["TargetGroupArn"]))}); holdsUnknown(fields) {
			f.targets = nil
			break
		}
	}
	names, _ := l.value(r.Properties["ServiceRegistries"]).([]any)
	for _, v := range names {
		fields, _ := v.(map[string]any)
		if f.names = append(f.names, types.ServiceRegistry{RegistryArn: aws.String(fmt.Sprint(fields["RegistryArn"]))}); holdsUnknown(fields) {
			f.names = nil
			break
		}
	}
	return f
}

// differs names what leads to a service and isn't the template's. That something of the template's is missing CloudFormation finds: nobody is led astray by it.
func (f front) differs(have types.Service) (out []string) {
	for _, b := range have.LoadBalancers {
		if f.targets != nil && !slices.ContainsFunc(f.targets, func(t types.LoadBalancer) bool {
			return aws.ToString(t.TargetGroupArn) == aws.ToString(b.TargetGroupArn)
		}) {
			out = append(out, "is behind the target group "+aws.ToString(b.TargetGroupArn)+", which isn't the stack's: it is sent what others' clients say")
		}
	}
	for _, n := range have.ServiceRegistries {
		if f.names != nil && !slices.ContainsFunc(f.names, func(t types.ServiceRegistry) bool { return aws.ToString(t.RegistryArn) == aws.ToString(n.RegistryArn) }) {
			out = append(out, "is found by the name "+aws.ToString(n.RegistryArn)+", which isn't the stack's")
		}
	}
	return out
}

// sorted goes over a map in the order of its names.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}
